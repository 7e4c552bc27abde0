"""What the parts of one running service share. Made once by `service.py`; every part keeps a reference and uses what it needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.observability import told_event, told_log
from headrace.observability.label import DiscardReason, RedriveResult, StopReason
from headrace.service.admission import Admission
from headrace.service.checkpoints import Checkpoints
from headrace.service.definitions.matcher import Matcher
from headrace.service.engine.limit import RunLimits
from headrace.service.letters.letters import Letters
from headrace.service.live_run import LiveRun
from headrace.service.log_clock import LogClock
from headrace.service.names import Names
from headrace.service.owner_position import OwnerPositions
from headrace.service.probes import Probes
from headrace.service.replay_epochs import ReplayEpochs
from headrace.service.start_reader import StartReader
from headrace.service.timers import Timers
from headrace.service.writer import Writer
from headrace.topics.command import Start
from headrace.topics.event_data import EventLimits
from headrace.topics.identity import Coordinates
from headrace.topics.log import Log, TopicPartition
from headrace.topics.redrive import redriven

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.observability.observer import Observer
    from headrace.observability.traces import Contexts
    from headrace.service.attempts import Attempts
    from headrace.service.definitions.app import App
    from headrace.service.engine.run_bytes import RunLook
    from headrace.service.engine.run_state import RunState
    from headrace.service.history.link import HistoryLink
    from headrace.service.outbox import Outbox
    from headrace.service.publisher import Publisher
    from headrace.service.settings import Settings
    from headrace.service.topic_plan import TopicPlan
    from headrace.topics.errors import HeadraceError
    from headrace.topics.log import LogRecord
    from headrace.topics.redrive import OfOtherApp, Redriven
    from headrace.topics.run_record import CommandRecord


class Writers:
    """The one writer of each run-log partition, each with a task of its own."""

    def __init__(self, make: Callable[[int], Writer], partitions: int) -> None:
        self._writers = [make(partition) for partition in range(partitions)]

    def runs(self, partition: int) -> Writer:
        """The writer of a run-log partition."""
        return self._writers[partition]

    def open(self, group: asyncio.TaskGroup) -> None:
        """Start them."""
        for writer in self._writers:
            group.create_task(writer.run())

    async def flushed(self) -> None:
        """Return when everything that was put is written, or has failed."""
        for writer in self._writers:
            await writer.flushed()

    def stop(self) -> None:
        """Let them return."""
        for writer in self._writers:
            writer.stop()


class Shared:
    """`attempts`, `outbox` and `publisher` are set while the service starts, before any owner runs."""

    attempts: Attempts
    outbox: Outbox
    publisher: Publisher

    def __init__(
        self,
        *,
        settings: Settings,
        app: App,
        log: Log,
        observer: Observer,
        contexts: Contexts,
        instance: str,
        partitions: int,
        listens_to_starts: bool,
        dead_letter_bytes: dict[str, int | None],
        topics: TopicPlan | None = None,
        mask: Callable[[str], str] = str,
        history: HistoryLink | None = None,
    ) -> None:
        self.settings = settings
        self.app = app
        self.log = log
        self.observer = observer
        self.contexts = contexts
        self.instance = instance
        self.partitions = partitions
        self.listens_to_starts = listens_to_starts
        self.names = Names(settings.app.name)
        self.clock = LogClock()
        self.timers = Timers(self.clock)
        self.admission = Admission(settings.worker.max_active_runs, settings.worker.max_queued_bytes)
        self.resting = 0  # entries of live runs that only wait, in all partitions: `idle_runs.py`
        self.probes = Probes()
        self.start_reader = StartReader(log)
        self.epochs = ReplayEpochs()
        self.matcher = Matcher(app.workflows)
        self.event_limits = EventLimits(
            payload_bytes_max=settings.limits.payload_bytes,
            headers_bytes_max=settings.limits.headers_bytes,
            nesting_max=settings.limits.nesting,
        )
        self._run_limits = RunLimits(
            steps=settings.limits.tasks_per_run,
            fan_out=settings.limits.fan_out,
            payload_bytes=settings.limits.payload_bytes,
        )
        self.letters = Letters(log, self.names)
        self.writers = Writers(self._writer, partitions)
        self.mask = mask  # hides secrets in what strangers' code says, before it is kept
        self.topics = topics  # what they must be like, if that is watched
        self.history = history  # None: there is none, and nothing waits for it
        self.checkpoints = Checkpoints()
        self.owner_positions = OwnerPositions(log, self.names.owners)
        self.stops: dict[TopicPartition, StopReason] = {}
        self.streams: Callable[[], int] = int  # live updates that are open: the API's
        self.replay_turn = asyncio.Lock()
        self.member = ""  # our name in the group, and all names, as of the newest placement
        self.members: frozenset[str] = frozenset()
        self._dead_letter_bytes = dead_letter_bytes

    def _writer(self, partition: int) -> Writer:
        return Writer(
            self.log,
            TopicPartition(self.names.runs, partition),
            batch_bytes=self.settings.log.group_commit_bytes,
            observer=self.observer,
            clock=self.clock,
        )

    def live_run(self, run: RunState) -> LiveRun | None:
        """The run with its code; None if that version is not loaded here."""
        start = run.start
        code = self.app.workflow(start.namespace, start.workflow, start.version)
        if code is None:
            return None
        return LiveRun(
            run,
            code,
            contexts=self.contexts,
            limits=self._run_limits,
            timeout_at_ms=self.timeout_at_ms(run),
            loaded=self.app.workflow,
        )

    def timeout_at_ms(self, run: RunState | RunLook) -> int | None:
        """When the run's time is over; None: never."""
        timeout_ms = run.start.timeout_ms
        if timeout_ms is None:
            timeout_ms = self.settings.defaults.run_timeout_ms
        return None if timeout_ms is None else run.began_at_ms + timeout_ms

    def dead_letter_bytes_max(self, source: str) -> int | None:
        """The most that the dead-letter topic of this source takes."""
        return self._dead_letter_bytes.get(source)

    def redriven(self, at: TopicPartition, record: LogRecord) -> Redriven | OfOtherApp | None:
        """What a source record is a copy of; None: of nothing."""
        return redriven(record, at.topic, app=self.names.app, refused=self.names.refused)

    def record_redriven(self, at: TopicPartition, offset: int, redriven: Redriven, result: RedriveResult) -> None:
        """This came of a redriven record."""
        self.observer.record_redriven(
            told_event.RecordRedriven(
                topic=at.topic,
                partition=at.partition,
                offset=offset,
                letter=redriven.of,
                count=redriven.count,
                result=result,
            )
        )

    def is_other_member(self, member: str, *, unknown: bool = False) -> bool:
        """Whether somebody else of that name is in the group. `unknown`: the answer where no group is known."""
        if not self.members:
            return unknown and member != self.member
        return member != self.member and member in self.members

    def duplicate_command(self, at: TopicPartition, command: CommandRecord) -> None:
        """A command that was accepted before came again."""
        identity, body = command.id, command.body
        if isinstance(body, Start) and body.redriven is not None and body.event is not None:
            place = TopicPartition(body.event.topic, body.event.partition)
            self.record_redriven(place, body.event.offset, body.redriven, RedriveResult.DUPLICATE)
        if isinstance(identity, Coordinates) and identity.origin != at.topic:
            self.observer.event_discarded(
                told_event.EventDiscarded(
                    topic=identity.origin,
                    partition=identity.partition,
                    offset=identity.offset,
                    reason=DiscardReason.DUPLICATE,
                )
            )

    def stopped(self, at: TopicPartition, reason: StopReason, error: HeadraceError, offset: int) -> None:
        """A partition stands still until somebody acts."""
        self.stops[at] = reason
        self.observer.partition_stopped(
            told_log.PartitionStopped(
                topic=at.topic,
                partition=at.partition,
                reason=reason,
                code=error.code,
                message=error.message,
                offset=offset,
            )
        )

    def dead_letter_refused(self, at: TopicPartition, error: HeadraceError) -> None:
        """A dead-letter topic takes nothing: what it is for cannot go on."""
        self.stopped(at, StopReason.REFUSED, error, -1)
