"""The log of a service, opened: a broker that does not answer is waited for, and said to be away once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.observability import told_process
from headrace.observability.health import Condition
from headrace.observability.label import Dependency
from headrace.service.log_backend import log_of
from headrace.service.settings import Backend
from headrace.topics.back_off import BackOff
from headrace.topics.event_wait import set_within
from headrace.topics.log import LogUnavailable

if TYPE_CHECKING:
    import asyncio
    from contextlib import AsyncExitStack

    from headrace.observability.health import Health
    from headrace.observability.observer import Observer
    from headrace.service.settings import Settings
    from headrace.topics.log import Log

_BACK_OFF_S = (0.5, 10.0)


async def opened(
    stack: AsyncExitStack, settings: Settings, observer: Observer, health: Health, stop: asyncio.Event
) -> Log | None:
    """The log, until the stack is closed; None if `stop` came first. Raises LogOwned, and LogUnavailable for a file."""
    servers = ",".join(settings.kafka.bootstrap_servers)
    back_off, waited_s = BackOff(_BACK_OFF_S), 0.0
    while True:
        try:
            log = await stack.enter_async_context(log_of(settings, owner=True))
        except LogUnavailable as error:
            if settings.log.backend is Backend.EMBEDDED:
                raise
            health.set(Condition.BROKER, ok=False, detail=error.message)
            wait_s = back_off.next_s()
            if not waited_s:
                observer.outage_began(
                    told_process.OutageBegan(
                        dependency=Dependency.BROKER,
                        name=servers,
                        message=error.message,
                        retry_after_ms=wait_s * 1000,
                    )
                )
        else:
            if waited_s:
                observer.outage_ended(
                    told_process.OutageEnded(dependency=Dependency.BROKER, name=servers, duration_ms=waited_s * 1000)
                )
            return log
        if await set_within(stop, wait_s):
            return None
        waited_s += wait_s


def refuse_owned(settings: Settings) -> None:
    """Raises LogOwned if the embedded file has an owner. Takes nothing and makes nothing."""
    if settings.log.backend is not Backend.EMBEDDED or not settings.log.path.exists():
        return
    from headrace.topics.log_embedded_file import OwnerLock  # noqa: PLC0415 - as in log_backend.py

    lock = OwnerLock(settings.log.path)
    lock.acquire()
    lock.release()
