"""The judge: what the log says, by an accept rule of its own, against what was promised. It sees each record when it lands and shares no code with the fold.

The numbers are those of the invariants: I1 each input ends in exactly one way; I2 results once by id; I3 one ending; I4 one key per task; I5 no attempt after
its result; I6 order and exclusion per key; I7 timers; I8 decisions; I9 retries and compensation; I11 stale records count for nothing; I12 positions;
I16 children (`family.py`).

What a log has lost (its leader was not clean) was never there: all is judged anew without it. Only inputs and runs that such records were about may end in
another way than expected, or in none.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.topics.command import (
    Approve,
    Cancel,
    ChildEnded,
    Deliver,
    Dismiss,
    Epoch,
    OnConflict,
    PauseSchedule,
    Resume,
    ResumeSchedule,
    Retry,
    Start,
)
from headrace.topics.dead_letter import PREFIX
from headrace.topics.errors import Cause
from headrace.topics.identity import ClientId, Coordinates, Identity, SlotId, run_id
from headrace.topics.log import LogRecord, Position, TopicPartition
from headrace.topics.outcome import (
    ApprovalRequested,
    AttemptFailed,
    AttemptsGiven,
    AttemptSucceeded,
    CheckpointChunk,
    ChildStarted,
    Emitted,
    OutboxProgress,
    Outcome,
    OutputRefused,
    ParkReason,
    RunEnded,
    RunParked,
    RunStatus,
    ScheduleSeen,
    ScheduleUnnamed,
    SlotsMissed,
    StepsCancelled,
    TimerFired,
)
from headrace.topics.partition_hash import partition_of
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release, decode
from headrace.topics.schedule import Slot
from tests.simulation.app import SOURCE, WORKFLOWS
from tests.simulation.chain import UNDO, Finished, check_keys, given
from tests.simulation.family import Family
from tests.simulation.program import ATTEMPTS_MAX, Answer, Program, expected, needs
from tests.simulation.ticks import Ticks

RUNS, LETTERS, AUDIT, POSITIONS = "sim.runs", f"{SOURCE}.dlq", "sim.audit", "sim.router"
_TRIED_TOO_OFTEN = "HR3203"
_RETRIABLE = {RunStatus.FAILED, RunStatus.COMPENSATED, RunStatus.TIMED_OUT}
RETRY_EARLY_MS = 1_000  # by how much clocks that have not seen an append time yet may misjudge the log's


class Input:
    """A source record and what is known of it. `kind`: a key of `WORKFLOWS`, or `unmatched`, `broken` or `deadly`."""

    def __init__(self, kind: str, program: Program | None) -> None:
        self.kind = kind
        self.program = program
        self.wanted = {workflow.name for workflow in WORKFLOWS.get(kind, ())}
        self.recorded: set[str] = set()  # workflows with a start in the log; "letter"; "unmatched"
        self.refused: set[str] = set()
        self.letters: set[str] = set()  # codes
        self.group: str | None = None  # copies of one redriven dead letter, which come to as much as one of them
        self.outdated = False  # its epoch is over, or never was one for it: something may come of it, or nothing

    @property
    def done(self) -> bool:
        """Something of it is in a log for all that it asks for."""
        if self.outdated:
            return True
        match self.kind:
            case "unmatched":
                return "unmatched" in self.recorded
            case "broken" | "deadly":
                return bool(self.letters)
            case _:
                return self.wanted <= self.recorded


Source = tuple[int, int, int]
"""A source record in one reading of its topic: replay epoch, partition, offset."""


class Asked(NamedTuple):
    """What a run asks: the number in its program, the role that is wanted, and until when. `lost`: nobody decides it."""

    n: int
    role: str
    due_at_ms: int | None
    lost: bool


class Run:
    """A run as the log tells it. `source` is what began it; retries have that of the first one."""

    def __init__(self, id_: str, at: TopicPartition, start: Start) -> None:
        self.id = id_
        self.at = at
        self.start = start
        self.source: Source | None = None
        self.open_since: int | None = None  # offset of the record that opened it
        self.ended: RunEnded | None = None
        self.parked: RunParked | None = None
        self.cancelled = False
        self.settled: dict[str, int] = {}  # step: offset
        self.succeeded: list[AttemptSucceeded] = []
        self.failed: dict[str, list[tuple[AttemptFailed, int]]] = defaultdict(list)
        self.emitted: dict[str, tuple[int, bool]] = {}  # step: number, is it refused
        self.refused: set[str] = set()  # steps whose event was refused while the run was open
        self.fired: list[tuple[TimerFired, int]] = []
        self.asked: dict[str, Asked] = {}
        self.answers: dict[str, tuple[str, str]] = {}  # by step: the decision that counts, and who made it
        self.finished: list[Finished] = []
        self.undone: set[str] = set()
        self.of: Run | None = None  # the one that this is a retry of
        self.retry: Run | None = None  # its newest one
        self.copied: dict[str, str] = {}
        self.children: dict[str, str] = {}  # runs that its open steps await
        self.redone: frozenset[str] = frozenset()
        self.forgotten = False  # it cannot be retried any more

    def chain(self) -> "list[Run]":
        """This run, the one it is a retry of, and so on."""
        return [self] if self.of is None else [self, *self.of.chain()]

    def answer(self, step: str, offset: int, decision: str, by: str) -> None:
        """What it asks at the step is over."""
        self.settled[step] = offset
        self.answers[step] = (decision, by)
        self.finished.append(Finished(step, "failed" if decision == "expired" else "decided", self.id))

    @property
    def slot(self) -> tuple[str, str]:
        return (self.start.workflow, self.start.key or "")


class _Partition:
    def __init__(self) -> None:
        self.last = self.token = self.seq = -1
        self.nonce = ""
        self.counts: dict[int, bool] = {}  # offset: does it count
        self.gates: dict[int, tuple[int, int, int]] = {}  # offset: newest token, open one, seq
        self.marks: dict[tuple[str, int], tuple[int, int]] = {}  # origin: epoch, floor
        self.identities: set[Any] = set()
        self.redrives: set[tuple[int, str, int, str]] = set()  # epoch, letter, count, n
        self.epoch = 0  # of the source topic
        self.slots: dict[tuple[str, str], tuple[str, deque[str]]] = {}
        self.stale = 0
        self.clock_ms = 0


class Judge:
    """`violated` is called with a sentence for each broken promise."""

    def __init__(self, partitions: int, violated: Callable[[str], None], *, back_ms: int) -> None:
        self.runs: dict[str, Run] = {}
        self.inputs: dict[Source, Input] = {}
        self.epoch = 0  # the newest of the source topic
        self.results: dict[str, list[LogRecord]] = defaultdict(list)
        self.outbox: dict[str, str] = {}  # entries that have not left: what each is
        self.joined: dict[Source, str] = {}
        self.family = Family(partitions, self.outbox, self._say)
        self.stale = 0
        self.records = 0
        self.delivered = 0
        self.reached: dict[tuple[int, int], int] = defaultdict(
            int
        )  # by epoch and source partition: the furthest position
        self.announced: dict[tuple[int, int], str] = {}
        self._count = partitions
        self.mended: set[str] = set()  # runs whose program fails no more
        self.refusals: dict[str, int] = defaultdict(int)  # dead letters of results, by id
        self._emitted: set[str] = set()
        self._newest_start: dict[tuple[int, int, int], int] = {}  # by epoch, source and run-log partition: offset
        self._given: dict[tuple[str, str], tuple[int, int, str]] = {}  # released attempts: number, until, giver
        self._needs: dict[Source, dict[int, frozenset[int]]] = {}
        self._early_ms = RETRY_EARLY_MS + 2 * back_ms
        self._violated = violated
        self.ticks = Ticks(violated)
        self._partitions = [_Partition() for _ in range(partitions)]
        self._recorded_to: dict[tuple[int, int], int] = defaultdict(int)  # all inputs below are recorded
        self._forwarded: dict[tuple[int, int], Source | None] = {}  # partition and offset of the first record
        self._forwards: dict[tuple[int, int], str] = {}  # partition and offset of the first record: outbox entry
        self._told: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # everything, in order
        self._lost_to: dict[int, int] = {}  # where a partition of the run log ended before it lost its tail
        self._lost: set[int] = set()  # such records, by `id`
        self.harmed: set[str] = set()  # runs that they were about
        self._harmed_inputs: set[Source] = set()
        self._since: dict[int, dict[int, str]] = {}  # tokens that were taken since, and the nonce of each

    def _say(self, violation: str) -> None:
        self._violated(violation)

    def counts(self, partition: int, offset: int) -> bool | None:
        """Whether this record of the run log has an effect; None if it is not known to the judge."""
        return self._partitions[partition].counts.get(offset)

    def gate(self, partition: int, offset: int) -> tuple[int, int, int] | None:
        """Newest token, open token (-1: none) and last seq behind this record."""
        return self._partitions[partition].gates.get(offset)

    def program_of(self, run: Run) -> Program | None:
        """What the run was asked for."""
        return self.family.program_of(run.chain()[-1].id) if run.source is None else self.inputs[run.source].program

    # --- what is lost -------------------------------------------------------------------------------------------------

    def lost(self, at: TopicPartition, records: Sequence[LogRecord]) -> None:
        """A partition of the run log has lost its last records: look at everything again without them."""
        ends = records[-1].offset + 1
        for record in records:
            self._lost.add(id(record))
            if self.counts(at.partition, record.offset) or _is_copy(record):
                self._harm(at, record)
        told, violated = self._told, self._violated
        again = Judge(self._count, lambda _: None, back_ms=0)
        again._lost, again.harmed, again._harmed_inputs = self._lost, self.harmed, self._harmed_inputs
        again._forwarded, again.mended = dict(self._forwarded), self.mended
        again._lost_to = {**self._lost_to, at.partition: max(ends, self._lost_to.get(at.partition, 0))}
        for call, arguments in told:
            call(again, *arguments)
        again._violated, again._early_ms = violated, self._early_ms
        again.ticks.violated = violated
        again._emitted |= self._emitted
        again.stale, again.records, again.delivered = self.stale, self.records, self.delivered
        again._since = {**self._since, at.partition: {}}
        self.__dict__.update(again.__dict__)

    def _harm(self, at: TopicPartition, record: LogRecord) -> None:
        """What this record was about, or opened, may be lost, or done twice."""
        self.harmed |= {run.id for run in self.runs.values() if run.at == at and run.open_since == record.offset}
        entry = decode(record.value)
        if isinstance(entry, OutcomeRecord):
            self.harmed.add(getattr(entry.body, "run", getattr(entry.body, "entry", "").partition("/")[0]))
        elif isinstance(entry, CommandRecord):
            body, identity = entry.body, entry.id
            result = body.result if isinstance(body, Deliver) else body
            self.harmed |= {getattr(result, "run", ""), run_id(at.partition, identity)}  # or what it would begin
            source = self._source(identity, body) if isinstance(body, Start) else None
            if source is not None:
                self._harmed_inputs.add(source)

    def is_stale(self, at: TopicPartition, record: LogRecord) -> bool:
        """Whether this is a piece of a checkpoint that begins with what is lost, of an owner who does not know it yet."""
        since = self._since.get(at.partition)
        if since is None:
            return False
        entry = decode(record.value)
        return isinstance(entry, OutcomeRecord) and isinstance(entry.body, CheckpointChunk) and entry.token not in since

    def has_lost(self, partition: int) -> bool:
        """Whether this partition of the run log has ever lost its tail."""
        return partition in self._since

    def sees(self, partition: int, token: int, nonce: str) -> bool:
        """Whether an owner with this token has read the log as it is now, or may have. (The offset may be that of a token before.)"""
        since = self._since.get(partition)
        return since is None or since.get(token) == nonce

    # --- what lands ---------------------------------------------------------------------------------------------------

    def comes(self, partition: int, offset: int, kind: str, program: Program, group: str | None = None) -> None:
        """A source record is about to land. Routers that have not heard of the newest epoch may make something of it in an older one."""
        self._told.append((Judge.comes, (partition, offset, kind, program, group)))
        for epoch in range(self.epoch + 1):
            self._comes((epoch, partition, offset), kind, program, group, outdated=epoch < self.epoch)

    def _comes(self, source: Source, kind: str, program: Program | None, group: str | None, *, outdated: bool) -> None:
        found = self.inputs[source] = Input(kind, program)
        found.group = group
        found.outdated = outdated or source in self._harmed_inputs

    def begins_epoch(self, offsets: Sequence[int]) -> None:
        """Somebody is about to say that the source topic is read anew from these offsets on."""
        self._told.append((Judge.begins_epoch, (offsets,)))
        before, self.epoch = self.epoch, self.epoch + 1
        for (epoch, partition, offset), found in list(self.inputs.items()):
            found.outdated = True
            if epoch == before:
                below = offset < offsets[partition]
                self._comes((self.epoch, partition, offset), found.kind, found.program, found.group, outdated=below)

    def open_runs(self, partition: int) -> set[str]:
        """Started and not ended, queued ones included."""
        return {run.id for run in self.runs.values() if run.at.partition == partition and run.ended is None}

    def appended(self, at: TopicPartition, records: Sequence[LogRecord]) -> None:
        """Records have landed."""
        self._told.append((Judge.appended, (at, records)))
        if self._lost:
            records = [each for each in records if id(each) not in self._lost]
        self.records += len(records)
        match at.topic:
            case "sim.runs":
                for record in records:
                    self._run_record(at, record)
            case "out":
                for record in records:
                    self._result(dict(record.headers)["ce_id"].decode(), record)
            case "in.dlq":
                for record in records:
                    self._letter(record)
            case "sim.dlq":
                for record in records:
                    self.refusals[dict(record.headers)["ce_id"].decode()] += 1
            case "sim.audit":
                for record in records:
                    self._listed(msgspec.json.decode(record.value or b""))
            case _:
                pass

    def _result(self, ce_id: str, record: LogRecord) -> None:
        if ce_id not in self._emitted:
            self._violated(f"P4 the result {ce_id} has left, and the log has not said that it was emitted")
        self.results[ce_id].append(record)

    def _letter(self, record: LogRecord) -> None:
        facts = {name.removeprefix(PREFIX): value.decode() for name, value in record.headers if name.startswith(PREFIX)}
        where = (
            self.epoch,
            int(facts["partition"]),
            int(facts["offset"]),
        )  # a letter does not say of which epoch it is
        found = self.inputs.get(where)
        if found is None:
            self._violated(f"I1 a dead letter of {where}, which is no input: {facts}")
            return
        found.letters.add(facts["code"])
        if facts["stage"] == "start":
            found.refused.add(facts["workflow"])

    def _listed(self, entry: dict[str, Any]) -> None:
        for offset in range(entry["first"], entry["last"] + 1):
            found = self.inputs.get((entry.get("epoch", 0), entry["partition"], offset))
            if found is not None:
                found.recorded.add("unmatched")

    def committed(self, group: str, at: TopicPartition, position: Position) -> None:
        """I12: a position never passes an input of which nothing is in a log."""
        if group != POSITIONS:
            return
        self._told.append((Judge.committed, (group, at, position)))
        epoch = msgspec.json.decode(position.metadata).get("epoch", 0)
        p = (epoch, at.partition)
        self.reached[p] = max(self.reached[p], position.offset)
        upto = self._recorded_to[p]
        while upto < position.offset:
            found = self.inputs.get((*p, upto))
            if found is not None and not found.done:
                self._violated(
                    f"I12 {at} is committed at {position.offset} of epoch {epoch}, and of {upto} ({found.kind}) only {found.recorded} is recorded"
                )
                return
            upto += 1
        self._recorded_to[p] = max(self._recorded_to[p], upto)

    # --- the run log --------------------------------------------------------------------------------------------------

    def _run_record(self, at: TopicPartition, record: LogRecord) -> None:
        part = self._partitions[at.partition]
        part.clock_ms = max(part.clock_ms, record.timestamp_ms)
        entry = decode(record.value)
        match entry:
            case Announce():
                counts = entry.previous_token == part.last
                if counts:
                    part.last = part.token = record.offset
                    part.nonce, part.seq = entry.nonce, -1
                    self.announced[at.partition, record.offset] = entry.instance
                    if at.partition in self._since:
                        self._since[at.partition][record.offset] = entry.nonce
            case OutcomeRecord() | Release():
                counts = part.token != -1 and entry.token == part.token and entry.seq == part.seq + 1
                if counts:
                    part.seq += 1
                    if isinstance(entry, Release):
                        giver = self.announced[at.partition, part.token]
                        for each in entry.attempts:
                            until_ms = record.timestamp_ms + entry.grace_ms
                            self._given[each.run, each.step] = (each.number, until_ms, giver)
                        part.token = -1
                    else:
                        self._outcome(at, record, entry.body)
                else:
                    self.stale += 1
            case CommandRecord():
                counts = self._new(part, entry.id, at, record.offset) and self._first_copy(part, entry)
                if counts:
                    self._command(at, record, entry)
            case _:
                counts = True  # a kind that says nothing about runs
        part.counts[record.offset] = counts
        part.gates[record.offset] = (part.last, part.token, part.seq)

    def _new(self, part: _Partition, identity: Identity, at: TopicPartition, offset: int) -> bool:
        """Whether the command was never seen. What is new below a floor was promised to be there already."""
        if isinstance(identity, ClientId):
            new = identity.id not in part.identities
            part.identities.add(identity.id)
            return new
        if isinstance(identity, SlotId):
            return True  # its schedule knows
        name = (identity.epoch, identity.origin, identity.partition, identity.offset, identity.n)
        new = name not in part.identities
        part.identities.add(name)
        origin = (identity.origin, identity.partition)
        if identity.origin == SOURCE and identity.epoch < part.epoch:
            return False
        epoch, floor = part.marks.get(origin, (identity.epoch, 0))
        if identity.epoch < epoch:
            return False
        if identity.epoch > epoch:
            floor = 0
        if new and identity.offset < floor:
            if self._may_be_lost(identity):
                return False
            self._violated(f"I1 {at}/{offset}: {name} is new and lies below the floor {floor}: it would be lost")
        part.marks[origin] = (identity.epoch, max(floor, identity.floor))
        return new

    def _first_copy(self, part: _Partition, entry: CommandRecord) -> bool:
        """Whether no copy of the same redriven letter has come to this start before. (The way to the place of its key is not another copy.)"""
        identity, start = entry.id, entry.body
        if not isinstance(start, Start) or start.redriven is None or not isinstance(identity, Coordinates):
            return True
        if identity.origin != SOURCE:
            return True
        copies = (identity.epoch, start.redriven.of, start.redriven.count, identity.n)
        first = copies not in part.redrives
        part.redrives.add(copies)
        source = self._source(identity, start)
        if not first and source in self.inputs:
            self.inputs[source].recorded.add(start.workflow)
        return first

    def _may_be_lost(self, identity: Coordinates) -> bool:
        """Whether a record was lost that had what this one says, or had its offset."""
        if identity.origin == RUNS:
            known = self._forwarded.get((identity.partition, identity.offset))
            return identity.offset < self._lost_to.get(identity.partition, 0) or known in self._harmed_inputs
        return (identity.epoch, identity.partition, identity.offset) in self._harmed_inputs

    def _command(self, at: TopicPartition, record: LogRecord, entry: CommandRecord) -> None:
        match entry.body:
            case Start(slot=Slot() as slot) as start if isinstance(entry.id, SlotId):
                if self.ticks.starts(slot, record.timestamp_ms):
                    self._start(at, record, entry.id, start)
            case Start() as start:
                self._start(at, record, entry.id, start)
            case PauseSchedule(schedule=schedule) | ResumeSchedule(schedule=schedule):
                pauses = isinstance(entry.body, PauseSchedule)
                self.ticks.paused(schedule, pauses=pauses, at_ms=record.timestamp_ms)
            case Deliver(result=result):
                self.delivered += 1
                self._given.pop((result.run, result.step), None)
                if isinstance(result, AttemptSucceeded | AttemptFailed):
                    self._outcome(at, record, result)
            case ChildEnded() as told:
                where = f"{at}/{record.offset}"
                self.family.result(where, record.offset, self.runs.get(told.run), self.runs.get(told.child), told)
            case Cancel(run=run):
                if isinstance(entry.id, Coordinates):
                    self.family.cancels(f"{at}/{record.offset}", run, there=run in self.runs)
                if (found := self.runs.get(run)) is not None and found.ended is None:
                    found.cancelled, found.parked = True, None
                    if found.open_since is None:  # it need not wait for its turn to end
                        self._partitions[at.partition].slots[found.slot][1].remove(run)
                        found.open_since = record.offset
            case Resume(run=run):
                if (found := self.runs.get(run)) is not None:
                    found.parked = None
            case Approve() as approve:
                self._approve(record, approve)
            case Epoch(epoch=epoch, offsets=offsets):
                part = self._partitions[at.partition]
                if epoch > part.epoch:
                    part.epoch = epoch
                    part.marks |= {(SOURCE, number): (epoch, offset) for number, offset in enumerate(offsets)}
            case Retry() as retry:
                self._retry(at, record, entry.id, retry)
            case Dismiss(run=run):
                if (found := self.runs.get(run)) is not None and found.ended is not None:
                    found.forgotten = True
            case _:
                pass

    def _approve(self, record: LogRecord, approve: Approve) -> None:
        """I8: the first decision that comes in time from somebody with the role."""
        run, step = self.runs.get(approve.run), approve.step
        asked = None if run is None or run.ended is not None else run.asked.get(step)
        if run is None or asked is None or step in run.settled:
            return
        in_time = asked.due_at_ms is None or record.timestamp_ms < asked.due_at_ms
        if in_time and (not asked.role or asked.role in approve.roles):
            run.answer(step, record.offset, approve.decision.value, approve.by)

    def answered(self, run_id: str, n: int, decision: str, by: str) -> None:
        """I8: what a run is told is what the log says first, at every telling."""
        run = self.runs.get(run_id)
        if run is None or not self.harmed.isdisjoint(each.id for each in run.chain()):
            return
        places = [(run, step) for step in run.asked] + [(self.runs[of], step) for step, of in run.copied.items()]
        found = [of.answers.get(step) for of, step in places if step in of.asked and of.asked[step].n == n]
        if found != [(decision, by)]:
            self._violated(f"I8 {run_id} is told that {n} was {decision} by {by!r}, and the log says {found}")

    def _start(self, at: TopicPartition, record: LogRecord, identity: Identity, start: Start) -> None:
        event = start.event
        source = self._source(identity, start)
        found = None if source is None else self.inputs.get(source)
        if isinstance(identity, Coordinates) and identity.origin == RUNS:
            self._forwards[identity.partition, identity.offset] = "landed"
        elif found is not None and event is not None and source is not None:
            found.recorded.add(start.workflow)
            lane = (source[0], event.partition, at.partition)
            if event.offset < self._newest_start.get(lane, -1) and not found.outdated:
                self._violated(f"I6 {at}/{record.offset}: {source} comes behind {self._newest_start[lane]}")
            self._newest_start[lane] = event.offset
        contended = start.key is not None and start.policy is not OnConflict.ALLOW
        if contended and partition_of((start.key or "").encode(), self._count) != at.partition:
            self.outbox[f"{at.partition}/forward/{record.offset}"] = "forward"
            self._forwards.setdefault((at.partition, record.offset), "")
            self._forwarded[at.partition, record.offset] = source
            if record.offset < self._lost_to.get(at.partition, 0) and found is not None and source is not None:
                found.outdated = True  # it looks like one that left from there before
                self._harmed_inputs.add(source)
            return
        run = Run(run_id(at.partition, identity), at, start)
        run.source = source
        if start.parent is not None:
            self.family.opens(f"{at}/{record.offset}", run.id, start)
        if run.id in self.runs:
            self._violated(f"I1 {at}/{record.offset} starts {run.id} again")
            return
        if contended:
            part = self._partitions[at.partition]
            slot = part.slots.get(run.slot)
            if slot is not None:
                if start.policy is OnConflict.QUEUE:
                    slot[1].append(run.id)
                    self.runs[run.id] = run
                elif start.policy is OnConflict.REJECT:
                    self.outbox[f"{at.partition}/refusal/{record.offset}"] = f"refusal {source} {start.workflow}"
                elif source is not None:
                    self.joined[source] = slot[0]
                return
            part.slots[run.slot] = (run.id, deque())
        self._begins(run, record.offset)
        self.runs[run.id] = run

    def _begins(self, run: Run, offset: int) -> None:
        """Its turn has come."""
        run.open_since = offset
        slot = run.start.slot
        if slot is not None and run.of is None:
            others = [
                each
                for each in self.runs.values()
                if each.start.slot is not None and each.start.slot.schedule == slot.schedule and each is not run
            ]
            self.ticks.overlaps(run.start, sum(each.open_since is not None and each.ended is None for each in others))

    def _source(self, identity: Identity, start: Start) -> Source | None:
        """What a start was made of."""
        if not isinstance(identity, Coordinates):
            return None
        event = start.event
        if identity.origin == RUNS:
            source = self._forwarded.get((identity.partition, identity.offset))
            if source is None or event is None or source[1:] == (event.partition, event.offset):
                return source
            return (source[0], event.partition, event.offset)  # another one left from that offset before
        return None if event is None else (identity.epoch, event.partition, event.offset)

    def _retry(self, at: TopicPartition, record: LogRecord, identity: Identity, retry: Retry) -> None:
        failed = self.runs.get(retry.run)
        id_ = run_id(at.partition, identity)
        if failed is None or failed.ended is None or failed.forgotten or failed.ended.status not in _RETRIABLE:
            return
        if id_ in self.runs or (failed.retry is not None and failed.retry.ended is None):
            return
        finished = [Finished(step, "succeeded", by) for step, by in failed.copied.items()] + failed.finished
        begins_with = given(finished, failed.undone, failed.refused, retry.from_step)
        if begins_with is None:
            return
        run = Run(id_, at, failed.start)
        run.of, run.copied, run.redone = failed, begins_with.copied, begins_with.redone
        run.source = failed.source
        start = run.start
        run.open_since = record.offset
        if start.key is not None and start.policy is not OnConflict.ALLOW:
            slots = self._partitions[at.partition].slots
            slot = slots.get(run.slot)
            if slot is None:
                slots[run.slot] = (id_, deque())
            elif start.policy is OnConflict.QUEUE:
                slot[1].append(id_)
                run.open_since = None
            else:
                return
        self.runs[id_] = failed.retry = run

    def _outcome(self, at: TopicPartition, record: LogRecord, outcome: Outcome) -> None:
        if isinstance(outcome, OutboxProgress):
            self._progress(at, record, outcome)
            return
        if isinstance(outcome, AttemptsGiven):
            giver = self.announced[at.partition, self._partitions[at.partition].token]
            for each in outcome.attempts:
                self._given[each.run, each.step] = (each.number, record.timestamp_ms + outcome.grace_ms, giver)
            return
        match outcome:
            case ScheduleSeen():
                self.ticks.seen(outcome, self._partitions[at.partition].clock_ms)
            case SlotsMissed():
                self.ticks.missed(outcome, record.timestamp_ms)
            case ScheduleUnnamed():
                self.ticks.unnamed(outcome)
            case _:
                pass
        if isinstance(outcome, OutputRefused):
            if self.outbox.pop(f"{at.partition}/{outcome.entry}", None) == "output":
                self._refused(at, outcome.entry)
            return
        name = getattr(outcome, "run", None)
        if name is None:
            return
        run = self.runs.get(name)
        if run is None or run.open_since is None:
            if name not in self.harmed:
                self._violated(f"I3 {at}/{record.offset} is about {name}, which is not open: {outcome}")
            if run is None or name not in self.harmed:
                return
        if run.ended is not None:
            if isinstance(outcome, RunEnded):
                self._violated(f"I3 {at}/{record.offset}: {run.id} has a second ending: {outcome} after {run.ended}")
            return
        self._effective(at, record, run, outcome)

    def _refused(self, at: TopicPartition, entry: str) -> None:
        """A topic will never take a result: an open run shall fail of it, else there is a dead letter."""
        id_, slash, ref = entry.partition("/")
        run = self.runs[id_]
        if run.ended is None:
            run.refused.add(slash + ref)
        else:
            self.outbox[f"{at.partition}/refused/{entry}"] = "refused"

    def _effective(self, at: TopicPartition, record: LogRecord, run: Run, outcome: Outcome) -> None:
        match outcome:
            case AttemptSucceeded(step=step):
                if step not in run.settled:
                    run.settled[step] = record.offset
                    run.succeeded.append(outcome)
                    if UNDO in step:
                        run.undone.add(step.rpartition(UNDO)[0])
                    else:
                        run.finished.append(Finished(step, "succeeded", run.id))
            case AttemptFailed(step=step, number=number):
                failures = run.failed[step]
                if step in run.settled or number != len(failures) + 1:
                    return
                failures.append((outcome, record.timestamp_ms))
                if outcome.retry_after_ms is None:
                    run.settled[step] = record.offset
                    if UNDO not in step:
                        run.finished.append(Finished(step, "failed", run.id))
                elif number >= ATTEMPTS_MAX:
                    self._violated(f"I9 {run.id}{step} may be tried again after attempt {number}")
            case TimerFired(step=step, due_at_ms=due_at_ms):
                if step not in run.settled and record.timestamp_ms >= due_at_ms:
                    if step in run.asked:
                        run.answer(step, record.offset, "expired", "")
                    run.settled[step] = record.offset
                    run.fired.append((outcome, record.timestamp_ms))
            case ApprovalRequested(step=step, title=title, roles=roles, due_at_ms=due_at_ms):
                if step not in run.settled:
                    _, n, *lost = title.split("/")
                    run.asked[step] = Asked(int(n), "".join(roles), due_at_ms, bool(lost))
            case StepsCancelled(steps=steps):
                self.family.gives_up(
                    at.partition, record.offset, run, (step for step in steps if step not in run.settled)
                )
                for step in steps:
                    run.settled.setdefault(step, record.offset)
            case ChildStarted():
                self.family.starts(at.partition, record.offset, run, outcome)
            case Emitted(step=step, data=data):
                if step not in run.settled:
                    run.settled[step] = record.offset
                    said = msgspec.json.decode(bytes(data))
                    run.emitted[step] = (said["n"], "refused" in said)
                    run.finished.append(Finished(step, "emitted", run.id))
                    self._emitted.add(f"{run.id}{step}")
                    self.outbox[f"{at.partition}/{run.id}{step}"] = "output"
            case RunParked():
                if not run.cancelled:
                    run.parked = outcome
                program = self.program_of(run)
                if outcome.reason is ParkReason.POISON and program is not None and not program.is_poison:
                    self._violated(f"P2 {run.id} is parked, and never ended a process: {outcome.found}")
            case RunEnded():
                run.ended, run.parked = outcome, None
                self.family.ends(at.partition, record.offset, run)
                self._free(run, record.offset)
                for step in run.refused:
                    if outcome.failed_step != step:  # something else was its end
                        self.outbox[f"{at.partition}/refused/{run.id}{step}"] = "refused"
                of = run.of
                while outcome.status is RunStatus.SUCCEEDED and of is not None and not of.forgotten:
                    of.forgotten, of = True, of.of
            case _:
                pass

    def _free(self, run: Run, offset: int) -> None:
        part = self._partitions[run.at.partition]
        slot = part.slots.get(run.slot)
        if slot is None or slot[0] != run.id:
            return
        if slot[1]:
            following = self.runs[slot[1].popleft()]
            self._begins(following, offset)
            part.slots[run.slot] = (following.id, slot[1])
        else:
            del part.slots[run.slot]

    def _progress(self, at: TopicPartition, record: LogRecord, progress: OutboxProgress) -> None:
        """What left the outbox must be where it went."""
        for sent in progress.sent:
            kind = self.outbox.pop(f"{at.partition}/{sent.entry}", "")
            if kind == "refused" and not self.refusals[sent.entry.removeprefix("refused/")]:
                self._violated(f"P1 {at}/{record.offset}: {sent.entry} is said to be a dead letter and is not there")
            elif kind == "output" and sent.entry not in self.results:
                self._violated(f"P1 {at}/{record.offset}: {sent.entry} is said to be sent and is not there")
            elif kind == "message":
                where, has = f"{at}/{record.offset}", lambda it: any(it in each.identities for each in self._partitions)
                self.family.left(where, f"{at.partition}/{sent.entry}", has)
            elif kind == "forward":
                offset = int(sent.entry.rpartition("/")[2])
                lost = self._forwarded.get((at.partition, offset)) in self._harmed_inputs
                if self._forwards.get((at.partition, offset)) != "landed" and not lost:
                    self._violated(f"P1 {at}/{record.offset}: {sent.entry} is said to be forwarded and is not there")

    # --- what handlers do ---------------------------------------------------------------------------------------------

    def attempt_begins(
        self, run_id: str, step: str, number: int, read_to: int, log_ms: int, works: Callable[[str], bool]
    ) -> None:
        """A handler is called by an owner that has read to `read_to`: I5, I6, I9. `works`: is an instance alive, and a member."""
        run = self.runs.get(run_id)
        if run is None or run.open_since is None:
            self._violated(f"I6 {run_id}{step} begins, and the log has not opened its run")
            return
        settled = run.settled.get(step)
        if settled is not None and settled < read_to:
            self._violated(f"I5 {run_id}{step} begins again; its end at {settled} was read back (to {read_to})")
        given = self._given.get((run_id, step))
        if given is not None and given[0] == number and log_ms + self._early_ms < given[1] and works(given[2]):
            self._violated(f"I5 {run_id}{step} begins {given[1] - log_ms} ms before the grace of {given[2]} is over")
        failures = run.failed.get(step, [])
        if number > len(failures) + 1:
            self._violated(f"I9 {run_id}{step} begins attempt {number} after {len(failures)} failures")
        elif number > 1:
            failed, at_ms = failures[number - 2]
            if log_ms + self._early_ms < at_ms + (failed.retry_after_ms or 0):
                self._violated(
                    f"I9 {run_id}{step} begins attempt {number} {at_ms + (failed.retry_after_ms or 0) - log_ms} ms too early"
                )

    def call_begins(self, run_id: str, what: str, n: int, call_of: dict[str, tuple[str, int]]) -> None:
        """A program's call begins: all that comes before it in the program is over, by the log."""
        run = self.runs.get(run_id)
        where = None if run is None else run.source
        if run is None or where is None or what == "undo":
            return
        wanted = self._needs.get(where)
        if wanted is None:
            program = self.inputs[where].program
            wanted = self._needs[where] = {} if program is None else needs(program)
        before = wanted.get(n)
        if before:
            over = {call_of.get(f"{run_id}{step}", ("", 0))[1] for step in run.settled}
            over |= {call_of.get(f"{by}{step}", ("", 0))[1] for step, by in run.copied.items()}
            if not before <= over:
                self._violated(f"P2 {run_id} begins call {n}, and {sorted(before - over)} are not over in the log")

    # --- the end ------------------------------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """What still has to happen, in words; empty: everything has come to its end."""
        left = [
            f"input {where} ({found.kind}): recorded {found.recorded}"
            for where, found in self.inputs.items()
            if not found.done
        ]
        left += [
            f"run {run.id} of {run.start.workflow} {'queued' if run.open_since is None else 'open'}"
            for run in self.runs.values()
            if run.ended is None and run.parked is None
        ]
        left += [f"outbox {entry}: {kind}" for entry, kind in self.outbox.items()]
        left += self.ticks.unfinished()
        return left

    def at_the_end(self, effects: "Effects", *, faults: bool) -> None:
        """I1, I2, I4, I9 of everything."""
        by_input: dict[Source, list[Run]] = defaultdict(list)
        for run in self.runs.values():
            if run.source is not None and run.of is None:
                by_input[run.source].append(run)
        groups: dict[tuple[int, str], list[Source]] = defaultdict(list)
        for where, found in self.inputs.items():
            if found.group is None:
                self._input(where, found, by_input.get(where, []))
            else:
                groups[where[0], found.group].append(where)
        for copies in groups.values():
            self._copies(copies, by_input)
        for run in self.runs.values():
            if run.source is not None:
                self._run(run, self.inputs[run.source], effects)
            elif run.start.slot is not None and run.id not in self.harmed:
                self._tick(run, run.start.slot, effects)
            elif (program := self.program_of(run)) is not None:
                self._run(run, Input("free", program), effects)
        self.family.at_the_end(self.runs)
        known = {f"{run.id}{step}" for run in self.runs.values() for step in run.emitted}
        if self._lost:
            known |= self._emitted
        for ce_id, copies in self.results.items():
            if ce_id not in known:
                self._violated(f"I2 a result {ce_id} that no run emitted")
            again = ce_id.partition("/")[0] in self.harmed  # said anew, at another time
            if len({(copy.key, copy.value, copy.headers) for copy in copies}) > 1 and not again:
                self._violated(f"I2 {ce_id} came with different contents")
            if len(copies) > 1 and not faults:
                self._violated(f"I2 {ce_id} came {len(copies)} times without a fault")
        for key, tasks in effects.tasks_by_key.items():
            if len({(self.runs[run].chain()[-1].id, what, n) for run, what, n in tasks if run in self.runs}) > 1:
                self._violated(f"I4 the key {key} belongs to {sorted(tasks)}")

    def _copies(self, copies: list[Source], by_input: dict[Source, list[Run]]) -> None:
        """I1 of copies of one redriven letter: together they come to what one record would."""
        inputs = [self.inputs[where] for where in copies]
        together = Input(inputs[0].kind, inputs[0].program)
        for found in inputs:
            together.recorded |= found.recorded
            together.refused |= found.refused
            together.letters |= found.letters
        together.outdated = all(found.outdated for found in inputs)
        harmed = [where for where in copies if where in self._harmed_inputs]
        together.outdated = together.outdated or bool(harmed)
        joined = [where for where in copies if where in self.joined]
        self._input((harmed or joined or copies)[0], together, [run for where in copies for run in by_input[where]])

    def _input(self, where: Source, found: Input, runs: list[Run]) -> None:
        names = sorted(run.start.workflow for run in runs)
        if found.outdated:
            once = (
                len(set(names)) == len(names) or where in self._harmed_inputs
            )  # one may have left for its key's place
            good = once and set(names) <= found.wanted
        elif found.kind == "unmatched":
            good = not runs and not found.letters and "unmatched" in found.recorded
        elif found.kind == "broken":
            reasons = found.letters - {
                _TRIED_TOO_OFTEN
            }  # it may come back with that, if its process dies over it for other reasons
            good = not runs and len(reasons) <= 1 and bool(found.letters) and "unmatched" not in found.recorded
        elif found.kind == "deadly":
            good = not runs and found.letters == {_TRIED_TOO_OFTEN} and "unmatched" not in found.recorded
        elif found.kind == "join" and where in self.joined:
            good = not runs and not found.letters
        elif found.refused:
            good = not runs and found.kind == "reject" and "unmatched" not in found.recorded
        else:
            good = names == sorted(found.wanted) and not found.letters and "unmatched" not in found.recorded
        if not good:
            self._violated(
                f"I1 input {where} ({found.kind}) came to runs {names}, letters {found.letters}, recorded {found.recorded}"
            )

    def _tick(self, run: Run, slot: Slot, effects: "Effects") -> None:
        """A run of a slot has one task, and gives the slot."""
        ended = run.ended
        if run.cancelled or run.of is not None:
            return
        if ended is None or ended.status is not RunStatus.SUCCEEDED:
            self._violated(f"I1 {run.id} of {slot} ended {ended}")
        elif msgspec.json.decode(bytes(ended.result)) != [slot.schedule, slot.at_ms]:
            self._violated(f"I1 {run.id} of {slot} gave {bytes(ended.result)!r}")
        elif {what for what, _ in effects.begun.get(run.id, {})} != {"act"}:
            self._violated(f"I4 {run.id} of {slot} did {effects.begun.get(run.id)}")

    def _run(self, run: Run, found: Input, effects: "Effects") -> None:
        program = found.program
        assert program is not None
        if run.parked is not None:
            self._violated(f"I1 {run.id} is parked: {run.parked}")
            return
        ended = run.ended
        if run.source in self._harmed_inputs or not self.harmed.isdisjoint(each.id for each in run.chain()):
            return
        assert ended is not None
        self._outputs(run, ended)
        check_keys(run, effects, self._violated)
        if run.cancelled:
            return
        copied = self._copied(run, effects)
        wanted = expected(program, cured=run.id in self.mended, over=copied)
        begun = effects.begun.get(run.id, {})
        for (what, n), keys in begun.items():
            if len(keys) > 1:
                self._violated(f"I4 {run.id} {what} {n} had the keys {sorted(keys)}")
        if ended.failed_step in run.refused:  # what comes after may have begun, or not
            self._cut_short(run, ended, wanted, effects)
            return
        if ended.status.value != wanted.status:
            self._violated(f"I1 {run.id} {ended.status}, expected {wanted.status}: {ended.error} {ended.message}")
            return
        if wanted.status == "succeeded" and msgspec.json.decode(bytes(ended.result)) != wanted.values:
            self._violated(f"I1 {run.id} gave {bytes(ended.result)!r}, expected {wanted.values}")
        self._compare(run, "calls", {n for what, n in begun if what == "act"}, set(wanted.calls) - copied)
        self._compare(run, "undos", {n for what, n in begun if what == "undo"}, set(wanted.undone))
        losers = {n for what, n in begun if what == "lose"}
        if not losers <= wanted.losers:
            self._violated(f"I4 {run.id} had losers {losers}, expected at most {set(wanted.losers)}")
        for n in set(wanted.calls) - copied:
            call = wanted.calls[n]
            step = next((s for s in effects.steps.get((run.id, "act", n), ())), "")
            failures = [failed.cause for failed, _ in run.failed.get(step, ())]
            declared = min(call.fails + call.hangs, ATTEMPTS_MAX - 1) + call.fatal
            slow = failures.count(Cause.TIMED_OUT) - call.hangs  # while its process was stopped
            if slow < 0 or (len(failures) != declared if not slow else len(failures) < declared):
                self._violated(f"I9 {run.id}{step} failed {failures}, expected {declared} failures")
        emits = {n for n, _ in run.emitted.values()}
        emits |= {self.runs[by].emitted[step][0] for step, by in run.copied.items() if step in self.runs[by].emitted}
        if emits != wanted.emits:
            self._violated(f"I1 {run.id} emitted {sorted(emits)}, expected {sorted(wanted.emits)}")
        self._reverse(run, effects)

    def _copied(self, run: Run, effects: "Effects") -> set[int]:
        """Calls whose results the run has of the one before it."""
        return {n for _, n in filter(None, [effects.call_of.get(f"{by}{step}") for step, by in run.copied.items()])}

    def _outputs(self, run: Run, ended: RunEnded) -> None:
        """Each result has left; or it was refused, and that was the run's end, or there is a dead letter of it."""
        for step, (_, refused) in run.emitted.items():
            id_ = f"{run.id}{step}"
            if not refused:
                if id_ not in self.results:
                    self._violated(f"P1 the result {id_} is nowhere")
            elif id_ in self.results:
                self._violated(f"P1 the result {id_} is there, and its topic refuses it")
            elif (ended.failed_step == step) == bool(self.refusals[id_]):
                self._violated(
                    f"P1 {id_} was refused, its run ended {ended.status} {ended.failed_step}, and there are {self.refusals[id_]} dead letters"
                )

    def _cut_short(self, run: Run, ended: RunEnded, wanted: Answer, effects: "Effects") -> None:
        """It failed of a result that was refused: somewhere on its way, and what had finished is undone."""
        begun = effects.begun.get(run.id, {})
        calls = {n for what, n in begun if what == "act"}
        if not calls <= set(wanted.calls):
            self._violated(f"I4 {run.id}: calls {sorted(calls)}, expected some of {sorted(wanted.calls)}")
        over = {
            n
            for what, n in filter(None, [effects.call_of.get(f"{run.id}{each.step}") for each in run.succeeded])
            if what == "act"
        }
        over |= self._copied(run, effects)
        self._compare(
            run, "undos", {n for what, n in begun if what == "undo"}, {n for n in over if wanted.calls[n].undo}
        )
        if ended.status.value != ("compensated" if any(what == "undo" for what, _ in begun) else "failed"):
            self._violated(f"I1 {run.id} {ended.status} of a result that was refused")
        self._reverse(run, effects)

    def _compare(self, run: Run, what: str, found: set[int], wanted: set[int]) -> None:
        if found != wanted:
            self._violated(f"I4 {run.id}: {what} {sorted(found)}, expected {sorted(wanted)}")

    def _reverse(self, run: Run, effects: "Effects") -> None:
        """I9: compensation once per finished task, in reverse."""
        order = [effects.call_of.get(f"{run.id}{done.step}") for done in run.succeeded]
        undone = [n for what, n in filter(None, order) if what == "undo"]
        finished = [n for what, n in filter(None, order) if what == "act" and n in set(undone)]
        copied = self._copied(run, effects)  # their place among the others is where the code asks for them
        undone = [n for n in undone if n not in copied]
        if undone != finished[::-1]:
            self._violated(f"I9 {run.id} finished {finished} and undid {undone}")


def _is_copy(record: LogRecord) -> bool:
    """Whether it is a start of a redriven letter: it may count for nothing, and say all the same that its source record was read."""
    entry = decode(record.value)
    return isinstance(entry, CommandRecord) and isinstance(entry.body, Start) and entry.body.redriven is not None


class Effects:
    """What handlers told: calls that began, by run."""

    def __init__(self) -> None:
        self.begun: dict[str, dict[tuple[str, int], set[str]]] = defaultdict(lambda: defaultdict(set))
        self.steps: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        self.tasks_by_key: dict[str, set[tuple[str, str, int]]] = defaultdict(set)
        self.call_of: dict[str, tuple[str, int]] = {}
        self.count = 0

    def began(self, run: str, step: str, key: str, what: str, n: int) -> None:
        self.count += 1
        self.begun[run][what, n].add(key)
        self.steps[run, what, n].add(step)
        self.tasks_by_key[key].add((run, what, n))
        self.call_of[f"{run}{step}"] = (what, n)
