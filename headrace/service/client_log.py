"""The log as a client sees it, a command or the API: opened within ten seconds, or `LogUnavailable`. Never as its owner."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from headrace.service.log_backend import log_of
from headrace.service.settings import Backend
from headrace.topics.log import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headrace.service.settings import Settings
    from headrace.topics.log import Log

REACH_S = 10.0  # somebody waits for an answer; `dev` and `serve` wait for ever instead


@asynccontextmanager
async def opened(settings: Settings, *, make: bool = False) -> AsyncGenerator[Log]:
    """The log of these settings, to read and to publish: never its owner, unless to `make` the embedded file.

    Raises `LogUnavailable`.
    """
    if not make and _is_missing(settings):
        raise LogUnavailable(
            f"There is no embedded log at {settings.log.path}.",
            why="`headrace dev` makes it in the folder where it is started.",
            do="Go there, give --log-path; or --bootstrap-servers for Kafka.",
        )
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(REACH_S):
                log = await stack.enter_async_context(log_of(settings, owner=make and _is_missing(settings)))
        except TimeoutError:
            raise unreachable(settings) from None
        yield log


def unreachable(settings: Settings) -> LogUnavailable:
    """What to say when nothing answers."""
    if settings.log.backend is Backend.EMBEDDED:
        message = f"{settings.log.path} could not be opened within {REACH_S:.0f} s."
        return LogUnavailable(message, do="See that its disk works and has room, then try again.")
    servers = ", ".join(settings.kafka.bootstrap_servers)
    return LogUnavailable(
        f"No Kafka broker at {servers} answered within {REACH_S:.0f} s.",
        why="It is not running, not reachable from here, or speaks another security protocol.",
        do="Check kafka.bootstrap_servers and kafka.security_protocol; `headrace doctor` tells more.",
    )


def _is_missing(settings: Settings) -> bool:
    return settings.log.backend is Backend.EMBEDDED and not settings.log.path.exists()
