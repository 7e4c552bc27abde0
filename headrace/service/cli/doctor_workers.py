"""What `headrace doctor` finds out about the workers that run on this machine, from their metrics ports."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.service.cli.doctor_check import Check, State
from headrace.service.cli.output import counted
from headrace.service.cli.top_view import view
from headrace.service.cli.worker_metrics import app_of_workers, scraped, workers_of
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.service.cli.top_view import View, WorkflowView
    from headrace.service.settings import Settings

PARTITIONS_PER_WORKER = 4
"""Fewer, and one slow partition holds up a worker's only other ones; a worker without any is a spare."""
_SOON_S = 1800.0
_KEEPS_UP = 0.9  # of what comes: both are measured, and differ a little
_NAMED_MAX = 3


def worker_checks(settings: Settings) -> Iterator[Check]:
    """The metrics port, and whoever answers there: their health, their share of the partitions, what they forecast."""
    port = _port(settings)
    if port is not None:
        yield port
        return
    place = f"{settings.telemetry.metrics_host}:{settings.telemetry.metrics_port}"
    try:
        app = app_of_workers(settings)
        if app not in {None, settings.app.name}:
            found, fix = f"{place} belongs to the app {app}", f"Choose another --metrics-port for {settings.app.name}."
            yield Check("metrics port", State.WARN, found, fix)
            return
        looks = scraped(workers_of(settings))
    except HeadraceError:
        fix = "If no service of yours runs there, choose another --metrics-port."
        yield Check("metrics port", State.WARN, f"{place} cannot be used, and no worker answers there", fix)
        return
    now = view([], looks)
    yield _health(now)
    owned = [
        value
        for each in looks
        for of, value in each.values("kafka_partitions_assigned")
        if of.get("group", "").endswith(".owners")
    ]
    if owned:
        yield _placement(int(sum(owned)), len(owned))
    yield from _breakers(now)
    yield from _forecast(now)


def _port(settings: Settings) -> Check | None:
    """None: something listens there."""
    host, port = settings.telemetry.metrics_host, settings.telemetry.metrics_port
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        found = f"{host}:{port} cannot be bound: {error.strerror or error}"
        return Check("metrics port", State.FAIL, found, "Correct telemetry.metrics_host and --metrics-port.")
    return Check("metrics port", State.OK, f"{host}:{port} is free")


def _health(now: View) -> Check:
    sick = [f"{each.worker} ({each.url}) {each.status}" for each in now.workers if each.status != "ready"]
    if sick:
        fix = "Ask /readyz?verbose on their metrics ports."
        return Check("workers", State.WARN, f"of {counted(len(now.workers), 'worker')}: {', '.join(sick)}", fix)
    return Check("workers", State.OK, f"{counted(len(now.workers), 'worker')} on this machine, ready")


def _placement(partitions: int, workers: int) -> Check:
    found = f"{counted(partitions, 'run-log partition')} here for {counted(workers, 'worker')}"
    if partitions < PARTITIONS_PER_WORKER * workers:
        fix = f"Use fewer workers, or a new app with more partitions: {PARTITIONS_PER_WORKER} for each worker."
        return Check("partitions", State.WARN, found, fix)
    return Check("partitions", State.OK, found)


def _breakers(now: View) -> Iterator[Check]:
    for each in now.breakers:
        if each.state != "closed":
            found = f"{each.breaker} is {each.state}: tasks that need what it guards are held"
            yield Check("breaker", State.WARN, found, "See what it guards; it closes by itself once that answers.")


def _forecast(now: View) -> Iterator[Check]:
    late = [each for each in now.workflows if each.breach_s is not None and each.breach_s < _SOON_S]
    for each in late:
        when = f"in {each.breach_s:.0f} s" if each.breach_s else "now"
        found = f"starts of {each.workflow} wait longer than telemetry.delay_limit {when}"
        yield Check("forecast", State.WARN, found, _relief(now))
    behind = [each.workflow for each in now.workflows if not _keeps_up(each)]
    if now.bottleneck and not late and behind:
        found = f"{now.bottleneck} limits: {', '.join(behind[:_NAMED_MAX])} cannot keep up"
        yield Check("forecast", State.WARN, found, _relief(now))
    elif now.bottleneck and not late:
        yield Check("forecast", State.OK, f"{now.bottleneck} limits, and keeps up")
    elif not late and any(each.cpu is not None for each in now.workers):
        yield Check("forecast", State.OK, "nothing limits")


def _keeps_up(flow: WorkflowView) -> bool:
    """Whether what comes is served, as far as that is known."""
    capacity, arrivals = flow.capacity_per_s, flow.arrivals_per_s
    if capacity is None or arrivals is None:
        return True
    return capacity >= _KEEPS_UP * arrivals and (capacity > 0 or not any(flow.active.values()))


def _relief(now: View) -> str:
    if not now.bottleneck:
        return "`headrace top` shows what grows."
    more = "" if now.workers_needed is None else f" The load needs {counted(now.workers_needed, 'worker')}."
    return f"{now.bottleneck} limits: without it {now.relief or 1:.1f} times as much would pass.{more}"
