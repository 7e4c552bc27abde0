"""Telemetry: everything that watches one service, put together from its settings. It never takes part.

Made by `composition.py`, and open for as long as the service lives: log lines, metrics and their port, traces, health, watchdog, forecast.
The service comes last: until `watch` is called there are no gauges, and nothing to fence.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, TextIO

from headrace.handlers.attempt import current_attempt
from headrace.observability.console import ConsoleObserver
from headrace.observability.expected import Expected
from headrace.observability.exposition import Exposition
from headrace.observability.fan_out import FanOut
from headrace.observability.forecast_thread import ForecastThread
from headrace.observability.health import Health
from headrace.observability.latest import Latest
from headrace.observability.log_event import LogEvent
from headrace.observability.log_observer import LogObserver, exceeded_to, report_to
from headrace.observability.log_text import Secrets
from headrace.observability.logs import Format, Logs
from headrace.observability.prometheus import PrometheusObserver, registry
from headrace.observability.resource_watch import ResourceWatch
from headrace.observability.snapshot import EMPTY, Snapshot
from headrace.observability.traces import secrets_in, tracing
from headrace.observability.watchdog import Watchdog, codes_of
from headrace.service import discovery
from headrace.service.definitions import determinism_guard
from headrace.service.forecast_facts import facts_of
from headrace.service.health_observer import HealthObserver
from headrace.service.log_backend import session_ms
from headrace.service.names import Names
from headrace.service.settings_secret import secrets_of
from headrace.service.stop_signal import LEVEL_SIGNAL, ignore_level_signal
from headrace.topics.trace_context import attempt_span_id, trace_id_in

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from headrace.observability.forecast import Forecast
    from headrace.observability.observer import Observer
    from headrace.service.definitions.app import App
    from headrace.service.service import Service
    from headrace.service.settings import Settings
    from headrace.service.worker_link import Supervised

_FORMATS = {"auto": Format.AUTO, "json": Format.JSON, "text": Format.CONSOLE}


class Telemetry:
    """`observer` is told, `health` is kept by the service; `metrics_url` is where both can be asked, without a path; `forecast` gives the newest.

    `mask` hides the secrets of the settings in a text.
    """

    observer: FanOut
    metrics_url: str
    forecast: Callable[[], Forecast | None]

    def __init__(self, settings: Settings, app: App, *, instance: str, supervised: Supervised | None = None) -> None:
        self._settings = settings
        self._app = app
        self._instance = instance
        self._supervised = supervised
        self._logs = _logs(settings, None if supervised is None else supervised.index)
        self.mask = self._logs.secrets.mask
        self._service: Service | None = None
        self.health = Health()

    def watch(self, service: Service) -> None:
        """From now on gauges are its, and it is fenced when its loop stands still."""
        self._service = service

    @contextmanager
    def open(self, *, console: TextIO | None = None, others: Sequence[Observer] = ()) -> Generator[None, None, None]:
        """Watch, until the end of the block, on the event loop that runs. Raises PortTaken."""
        with ExitStack() as stack:
            stack.enter_context(self._logs.installed())
            stack.callback(self._logs.flush)
            stack.enter_context(self._level_by_signal())
            prometheus = self._prometheus()
            self.observer = FanOut(
                [
                    prometheus,
                    LogObserver(self._logs),
                    *others,
                    *self._console_lines(console),
                    *self._traces(stack, prometheus),
                    HealthObserver(self.health),
                ],
                report_to(self._logs),
            )
            self.health.watch(stack.enter_context(self._watchdog()).silent_s)
            stack.enter_context(ResourceWatch(self.observer))
            port = stack.enter_context(self._port(prometheus))
            self.metrics_url = port.url
            prometheus.show_port_errors(port.errors)
            self.forecast = stack.enter_context(self._forecast(prometheus)).newest
            prometheus.show(self.forecast)
            yield

    @contextmanager
    def _level_by_signal(self) -> Generator[None, None, None]:
        """SIGUSR1: every line is written; once more: those of the settings. A loop in a thread hears no signals."""
        loop = asyncio.get_running_loop()
        usual = self._logs.level

        def change() -> None:
            self._logs.set_level(logging.DEBUG if self._logs.level == usual else usual)
            least = logging.getLevelName(self._logs.level).lower()
            self._logs.write(LogEvent.LEVEL_CHANGED, at=max(logging.INFO, self._logs.level), least=least)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop.add_signal_handler(LEVEL_SIGNAL, change)
        try:
            yield
        finally:
            loop.remove_signal_handler(LEVEL_SIGNAL)
            ignore_level_signal()

    def _prometheus(self) -> PrometheusObserver:
        """The counters; gauges are asked of the service, on its loop, when somebody scrapes."""
        settings = self._settings
        prometheus = PrometheusObserver(
            snapshots=Latest(self._snapshot, asyncio.get_running_loop()),
            version=version("headrace"),
            backend=settings.log.backend,
            series_budget=settings.telemetry.series_budget,
            buckets=settings.telemetry.bounds,
            exceeded=exceeded_to(self._logs),
        )
        prometheus.expect(_expected(settings, self._app))
        return prometheus

    def _snapshot(self) -> Snapshot:
        return EMPTY if self._service is None else self._service.snapshot()

    def _console_lines(self, console: TextIO | None) -> Iterator[Observer]:
        if console is not None:
            yield ConsoleObserver(console, self.mask)

    def _traces(self, stack: ExitStack, prometheus: PrometheusObserver) -> Iterator[Observer]:
        """Where the environment names a collector."""
        tracer = tracing(
            app=self._settings.app.name,
            instance=self._instance,
            version=version("headrace"),
            mask=self.mask,
        )
        if tracer is not None:
            stack.callback(tracer.close)
            prometheus.show_spans(tracer.counts)
            yield tracer

    def _watchdog(self) -> Watchdog:
        """Half a session is the most that the loop may stand still before its partitions are in doubt."""
        return Watchdog(
            self.observer,
            codes_of((handler.name, handler.function) for handler in self._app.handlers),
            fence_ms=session_ms(self._settings) / 2,
            fence=self._fence,
            hidden=frozenset({determinism_guard.__file__}),  # it stands around time.sleep and its like
        )

    def _fence(self, stalled_s: float) -> None:
        if self._service is not None:
            self._service.fence(stalled_s)

    def _port(self, prometheus: PrometheusObserver) -> Exposition:
        telemetry = self._settings.telemetry
        return Exposition(
            registry(prometheus),
            self.health,
            host=telemetry.metrics_host,
            port=telemetry.metrics_port,
            discovery=self._discovery,
        )

    def _discovery(self) -> bytes:
        """Where the metrics of all workers are: the supervisor's document, or ourselves alone."""
        if self._supervised is not None:
            return self._supervised.discovery.read_bytes()
        return discovery.document(self._settings.app.name, {0: self.metrics_url})

    def _forecast(self, prometheus: PrometheusObserver) -> ForecastThread:
        facts = facts_of(self._settings, self._app)
        return ForecastThread(facts, prometheus.totals, prometheus.snapshots, report_to(self._logs))


def _expected(settings: Settings, app: App) -> Expected:
    return Expected(
        workflows=sorted({workflow.name for workflow in app.workflows}),
        handlers=sorted(handler.name for handler in app.handlers),
        breakers=sorted({handler.breaker.name for handler in app.handlers if handler.breaker is not None}),
        sources=app.source_topics,
        outputs=app.emitted_topics,
        starts=sorted({(trigger.topic, flow.name) for flow in app.newest() for trigger in flow.triggers}),
        emits=sorted({(topic, flow.name) for flow in app.workflows for topic in flow.emits}),
        scheduled=sorted({each.workflow for each in app.schedules.values()}),
        group=Names(settings.app.name).members,
    )


def _logs(settings: Settings, worker: int | None) -> Logs:
    return Logs(
        stream=sys.stderr,
        style=_FORMATS[settings.telemetry.log_format],
        level=logging.getLevelNamesMapping()[settings.telemetry.log_level.upper()],
        secrets=Secrets([*secrets_of(settings), *secrets_in()]),
        context=_attempt_fields,
        process=None if worker is None else {"worker": worker},
    )


def _attempt_fields() -> dict[str, str | int]:
    """Which attempt a handler's own log line belongs to."""
    try:
        attempt = current_attempt()
    except LookupError:
        return {}
    fields: dict[str, str | int] = {"run_id": attempt.run_id, "task": attempt.task, "attempt": attempt.number}
    if attempt.anchor is not None:
        fields["trace_id"] = trace_id_in(attempt.anchor)
        fields["span_id"] = attempt_span_id(attempt.run_id, attempt.task, attempt.number)
    return fields
