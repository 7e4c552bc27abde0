"""Traces without OpenTelemetry.

Which context a run and its attempts have, whether a run is sampled, and whether anybody wants spans.

All ids derive from the run id, the step and the attempt number (`topics/trace_context.py`), so nothing has to be
remembered between the spans of a run, on this owner or the next. The shell asks here for the context that a handler's
outgoing calls carry; that needs no exporter. `tracing` makes the observer that exports (`trace_observer.py`), or
answers None: then the SDK is not even imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from headrace.observability.log_text import passwords_in
from headrace.topics.trace_context import SAMPLED, TraceContext, context_of_run, span_id_of, trace_id_of

if TYPE_CHECKING:
    from headrace.observability.trace_observer import TraceObserver

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_SECRET_HEADERS: Final = ("auth", "token", "key", "secret", "password", "cookie")


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Decides from the run's trace id alone, or as the producer did, whose context the log keeps.

    Every instance with the same rule comes to the same answer at any time; it is in the anchor's flags.

    `ratio` of the traces that begin here; a producer that was sampled (or not) is followed if `follow_producer`.
    """

    ratio: float
    follow_producer: bool = True

    def flags(self, run: str, producer: TraceContext | None) -> int:
        """W3C trace flags of the run's anchor."""
        if producer is not None and self.follow_producer:
            return producer.flags & SAMPLED
        if self.ratio >= 1:
            return SAMPLED
        if self.ratio <= 0:
            return 0
        # As OpenTelemetry's TraceIdRatioBased: the lower 64 bits of the trace id against a bound.
        return SAMPLED if int(trace_id_of(run)[16:], 16) < round(self.ratio * 2**64) else 0


class Contexts(msgspec.Struct, frozen=True, kw_only=True):
    """The rule by which runs get their trace contexts: one per process, from the settings and the OTEL_* variables."""

    sampling: Sampling
    parent_from_kafka: bool = False

    def anchor(
        self, run: str, producer: TraceContext | None, *, from_kafka: bool = True, awaited: bool | None = None
    ) -> TraceContext:
        """The context of a run's anchor. `producer`: of the source record, of the request that started the run, or of its parent.

        Without a source record (not `from_kafka`) somebody waits for an answer: the run goes on in the asker's trace. So does an `awaited` child, sampled
        as its parent is; one that is not has a trace of its own. None: the run is no child.
        """
        if producer is not None and awaited:
            return TraceContext(producer.trace_id, span_id_of(run, "start"), producer.flags & SAMPLED, producer.state)
        flags = self.sampling.flags(run, producer)
        if producer is not None and awaited is None and (self.parent_from_kafka or not from_kafka):
            return TraceContext(producer.trace_id, span_id_of(run, "start"), flags, producer.state)
        return context_of_run(run, producer, flags=flags)


def contexts(environment: Mapping[str, str] | None = None, *, parent_from_kafka: bool = False) -> Contexts:
    """From `OTEL_TRACES_SAMPLER` and `_ARG`.

    Without an exporter nothing is sampled but what a producer sampled: its trace goes through us.
    """
    env = os.environ if environment is None else environment
    if not configured(env):
        return Contexts(sampling=Sampling(ratio=0.0), parent_from_kafka=parent_from_kafka)
    name = env.get("OTEL_TRACES_SAMPLER", "parentbased_always_on").strip().lower()
    based, kind = name.startswith("parentbased_"), name.removeprefix("parentbased_")
    match kind:
        case "always_off":
            ratio = 0.0
        case "traceidratio":
            ratio = _ratio(env.get("OTEL_TRACES_SAMPLER_ARG", "1"))
        case _:  # always_on, and what we do not know: the specification says to go on with the default
            ratio = 1.0
    return Contexts(sampling=Sampling(ratio=ratio, follow_producer=based), parent_from_kafka=parent_from_kafka)


def configured(environment: Mapping[str, str] | None = None) -> bool:
    """Do the standard variables ask for traces? An OTLP endpoint, or `OTEL_TRACES_EXPORTER=otlp`.

    `none` and `OTEL_SDK_DISABLED` win.
    """
    env = os.environ if environment is None else environment
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = env.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return "otlp" in map(str.strip, exporter.split(","))
    return any(env.get(name) for name in ENDPOINTS)


def secrets_in(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """What the standard variables hold that nobody may see: headers that let somebody in, and passwords of addresses.

    A header whose name tells of no secret (a tenant, say) is none: its value may be any word.
    """
    env = os.environ if environment is None else environment
    for pair in (pair for text in filter(None, map(env.get, _HEADERS)) for pair in text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or any(word in name.lower() for word in _SECRET_HEADERS):
            value = unquote(value or name).strip()
            yield from (pair.strip(), value, value.rpartition(" ")[2])
    for address in filter(None, map(env.get, ENDPOINTS)):
        yield from passwords_in(address)


def tracing(*, app: str, instance: str, version: str, mask: Callable[[str], str] = str) -> TraceObserver | None:
    """The observer with an OTLP exporter by the OTEL_* variables, or None if they ask for none. `mask` hides secrets."""
    if not configured():
        return None
    from headrace.observability.trace_observer import exporting  # noqa: PLC0415 - the SDK costs 100 ms and 20 MB

    return exporting(app=app, instance=instance, version=version, mask=mask)


def _ratio(text: str) -> float:
    """`OTEL_TRACES_SAMPLER_ARG`; what cannot be read counts as 1, as the specification says."""
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 1.0
