"""The one seam between the shell and everything that watches it.

The shell (router, owner, outbox, attempts, service) calls one hook per thing that happened, with one frozen struct.
Hooks are plain, quick and total: they may neither wait, nor raise on purpose, nor keep a reference to a payload
(there is none in the structs). Hooks are called on the event loop's thread. Replay calls nothing: what was told once,
by whoever lived it, is not told again.

What happens per record is told per batch (`events_consumed`, `appended`, ...); what happens per run or attempt is
told as it happens. What *is* (runs active, lag, open timers) is not told at all: it is read from state when somebody
asks, through `snapshot.Snapshot`.

`workflow` is the workflow's name, without its namespace; `task` of interfaces section 5 is the handler's name.
Durations are milliseconds (float), moments are milliseconds since the epoch (int). `None` means "there is none",
never "unknown zero".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from headrace.observability.label import (
    AbandonReason,
    BreakerResult,
    BreakerState,
    Dependency,
    DiscardReason,
    Ending,
    GroupEvent,
    LogKind,
    LossReason,
    MissReason,
    ProduceResult,
    RedriveResult,
    Resource,
    SkipReason,
    Stage,
    StopReason,
    TakeReason,
    TriggerKind,
)
from headrace.topics.approval import ApprovalEnding
from headrace.topics.errors import Cause
from headrace.topics.outcome import ParkReason, RunStatus

# --- events -----------------------------------------------------------------------------------------------------------


class EventsConsumed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A batch of one source partition, at least one record.

    Delay is record time to consumption; both lists have one entry per record.
    """

    topic: str
    partition: int
    sizes_bytes: Sequence[int]
    delays_ms: Sequence[float]


class EventsMatched(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`records` source records were decoded and held against the triggers, in `duration_ms` altogether.

    `contexts_refused` of them had a trace context that is not sound: it was left out.
    """

    topic: str
    records: int
    duration_ms: float
    contexts_refused: int = 0


class EventDiscarded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A source record made no command (again). `records` > 1 for a range that ends at `offset`."""

    topic: str
    partition: int
    offset: int
    reason: DiscardReason
    detail: str = ""  # which clause said no; for the log only
    records: int = 1


class EventDeadLettered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record left for a dead-letter topic and was acknowledged there.

    The coordinates are the source's; stage `emit` has the output's topic.
    """

    topic: str
    partition: int
    offset: int
    stage: Stage
    code: str  # HR number
    message: str = ""
    workflow: str = ""
    records: int = 1  # more for a batch that may not be unpacked


class RecordRedriven(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A redriven record was taken up, and what came of it is acknowledged. `letter` is `topic/partition/offset` of the dead letter."""

    topic: str
    partition: int
    offset: int
    letter: str
    count: int  # of the redrive
    result: RedriveResult


# --- runs and tasks ---------------------------------------------------------------------------------------------------


class RunStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run was admitted: its first instructions are being carried out. Told once in a run's life."""

    run: str
    workflow: str
    version: str
    trigger: TriggerKind
    started_at_ms: int
    key: str | None = None
    topic: str | None = None  # the source record, if there is one
    partition: int | None = None
    offset: int | None = None
    event_id: str | None = None
    parent: str | None = None  # the run whose child it is
    start_delay_ms: float | None = None  # source record time (else command time) to now
    traceparent: str | None = None  # of the run's anchor, see traces.py
    producer_traceparent: str | None = None
    tracestate: str | None = None


class RunFinished(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The terminal record was read back."""

    run: str
    workflow: str
    status: RunStatus
    started_at_ms: int
    duration_ms: float  # start command's append to terminal record's append
    key: str | None = None
    version: str = ""
    attempts: int = 0  # of all tasks
    retries: int = 0
    error: str = ""
    message: str = ""
    failed_step: str = ""
    traceparent: str | None = None
    tracestate: str | None = None


class RunParked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run was taken out of progress. `expected` is what the log says, `found` what the code did."""

    run: str
    workflow: str
    reason: ParkReason
    step: str = ""
    expected: str = ""
    found: str = ""
    traceparent: str | None = None


class RunHeld(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An open run waits: the version of its workflow is not loaded here."""

    run: str
    workflow: str
    version: str
    traceparent: str | None = None  # of the run's anchor


class RunResumed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A parked run goes on."""

    run: str
    workflow: str
    traceparent: str | None = None  # of the run's anchor


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A handler begins.

    Nobody counts these (see `AttemptEnded`); skip the call unless `FanOut.listens("attempt_started")`.
    """

    run: str
    workflow: str
    step: str
    handler: str
    number: int
    traceparent: str | None = None  # of the run's anchor


class AttemptEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt is over.

    `duration_ms` is handler time, without waiting in a pool; `start_delay_ms` is ready to started, waits for policies
    included.
    """

    run: str
    workflow: str
    step: str
    handler: str
    number: int
    ending: Ending
    started_at_ms: int
    duration_ms: float
    start_delay_ms: float = 0.0
    cause: Cause | None = None
    error: str = ""  # the exception's class
    message: str = ""
    code: str = ""
    retry_after_ms: int | None = None  # None: no further attempt
    compensation: bool = False
    traceparent: str | None = None  # of the run's anchor
    tracestate: str | None = None


class CompensationEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An undo is over for good (after its retries)."""

    run: str
    workflow: str
    step: str
    handler: str
    ending: Ending
    traceparent: str | None = None


class HandlerAbandoned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A handler did not end when it had to; the owner no longer waits for it. `waited_ms` is how long it was given."""

    run: str
    workflow: str
    step: str
    handler: str
    number: int
    reason: AbandonReason
    waited_ms: float
    traceparent: str | None = None  # of the run's anchor


class TimerArmed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run sleeps until `due_at_ms`."""

    run: str
    workflow: str
    step: str
    due_at_ms: int
    traceparent: str | None = None  # of the run's anchor


class ScheduleFired(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The start of a slot was read back. `late_ms` is from the slot to the start's append."""

    schedule: str
    workflow: str
    run: str
    slot_ms: int
    late_ms: float


class ScheduleMissed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`slots` of a schedule, the last of them at `until_ms`, start nothing."""

    schedule: str
    workflow: str
    slots: int
    until_ms: int
    reason: MissReason
    code: str = ""  # HR number, where a limit left them out
    message: str = ""


class SchedulePaused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Somebody paused a schedule."""

    schedule: str
    workflow: str


class ScheduleResumed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A paused schedule goes on, with its next slot."""

    schedule: str
    workflow: str


class TimerFired(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sleep is over. `late_ms` is due time to the append time of the outcome that was read back."""

    run: str
    workflow: str
    step: str
    armed_at_ms: int
    due_at_ms: int
    late_ms: float
    traceparent: str | None = None
    tracestate: str | None = None


class ApprovalRequested(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run waits for somebody with one of these roles (none: anybody). `due_at_ms` None: for ever."""

    run: str
    workflow: str
    step: str
    approval: str  # its id
    roles: tuple[str, ...]
    due_at_ms: int | None
    traceparent: str | None = None  # of the run's anchor


class ApprovalDecided(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An approval is over: somebody has decided, it has expired, or the run does not want it any more. `by` is empty unless somebody has decided."""

    run: str
    workflow: str
    step: str
    approval: str  # its id
    ending: ApprovalEnding
    by: str
    requested_at_ms: int
    decided_at_ms: int
    traceparent: str | None = None
    tracestate: str | None = None


# --- the way out ------------------------------------------------------------------------------------------------------


class OutputSent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run's emitted event was acknowledged.

    `result_delay_ms`: source record time to now; None if the run has no source record.
    """

    run: str
    workflow: str
    topic: str
    partition: int
    offset: int
    result_delay_ms: float | None = None
    traceparent: str | None = None  # of the run's anchor, as the record carries it


class OutputResent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Outbox entries are sent again, after a failure or a take-over: their copies may exist already."""

    topic: str
    records: int = 1


class OutputRefused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A topic will never take this entry."""

    run: str
    workflow: str
    topic: str
    code: str
    message: str = ""
    traceparent: str | None = None  # of the run's anchor


# --- the log and who owns it ------------------------------------------------------------------------------------------


class PartitionTaken(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The announce was read back and state is folded: user code may run. `duration_ms` is from the decision to now."""

    partition: int
    token: int
    reason: TakeReason
    records: int  # replayed
    duration_ms: float
    runs: int = 0  # open runs found
    probing: bool = False  # several owners have died lately: runs are woken on trial


class PartitionReleased(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Given away in good order."""

    partition: int
    token: int
    reason: LossReason
    attempts: int = 0  # still running here, within the grace


class PartitionLost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Taken away, or given up after a failure."""

    partition: int
    token: int
    reason: LossReason
    newer_token: int | None = None
    offset: int | None = None  # that was known of a log which now ends before it


class PartitionStopped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A partition of the run log or of a source stands still until somebody acts. An alarm."""

    topic: str
    partition: int
    reason: StopReason
    code: str
    message: str
    offset: int | None = None


class OutcomeSkipped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The accept rule skipped records. Told while reading live, not while replaying."""

    partition: int
    offset: int
    token: int
    reason: SkipReason
    records: int = 1


class Appended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One batch of the run log was acknowledged. `duration_ms` is from the call to the acknowledgement."""

    partition: int
    records: int
    duration_ms: float


class ReadBack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Own records came back. `duration_ms` is from the append call of the batch to its reading, once per batch."""

    partition: int
    records: int
    duration_ms: float


class Produced(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One batch to any topic ended (also those of the run log)."""

    topic: str
    records: int
    duration_ms: float
    result: ProduceResult


class CheckpointWritten(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole checkpoint was read back as accepted."""

    partition: int
    as_of: int
    size_bytes: int
    duration_ms: float
    chunks: int = 1


class CheckpointFailed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A checkpoint was given up: a bug of ours, or a start that cannot be read. Work goes on, and the log grows until one succeeds."""

    partition: int
    code: str
    message: str


class HttpAnswered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The API has answered a request. `route` is a template of its table, never a path; `code` the HTTP status."""

    method: str
    route: str
    code: int
    duration_ms: float


class HttpFailed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request that could not be answered, by no fault of its sender: a status from 500 on."""

    method: str
    route: str
    status: int
    code: str
    message: str


class TrimFailed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The log could not be trimmed up to `offset`: it grows until the next checkpoint tries again."""

    topic: str
    partition: int
    offset: int
    code: str
    message: str


class HistoryGap(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The history lacks records of a partition, from `offset` on, for good: the log was trimmed before they were read, or has lost them since."""

    partition: int
    offset: int
    records: int
    reason: str  # trimmed, truncated


class HistoryRefused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The history is not fed until somebody acts: `place` is a partition of the run log, or the database. Runs go on."""

    place: str
    code: str
    message: str
    do: str = ""


class TopicChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A topic of Headrace is not what it must be any more: somebody changed it while the service works. An alarm; the message names it."""

    code: str
    message: str


class LogFolded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An owner read and folded a batch of its partition, live: bytes of the records' values, by what they are."""

    partition: int
    sizes_bytes: dict[LogKind, int]


class Rebalanced(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The group placed partitions anew."""

    group: str
    event: GroupEvent
    partitions: int
    duration_ms: float | None = None


# --- policies and the process -----------------------------------------------------------------------------------------


class BreakerChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A breaker changed its state."""

    breaker: str
    before: BreakerState
    after: BreakerState
    reason: str = ""  # for people: "failure rate 62 % of 50 calls"


class BreakerCalled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A breaker recorded a call, or held or rejected a task. `calls` > 1 tells several at once."""

    breaker: str
    result: BreakerResult
    calls: int = 1


class RateLimitPassed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An attempt got its token. `wait_ms` is ready to now, waits for breaker and pool included; 0: it was not held."""

    limiter: str
    wait_ms: float


class LoopDelayed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The event loop took `delay_ms` to come round to a callback that was ready. Measured a few times a second."""

    delay_ms: float


class LoopBlocked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The event loop did not turn for `blocked_ms` (so far).

    The one hook that is called from another thread: the watchdog's.
    """

    blocked_ms: float
    handler: str = ""  # "" if no handler is on the loop's stack
    where: str = ""  # file:line in function
    stack: tuple[str, ...] = ()  # the same for each frame from the handler inwards


class LoopFenced(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The loop stood still for so long that the group may have placed our partitions elsewhere: nothing is begun in them until they are announced anew."""

    stalled_ms: float
    partitions: int


class ResourceMeasured(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How much of a limit of this process is used. `short`: so much that people should know; `changed`: since the last time."""

    resource: Resource
    used: int
    limit: int
    short: bool
    changed: bool


class OutageBegan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something outside does not answer. Told once per outage."""

    dependency: Dependency
    name: str = ""  # a topic's name, an address without credentials
    message: str = ""
    retry_after_ms: float | None = None


class OutageEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """It answers again."""

    dependency: Dependency
    name: str = ""
    duration_ms: float


class ServiceStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The instance works: settings read, topics checked, ports open."""

    app: str
    instance: str
    version: str
    backend: str
    workflows: int
    handlers: int


class ServiceStopping(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The stop began."""

    reason: str  # a signal's name, or what failed
    grace_ms: float


class ServiceStopped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything is flushed."""

    duration_ms: float
    attempts_left: int = 0  # abandoned at the end of the grace


class Observer(Protocol):
    """Watches, never takes part. One that raises is reported once and switched off (see `fan_out.py`).

    Implementations subclass `Silent` and override what they need: the fan-out then calls nobody in vain.
    """

    def events_consumed(self, consumed: EventsConsumed, /) -> None: ...
    def events_matched(self, matched: EventsMatched, /) -> None: ...
    def event_discarded(self, discarded: EventDiscarded, /) -> None: ...
    def event_dead_lettered(self, lettered: EventDeadLettered, /) -> None: ...
    def record_redriven(self, redriven: RecordRedriven, /) -> None: ...

    def run_started(self, started: RunStarted, /) -> None: ...
    def run_finished(self, finished: RunFinished, /) -> None: ...
    def run_parked(self, parked: RunParked, /) -> None: ...
    def run_held(self, held: RunHeld, /) -> None: ...
    def run_resumed(self, resumed: RunResumed, /) -> None: ...
    def attempt_started(self, started: AttemptStarted, /) -> None: ...
    def attempt_ended(self, ended: AttemptEnded, /) -> None: ...
    def compensation_ended(self, ended: CompensationEnded, /) -> None: ...
    def handler_abandoned(self, abandoned: HandlerAbandoned, /) -> None: ...
    def timer_armed(self, armed: TimerArmed, /) -> None: ...
    def timer_fired(self, fired: TimerFired, /) -> None: ...
    def approval_requested(self, requested: ApprovalRequested, /) -> None: ...
    def approval_decided(self, decided: ApprovalDecided, /) -> None: ...
    def schedule_fired(self, fired: ScheduleFired, /) -> None: ...
    def schedule_missed(self, missed: ScheduleMissed, /) -> None: ...
    def schedule_paused(self, paused: SchedulePaused, /) -> None: ...
    def schedule_resumed(self, resumed: ScheduleResumed, /) -> None: ...

    def output_sent(self, sent: OutputSent, /) -> None: ...
    def output_resent(self, resent: OutputResent, /) -> None: ...
    def output_refused(self, refused: OutputRefused, /) -> None: ...

    def partition_taken(self, taken: PartitionTaken, /) -> None: ...
    def partition_released(self, released: PartitionReleased, /) -> None: ...
    def partition_lost(self, lost: PartitionLost, /) -> None: ...
    def partition_stopped(self, stopped: PartitionStopped, /) -> None: ...
    def outcome_skipped(self, skipped: OutcomeSkipped, /) -> None: ...
    def appended(self, appended: Appended, /) -> None: ...
    def read_back(self, read_back: ReadBack, /) -> None: ...
    def produced(self, produced: Produced, /) -> None: ...
    def checkpoint_written(self, written: CheckpointWritten, /) -> None: ...
    def checkpoint_failed(self, failed: CheckpointFailed, /) -> None: ...
    def http_answered(self, answered: HttpAnswered, /) -> None: ...
    def http_failed(self, failed: HttpFailed, /) -> None: ...
    def trim_failed(self, failed: TrimFailed, /) -> None: ...
    def log_folded(self, folded: LogFolded, /) -> None: ...
    def topic_changed(self, changed: TopicChanged, /) -> None: ...
    def history_gap(self, gap: HistoryGap, /) -> None: ...
    def history_refused(self, refused: HistoryRefused, /) -> None: ...
    def rebalanced(self, rebalanced: Rebalanced, /) -> None: ...

    def breaker_changed(self, changed: BreakerChanged, /) -> None: ...
    def breaker_called(self, called: BreakerCalled, /) -> None: ...
    def rate_limit_passed(self, passed: RateLimitPassed, /) -> None: ...
    def loop_delayed(self, delayed: LoopDelayed, /) -> None: ...
    def loop_blocked(self, blocked: LoopBlocked, /) -> None: ...
    def loop_fenced(self, fenced: LoopFenced, /) -> None: ...
    def resource_measured(self, measured: ResourceMeasured, /) -> None: ...
    def outage_began(self, began: OutageBegan, /) -> None: ...
    def outage_ended(self, ended: OutageEnded, /) -> None: ...
    def service_started(self, started: ServiceStarted, /) -> None: ...
    def service_stopping(self, stopping: ServiceStopping, /) -> None: ...
    def service_stopped(self, stopped: ServiceStopped, /) -> None: ...


HOOKS: tuple[str, ...] = tuple(name for name in vars(Observer) if not name.startswith("_"))
"""The names of all hooks, in the order above."""
