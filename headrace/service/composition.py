"""Composition: puts one service together from settings and an app. `serve` is the order in which that is done.

The concrete classes are picked here; those that watch, in `telemetry.py`; the log, in `log_backend.py`.
"""

from __future__ import annotations

import importlib
import os
import secrets
import socket
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, TextIO

import msgspec

from headrace.handlers.http_request import close_session
from headrace.observability import told_process
from headrace.observability.health import Condition
from headrace.observability.traces import contexts
from headrace.service import topic_plan
from headrace.service.history.url import history_url
from headrace.service.log_backend import log_of
from headrace.service.log_opening import opened, refuse_owned
from headrace.service.run_log_check import refuse_emptied, refuse_other_partitions
from headrace.service.service import Service
from headrace.service.settings import Backend
from headrace.service.shared import Shared
from headrace.service.telemetry import Telemetry
from headrace.topics.error_group import first_error
from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from headrace.observability.observer import Observer
    from headrace.service.api.server import ApiPort
    from headrace.service.definitions.app import App
    from headrace.service.history.link import HistoryLink
    from headrace.service.settings import Settings
    from headrace.service.topic_plan import TopicPlan
    from headrace.service.worker_link import Supervised
    from headrace.topics.log import Log


_API = "headrace.service.api.server"
"""Loaded only where there is an API."""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What people want to know about a service that has just started."""

    metrics_url: str
    api_url: str  # "": there is none
    backend: str
    log: str  # the file, or the servers
    topics_made: tuple[str, ...]
    instance: str


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
    if settings.api.enabled:
        import_module(_API)  # before anybody watches the loop: it takes 200 ms
    instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    telemetry = Telemetry(settings, app, instance=instance, supervised=supervised)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(close_session)
        try:
            stack.enter_context(telemetry.open(console=console, others=observers))
            port = _api_port(stack, settings)
        except SettingsError:
            refuse_owned(settings)  # the same app, started twice: that is what the user should hear
            raise
        log = await opened(stack, settings, telemetry.observer, telemetry.health, stop)
        if log is None:
            return 0
        topics, made = await _checked_topics(log, settings, app, create=create_topics)
        telemetry.health.set(Condition.BROKER, ok=True)
        history = await _history(settings, telemetry, topics)
        shared = _shared(settings, app, log, telemetry, topics, instance, history)
        service = Service(shared, telemetry.health, stop, None if supervised is None else supervised.group_changed)
        telemetry.watch(service)
        try:
            async with AsyncExitStack() as api:
                if port is not None:
                    await _serve_api(api, port, shared, telemetry, service, stop)
                started(_started(settings, telemetry, port, made, instance))
                telemetry.observer.service_started(_told_started(settings, app, instance))
                await service.run()
        except BaseExceptionGroup as group:
            raise first_error(group) from group
        return service.attempts_left


def _api_port(stack: AsyncExitStack, settings: Settings) -> ApiPort | None:
    """The API's port, bound; None: it is switched off, and its libraries are not even loaded."""
    if not settings.api.enabled:
        return None
    from headrace.service.api.server import bound

    return stack.enter_context(bound(settings.api))


async def _serve_api(
    stack: AsyncExitStack, port: ApiPort, shared: Shared, telemetry: Telemetry, service: Service, stop: asyncio.Event
) -> None:
    from headrace.service.api.server import serving

    await stack.enter_async_context(
        serving(port, shared, stop=stop, snapshot=service.snapshot, forecast=telemetry.forecast)
    )


async def _checked_topics(log: Log, settings: Settings, app: App, *, create: bool) -> tuple[TopicPlan, tuple[str, ...]]:
    """The topics, which are there now and as they must be, and which of them were made. Before anything is read or written."""
    topics = await topic_plan.planned(log, settings, sources=app.source_topics, outputs=app.emitted_topics)
    made = await topic_plan.prepare(log, topics, create=create)
    await refuse_other_partitions(log, settings.app.name, topics.runs.partitions)
    await refuse_emptied(log, settings.app.name, app.source_topics, topics.runs.partitions)
    return topics, tuple(made)


def load_history(settings: Settings) -> None:
    """Import what the history needs, if there is to be one: before a loop turns, which it would block."""
    url = history_url(settings)
    if url is not None:
        importlib.import_module("headrace.service.history.history")
        from headrace.service.history.database import load

        load(url)


async def _history(settings: Settings, telemetry: Telemetry, topics: TopicPlan) -> HistoryLink | None:
    """The history, if there is to be one. Raises `SettingsError`."""
    url = history_url(settings)
    if url is None:
        return None
    from headrace.service.history.history import History  # 0.3 s that nobody else pays

    history = History(
        settings,
        url,
        observer=telemetry.observer,
        partitions=topics.runs.partitions,
        open_log=lambda: log_of(settings, owner=False),
    )
    await history.check()
    return history


def _shared(
    settings: Settings,
    app: App,
    log: Log,
    telemetry: Telemetry,
    topics: TopicPlan,
    instance: str,
    history: HistoryLink | None,
) -> Shared:
    return Shared(
        settings=settings,
        app=app,
        log=log,
        observer=telemetry.observer,
        contexts=contexts(parent_from_kafka=settings.telemetry.parent_from_kafka),
        instance=instance,
        partitions=topics.runs.partitions,
        listens_to_starts=telemetry.observer.listens("attempt_started"),
        dead_letter_bytes=topics.dead_letter_bytes,
        topics=topics,
        mask=telemetry.mask,
        history=history,
    )


def _started(
    settings: Settings, telemetry: Telemetry, port: ApiPort | None, made: tuple[str, ...], instance: str
) -> Started:
    embedded = settings.log.backend is Backend.EMBEDDED
    return Started(
        metrics_url=telemetry.metrics_url,
        api_url="" if port is None else port.url + settings.api.base_path.rstrip("/"),
        backend=settings.log.backend,
        log=str(settings.log.path) if embedded else ",".join(settings.kafka.bootstrap_servers),
        topics_made=made,
        instance=instance,
    )


def _told_started(settings: Settings, app: App, instance: str) -> told_process.ServiceStarted:
    return told_process.ServiceStarted(
        app=settings.app.name,
        instance=instance,
        version=version("headrace"),
        backend=settings.log.backend,
        workflows=len(app.workflows),
        handlers=len(app.handlers),
    )
