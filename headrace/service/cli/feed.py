"""The feed of `dev --feed` and `demo`:

publishes what an app's `feed(seed)` yields, and knows when all of it has been worked off.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec
import uuid_utils

from headrace.service.definitions.definition_code import FEED_INVALID
from headrace.service.log_backend import log_of
from headrace.service.names import Names
from headrace.service.run_view.scan import scan
from headrace.topics.errors import SettingsError
from headrace.topics.log import TopicPartition, every_partition
from headrace.topics.new_event import NewEvent, encode_event
from headrace.topics.partition_hash import kafka_partition_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from headrace.service.definitions.app import App
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.scan import Seen
    from headrace.service.settings import Settings
    from headrace.topics.log import Log

SOURCE = "headrace/feed"
_LOOK_EVERY_S = 0.25


class FeedItem(msgspec.Struct, forbid_unknown_fields=True):
    """What a feed yields, as a dict. `key` None is a null key."""

    topic: str
    type: str
    data: Any
    key: str | None = None


async def publish_feed(settings: Settings, app: App, *, seed: int, limit: int | None) -> int:
    """Publish until the feed ends or `limit` is reached; how many. The generator sets the pace."""
    assert app.feed is not None  # noqa: S101 - judged before the start
    feed = cast("AsyncGenerator[object]", app.feed(seed))
    published = 0
    async with log_of(settings, owner=False) as log, aclosing(feed) as items:
        async for item in items:
            await _publish(log, _judged(item))
            published += 1
            if published == limit:
                break
    return published


async def worked_off(settings: Settings, sources: Sequence[str]) -> None:
    """Return when the routers have read all sources, no run is open (parked ones aside), and every outbox is empty."""
    names = Names(settings.app.name)
    async with log_of(settings, owner=False) as log:
        while True:
            if await _all_read(log, names.router, sources):
                open_work = _OpenWork()
                await scan(log, settings, open_work)
                if not open_work.found:
                    return
            await anyio.sleep(_LOOK_EVERY_S)


class _OpenWork:
    """Notes whether any partition ends with work to do."""

    def __init__(self) -> None:
        self.found = False

    def begin(self, state: PartitionState) -> None:
        """What was before is over."""

    def see(self, seen: Seen) -> None:
        """Only the end counts."""

    def end(self, state: PartitionState) -> None:
        """A partition's last state."""
        self.found = self.found or bool(state.outbox) or any(run.parked is None for run in state.runs.values())


async def _all_read(log: Log, group: str, sources: Sequence[str]) -> bool:
    places = [at for topic in sources for at in await every_partition(log, topic)]
    positions = await log.committed(group, places)
    return all(
        span.end == span.start or (at in positions and positions[at].offset >= span.end)
        for at, span in (await log.offsets(places)).items()
    )


def _judged(item: object) -> FeedItem:
    try:
        return msgspec.convert(item, FeedItem)
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"The app's feed yields what is no event: {error}.",
            code=FEED_INVALID,
            do='Yield {"topic": ..., "type": ..., "data": {...}, "key": ...}.',
        ) from None


async def _publish(log: Log, item: FeedItem) -> None:
    event = NewEvent(
        id=str(uuid_utils.uuid7()),
        source=SOURCE,
        type=item.type,
        data=msgspec.json.encode(item.data),
        time_ms=time.time_ns() // 1_000_000,
        key=item.key,
    )
    record = encode_event(event)
    count = await log.partitions(item.topic)
    number = kafka_partition_of(record.key, count) if record.key else time.time_ns() % count
    await log.publish(TopicPartition(item.topic, number), [record])
