"""The log as a client command sees it: opened, within ten seconds, or the command ends with exit code 6."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from headrace.service import client_log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headrace.service.settings import Settings
    from headrace.topics.log import Log


@asynccontextmanager
async def opened(settings: Settings, *, make: bool = False) -> AsyncGenerator[Log]:
    """The log of these settings, to read and to publish: never its owner, unless to `make` the embedded file.

    Raises `LogUnavailable`.
    """
    silence_kafka()
    async with client_log.opened(settings, make=make) as log:
        yield log


def silence_kafka() -> None:
    """Where no service has set up its log lines, those of the client library would come out bare. What matters of them is in our errors."""
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
