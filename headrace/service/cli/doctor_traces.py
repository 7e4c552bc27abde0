"""What `headrace doctor` finds out about traces: whether the standard variables turn them on, and whether spans would arrive. Nothing is sent."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from headrace.observability.traces import ENDPOINTS, configured
from headrace.service.cli.doctor_check import Check, State, failed
from headrace.service.cli.http_address import http_address
from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TIMEOUT_S = 2.0
_EXPORTER = "OTEL_TRACES_EXPORTER"


def traces_checks(environment: Mapping[str, str]) -> Iterator[Check]:
    """None without any of the variables."""
    named = [(name, address) for name in ENDPOINTS if (address := environment.get(name))]
    if not configured(environment):
        exporter = environment.get(_EXPORTER, "").strip()
        if exporter.lower() in {"", "none"}:
            if named or exporter:
                yield Check("traces", State.OK, f"turned off by {_EXPORTER if exporter else 'OTEL_SDK_DISABLED'}")
        else:
            yield Check("traces", State.WARN, f"{_EXPORTER}={exporter[:40]} sends no spans", f"Set {_EXPORTER}=otlp.")
        return
    from headrace.observability.trace_observer import SpanCounts, processor

    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # it quotes headers that it cannot read
    try:
        processor(SpanCounts()).shutdown()
    except SettingsError as error:
        yield failed("traces", error)
        return
    for name, address in named or [(f"{_EXPORTER}=otlp", "http://localhost:4318")]:
        yield _reachable(name, address)


def _reachable(name: str, address: str) -> Check:
    """Whether this is an address, and anybody listens there."""
    parts = http_address(address)
    if parts is None:
        return Check("traces", State.FAIL, f"{name} is no address", f"Set {name}=http://host:4318.")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=_TIMEOUT_S):
            return Check("traces", State.OK, f"{name} is set, and its address answers")
    except OSError as error:
        found = f"{name} is set, but nobody answers there: {error.strerror or error}"
        return Check("traces", State.WARN, found, "Start the collector; until then spans are dropped and runs go on.")
