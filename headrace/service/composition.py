"""Composition: the only file that picks concrete classes, and puts one service together from settings and an app."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import msgspec

from headrace.handlers.attempt import current_attempt
from headrace.observability import observer as told
from headrace.observability.console import ConsoleObserver
from headrace.observability.expected import Expected
from headrace.observability.exposition import Exposition
from headrace.observability.fan_out import FanOut
from headrace.observability.forecast_thread import ForecastThread
from headrace.observability.health import Condition, Health
from headrace.observability.label import Dependency
from headrace.observability.latest import Latest
from headrace.observability.log_observer import LogObserver, exceeded_to, report_to
from headrace.observability.log_text import Secrets
from headrace.observability.logs import Format, Logs
from headrace.observability.prometheus import PrometheusObserver, registry
from headrace.observability.resource_watch import ResourceWatch
from headrace.observability.snapshot import EMPTY, Snapshot
from headrace.observability.traces import contexts, tracing
from headrace.observability.watchdog import Watchdog, codes_of
from headrace.service import discovery, topic_plan
from headrace.service.forecast_facts import facts_of
from headrace.service.health_observer import HealthObserver
from headrace.service.log_backend import log_of, session_ms
from headrace.service.names import Names
from headrace.service.run_log_check import refuse_other_partitions
from headrace.service.service import Service
from headrace.service.settings import Backend
from headrace.service.shared import Shared
from headrace.topics.back_off import BackOff
from headrace.topics.errors import HeadraceError
from headrace.topics.log import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.observability.observer import Observer
    from headrace.service.definitions.app import App
    from headrace.service.settings import Settings
    from headrace.topics.log import Log

_BACK_OFF_S = (0.5, 10.0)


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What people want to know about a service that has just started."""

    metrics_url: str
    backend: str
    log: str  # the file, or the servers
    topics_made: tuple[str, ...]
    instance: str


class Supervised(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has of its supervisor. `group_changed` is set by it at each hint, and cleared by who has looked."""

    index: int
    group_changed: asyncio.Event
    discovery: Path


async def serve(
    settings: Settings,
    app: App,
    *,
    stop: asyncio.Event,
    create_topics: bool,
    console: TextIO | None = None,
    started: Callable[[Started], None] = lambda _: None,
    observers: Sequence[Observer] = (),
    supervised: Supervised | None = None,
) -> int:
    """Run one instance until `stop` is set. The number of handlers that still run then, although they were cancelled.

    `console`: a line per finished run. Raises SettingsError (topics, port), LogOwned, MembershipRefused; waits for a Kafka that is away.
    """
    instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    logs = _logs(settings, None if supervised is None else supervised.index)
    service_holder: list[Service] = []

    def now() -> Snapshot:
        return service_holder[0].snapshot() if service_holder else EMPTY

    async with AsyncExitStack() as stack:
        stack.enter_context(logs.installed())
        stack.callback(logs.flush)
        prometheus = PrometheusObserver(
            snapshots=Latest(now, asyncio.get_running_loop()),
            version=version("headrace"),
            backend=settings.log.backend,
            series_budget=settings.telemetry.series_budget,
            buckets=settings.telemetry.bounds,
            exceeded=exceeded_to(logs),
        )
        prometheus.expect(_expected(settings, app))
        watchers: list[Observer] = [prometheus, LogObserver(logs), *observers]
        if console is not None:
            watchers.append(ConsoleObserver(console, logs.secrets.mask))
        tracer = tracing(app=settings.app.name, instance=instance, version=version("headrace"), mask=logs.secrets.mask)
        if tracer is not None:
            stack.callback(tracer.close)
            watchers.append(tracer)
        health = Health()
        watchers.append(HealthObserver(health))
        observer = FanOut(watchers, report_to(logs))
        watchdog = stack.enter_context(
            Watchdog(
                observer,
                codes_of((handler.name, handler.function) for handler in app.handlers),
                fence_ms=session_ms(settings) / 2,
                fence=lambda stalled_s: service_holder[0].fence(stalled_s) if service_holder else None,
            )
        )
        health.watch(watchdog.silent_s)
        stack.enter_context(ResourceWatch(observer))
        telemetry = settings.telemetry
        port = Exposition(
            registry(prometheus),
            health,
            host=telemetry.metrics_host,
            port=telemetry.metrics_port,
            discovery=lambda: (
                discovery.document(settings.app.name, {0: port.url})
                if supervised is None
                else supervised.discovery.read_bytes()
            ),
        )
        stack.enter_context(port)
        forecast = stack.enter_context(
            ForecastThread(facts_of(settings, app), prometheus.totals, prometheus.snapshots, report_to(logs))
        )
        prometheus.show(forecast.newest)
        log = await _entered(stack, settings, observer, health, stop)
        if log is None:
            return 0
        wanted = await topic_plan.planned(log, settings, sources=app.source_topics, outputs=app.emitted_topics)
        made = await topic_plan.prepare(log, wanted, create=create_topics)
        await refuse_other_partitions(log, settings.app.name, wanted.runs.partitions)
        health.set(Condition.BROKER, ok=True)
        shared = Shared(
            settings=settings,
            app=app,
            log=log,
            observer=observer,
            contexts=contexts(parent_from_kafka=telemetry.parent_from_kafka),
            instance=instance,
            partitions=wanted.runs.partitions,
            listens_to_starts=observer.listens("attempt_started"),
            dead_letter_bytes={
                spec.name.removesuffix(".dlq"): spec.max_message_bytes
                for spec in wanted.kept
                if spec.name.endswith(".dlq")
            },
            topics=wanted,
        )
        service = Service(shared, health, stop, None if supervised is None else supervised.group_changed)
        service_holder.append(service)
        started(
            Started(
                metrics_url=port.url,
                backend=settings.log.backend,
                log=str(settings.log.path)
                if settings.log.backend is Backend.EMBEDDED
                else ",".join(settings.kafka.bootstrap_servers),
                topics_made=tuple(made),
                instance=instance,
            )
        )
        observer.service_started(
            told.ServiceStarted(
                app=settings.app.name,
                instance=instance,
                version=version("headrace"),
                backend=settings.log.backend,
                workflows=len(app.workflows),
                handlers=len(app.handlers),
            )
        )
        try:
            await service.run()
        except BaseExceptionGroup as group:
            raise first_error(group) from group
        return service.attempts_left


async def _entered(
    stack: AsyncExitStack, settings: Settings, observer: Observer, health: Health, stop: asyncio.Event
) -> Log | None:
    """The log, open; None if the stop came first. A broker that does not answer is waited for, with one line and back-off."""
    back_off, waited_s = BackOff(_BACK_OFF_S), 0.0
    while True:
        log = log_of(settings, owner=True)
        try:
            entered = await stack.enter_async_context(log)
        except LogUnavailable as error:
            if settings.log.backend is Backend.EMBEDDED:
                raise
            health.set(Condition.BROKER, ok=False, detail=error.message)
            wait_s = back_off.next_s()
            if not waited_s:
                observer.outage_began(
                    told.OutageBegan(
                        dependency=Dependency.BROKER,
                        name=",".join(settings.kafka.bootstrap_servers),
                        message=error.message,
                        retry_after_ms=wait_s * 1000,
                    )
                )
        else:
            if waited_s:
                observer.outage_ended(
                    told.OutageEnded(
                        dependency=Dependency.BROKER,
                        name=",".join(settings.kafka.bootstrap_servers),
                        duration_ms=waited_s * 1000,
                    )
                )
            return entered
        try:
            async with asyncio.timeout(wait_s):
                await stop.wait()
                return None
        except TimeoutError:
            waited_s += wait_s


def _expected(settings: Settings, app: App) -> Expected:
    return Expected(
        workflows=sorted({workflow.name for workflow in app.workflows}),
        handlers=sorted(handler.name for handler in app.handlers),
        breakers=sorted({handler.breaker.name for handler in app.handlers if handler.breaker is not None}),
        sources=app.source_topics,
        outputs=app.emitted_topics,
        group=Names(settings.app.name).members,
    )


def _logs(settings: Settings, worker: int | None) -> Logs:
    kafka = settings.kafka
    hidden = [kafka.sasl_password, kafka.ssl_key_password, settings.history.url]
    style = {"auto": Format.AUTO, "json": Format.JSON, "text": Format.CONSOLE}[settings.telemetry.log_format]
    return Logs(
        stream=sys.stderr,
        style=style,
        level=logging.getLevelNamesMapping()[settings.telemetry.log_level.upper()],
        secrets=Secrets([secret.get_secret_value() for secret in hidden if secret is not None]),
        context=_attempt_fields,
        process=None if worker is None else {"worker": worker},
    )


def _attempt_fields() -> dict[str, str | int]:
    """Which attempt a handler's own log line belongs to."""
    try:
        attempt = current_attempt()
    except LookupError:
        return {}
    return {"run_id": attempt.run_id, "task": attempt.task, "attempt": attempt.number}


def first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    """The error behind a group: ours before others'."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, HeadraceError)), leaves[0])


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(cast("BaseExceptionGroup[Any]", error)) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
