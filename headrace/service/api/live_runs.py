"""What happens to runs, as it happens: partitions of the run log, followed and folded as data while somebody looks.

For clients that wait for a run's end and for live updates. Exact, as every owner would see it, whichever process owns a partition; nothing is followed, and
nothing costs anything, while nobody looks. Reads through a log of its own: the service's own readers are never disturbed.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from headrace.observability import told_process
from headrace.service.api.problem import BUG, place_of
from headrace.service.client_log import opened
from headrace.service.engine.instruction import Begin, Close, Joined, Park, Queued, Send, Unpark
from headrace.service.engine.state import Refusal
from headrace.service.names import Names
from headrace.service.run_view.run_detail import detail_of
from headrace.service.run_view.scan import Reading
from headrace.service.run_view.summary import Tallies, summary_of
from headrace.topics.back_off import BackOff
from headrace.topics.errors import HeadraceError
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Generator

    from headrace.observability.observer import Observer
    from headrace.service.api.live_stream import LiveStream
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.run_detail import RunDetail
    from headrace.service.run_view.scan import Seen
    from headrace.service.run_view.summary import RunSummary
    from headrace.service.settings import Settings
    from headrace.topics.log import Log

LINGER_S = 30.0
"""A partition is followed for so long after the last one who looked: the next one need not read it from its checkpoint."""
_PACK_EVERY = 2_000  # records: open runs are kept as bytes, whatever their number
_BACK_OFF_S = (0.2, 5.0)
_DENIED_MAX = 1_000


class Change(StrEnum):
    """What happened to a run: the name of its live event."""

    QUEUED = "run.queued"
    STARTED = "run.started"
    PARKED = "run.parked"
    RESUMED = "run.resumed"
    FINISHED = "run.finished"


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """What a start came to when it was folded. `open_run`: of the same key, that it joined or was refused for."""

    run: RunSummary | None = None  # as it is open now
    joined: bool = False
    refused: bool = False
    open_run: str = ""


class _Awaited(NamedTuple):
    offset: int
    run: str
    took: asyncio.Future[Took]


class LiveRuns:
    """`following` keeps partitions followed; `run` is the task that owns their tasks.

    `stream` hears of every change in a followed partition, and is reset when some may not have been heard of.
    """

    def __init__(self, settings: Settings, partitions: int, stream: LiveStream, observer: Observer) -> None:
        self.settings = settings
        self.count = partitions
        self.stream = stream
        self.observer = observer
        self._topic = Names(settings.app.name).runs
        self._group: asyncio.TaskGroup | None = None
        self._log: asyncio.Future[Log] | None = None
        self._followed: dict[int, Followed] = {}

    async def run(self) -> None:
        """Own what follows, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    @contextmanager
    def following(self, partition: int) -> Generator[Followed]:
        """Follow it, at least until the end of the block."""
        assert self._group is not None  # noqa: S101 - `run` runs as long as there are requests
        followed = self._followed.get(partition)
        if followed is None:
            followed = self._followed[partition] = Followed(self, TopicPartition(self._topic, partition))
            followed.task = self._group.create_task(followed.run(), name=f"live-{partition}")
        followed.lookers += 1
        try:
            yield followed
        finally:
            followed.lookers -= 1
            if not followed.lookers:
                asyncio.get_running_loop().call_later(LINGER_S, self._leave, followed)

    def tell_bug(self, error: Exception) -> None:
        """Following failed in a way that we did not foresee; it is tried again."""
        self.observer.http_failed(
            told_process.HttpFailed(method="GET", route="(live)", status=500, code=BUG, message=place_of(error))
        )

    async def log(self) -> Log:
        """The log that all followed partitions are read from: opened when the first one is, kept until the end."""
        assert self._group is not None  # noqa: S101 - as above
        if self._log is None or (self._log.done() and self._log.exception() is not None):
            self._log = asyncio.get_running_loop().create_future()
            self._group.create_task(self._hold(self._log), name="live-log")
        return await asyncio.shield(self._log)

    async def _hold(self, ready: asyncio.Future[Log]) -> None:
        """Opened and closed by one task."""
        try:
            async with opened(self.settings) as log:
                ready.set_result(log)
                await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, the service itself must not hear of it
            if ready.done():
                self.tell_bug(error)
            else:
                ready.set_exception(error)
        finally:
            if not ready.done():
                ready.cancel()

    def _leave(self, followed: Followed) -> None:
        partition = followed.at.partition
        if not followed.lookers and self._followed.get(partition) is followed:
            del self._followed[partition]
            if followed.task is not None:
                followed.task.cancel()
            self.stream.reset()


class Followed:
    """One partition. Everything is asked of it on the loop; what it answers with are values."""

    def __init__(self, live: LiveRuns, at: TopicPartition) -> None:
        self.at = at
        self.lookers = 0
        self.task: asyncio.Task[None] | None = None
        self._live = live
        self._reading: Reading | None = None
        self._tallies = Tallies()
        self.caught_up = asyncio.Event()
        self._since_pack = 0
        self._awaited: list[_Awaited] = []
        self._denied: dict[int, Took] = {}  # by offset, the newest starts that joined another run or were refused
        self._ends: dict[str, list[asyncio.Future[RunDetail]]] = {}

    async def run(self) -> None:
        """Follow until cancelled; what cannot be read now is read again from its checkpoint."""
        back_off = BackOff(_BACK_OFF_S)
        while True:
            try:
                await self._follow(back_off)
            except HeadraceError:
                pass  # the log is away, or was trimmed under our eyes
            except Exception as error:  # noqa: BLE001 - a bug of ours, and the service itself must not hear of it
                self._live.tell_bug(error)
            if self.caught_up.is_set():
                self._live.stream.reset()
            self._reading = None
            await back_off.wait()

    async def _follow(self, back_off: BackOff) -> None:
        self._tallies = Tallies()
        self._denied.clear()
        self.caught_up.clear()
        log = await self._live.log()
        reading = Reading(self.at, self._live.settings, partitions=self._live.count, begin=self._begun)
        self._reading = reading
        async with aclosing(reading.following(log)) as records:
            async for seen in records:
                back_off.reset()
                if seen is None:
                    self.caught_up.set()
                    reading.state.runs.pack_all()
                else:
                    self._see(seen)
                    self._pack_now_and_then(reading.state)

    def took(self, offset: int, run: str) -> asyncio.Future[Took]:
        """What the start at this offset came to: set once it is folded here. Cancel it when nobody waits any more."""
        awaited = _Awaited(offset, run, asyncio.get_running_loop().create_future())
        state = None if self._reading is None else self._reading.state
        if state is not None and state.next_offset > offset:  # read before its writer heard that it is there
            awaited.took.set_result(self._denied.get(offset) or Took(run=self._open(state, run)))
        else:
            self._awaited = [each for each in self._awaited if not each.took.done()]
            self._awaited.append(awaited)
        return awaited.took

    def end_of(self, run: str) -> asyncio.Future[RunDetail]:
        """Set when the run's end is seen. Cancel it when nobody waits any more."""
        future: asyncio.Future[RunDetail] = asyncio.get_running_loop().create_future()
        self._ends.setdefault(run, []).append(future)
        return future

    def forget_end_of(self, run: str, future: asyncio.Future[RunDetail]) -> None:
        """Nobody waits for it any more."""
        waiting = self._ends.get(run, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._ends.pop(run, None)

    # --- records ---------------------------------------------------------------------------------------------------

    def _begun(self, state: PartitionState) -> None:
        self._tallies.begin(state)
        self._give_up_awaited(state)

    def _give_up_awaited(self, state: PartitionState) -> None:
        """Starts that lie in what was trimmed already: a checkpoint tells what is left of them."""
        for awaited in [each for each in self._awaited if each.offset < state.next_offset]:
            self._awaited.remove(awaited)
            _set(awaited.took, Took(run=self._open(state, awaited.run)))

    def _see(self, seen: Seen) -> None:
        self._tallies.see(seen)
        for instruction in seen.folded.instructions:
            match instruction:
                case Begin(run=run):
                    self._tell(Change.STARTED, summary_of(run, self._tallies.of(run.id), None, None))
                case Queued(run=run):
                    self._tell(Change.QUEUED, summary_of(run, self._tallies.of(run.id), None, None))
                case Park(run=run):
                    self._tell(Change.PARKED, summary_of(run, self._tallies.of(run.id), None, None))
                case Unpark(run=run):
                    self._tell(Change.RESUMED, summary_of(run, self._tallies.of(run.id), None, None))
                case Close(run=run, ended=ended, at_ms=at_ms):
                    summary = summary_of(run, self._tallies.take(run.id), ended, at_ms)
                    summary = msgspec.structs.replace(summary, retriable=run.id in seen.state.failed)
                    self._tell(Change.FINISHED, summary)
                    for future in self._ends.pop(run.id, ()):
                        _set(future, detail_of(run, summary, ended, seen.state.approvals))
                case Joined(run=held):
                    self._deny(seen.offset, Took(joined=True, open_run=held.id))
                case Send(entry=Refusal(open_run=open_run)):
                    self._deny(seen.offset, Took(refused=True, open_run=open_run))
                case _:
                    pass
        for awaited in [each for each in self._awaited if each.offset == seen.offset]:
            self._awaited.remove(awaited)
            _set(awaited.took, self._denied.get(seen.offset) or Took(run=self._open(seen.state, awaited.run)))

    def _deny(self, offset: int, took: Took) -> None:
        self._denied[offset] = took
        if len(self._denied) > _DENIED_MAX:
            del self._denied[next(iter(self._denied))]

    def _open(self, state: PartitionState, run: str) -> RunSummary | None:
        found = state.runs.get(run)
        return None if found is None else summary_of(found, self._tallies.of(run), None, None)

    def _tell(self, change: Change, summary: RunSummary) -> None:
        if self.caught_up.is_set():
            self._live.stream.tell(change, summary)

    def _pack_now_and_then(self, state: PartitionState) -> None:
        self._since_pack += 1
        if self._since_pack >= _PACK_EVERY:
            self._since_pack = 0
            state.runs.pack_all()


def _set(future: asyncio.Future[object] | asyncio.Future[Took] | asyncio.Future[RunDetail], value: object) -> None:
    if not future.done():
        future.set_result(value)  # pyright: ignore[reportArgumentType] - each is set with its own kind
