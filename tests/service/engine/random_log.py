"""Random run logs of one partition: every kind of record, about few runs and keys, in and out of order, sensible or not. The fold takes them all."""

from random import Random

import msgspec

from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.state import Output, PartitionState
from headrace.topics.approval import Verdict
from headrace.topics.command import (
    Abandoned,
    Approve,
    Cancel,
    ChildEnded,
    Command,
    Deliver,
    Dismiss,
    Epoch,
    OnConflict,
    Parent,
    PauseSchedule,
    Resume,
    ResumeSchedule,
    Retry,
    SourceRecord,
    Start,
)
from headrace.topics.errors import Cause
from headrace.topics.event import EventMeta
from headrace.topics.identity import ClientId, Coordinates, Identity, SlotId
from headrace.topics.outcome import (
    ApprovalRequested,
    AttemptFailed,
    AttemptSucceeded,
    ChildStarted,
    Emitted,
    OutboxProgress,
    Outcome,
    OutputRefused,
    ParkReason,
    ProbePassed,
    RunEnded,
    RunningAttempt,
    RunParked,
    RunProbed,
    RunStatus,
    ScheduleSeen,
    ScheduleUnnamed,
    Sent,
    SlotsMissed,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.redrive import Redriven
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release, RunRecord
from headrace.topics.schedule import ScheduleDefinition, ScheduleSpec, Slot

RETENTION_MS = 300
TOPIC = "test.runs"
STEPS = ("/1/a", "/2/b", "/3/c", "/timeout")


def empty() -> PartitionState:
    return new_state(
        topic=TOPIC, partition=1, partitions=3, client_retention_ms=RETENTION_MS, retry_retention_ms=10 * RETENTION_MS
    )


def fold_all(
    log: list[tuple[int, RunRecord]], state: PartitionState | None = None, *, offset: int | None = None
) -> PartitionState:
    """The state after these (append time, record) pairs, which begin where the state ends."""
    state = empty() if state is None else state
    for number, (at_ms, record) in enumerate(log, state.next_offset if offset is None else offset):
        fold(state, number, at_ms, 100, record)
    return state


class Chance:
    """Draws records that fit the state that they are folded into, mostly."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.of_schedules = Random(f"schedules/{seed}")
        self.state = empty()
        self.log: list[tuple[int, RunRecord]] = []
        self.at_ms = 1_000
        self.count = 0

    def step(self) -> None:
        self.at_ms += self.random.randint(-2, 20)
        record = self.record()
        self.log.append((self.at_ms, record))
        fold(self.state, len(self.log) - 1, self.at_ms, 100, record)

    def record(self) -> RunRecord:
        gate, chance = self.state.gate, self.random
        if gate.token < 0 or chance.random() < 0.01:
            previous = gate.last if chance.random() < 0.9 else gate.last - 1
            return Announce("test", chance.choice("ij"), "m", f"nonce-{len(self.log)}", previous, 3)
        if chance.random() < 0.01:
            attempts = tuple(RunningAttempt(self.run(), self.step_(), 1) for _ in range(chance.randint(0, 3)))
            return Release(gate.token, gate.seq + 1, attempts, 1_000)
        if gate.token >= 0 and self.of_schedules.random() < 0.03:
            return self.scheduled()
        if chance.random() < 0.35:
            return CommandRecord(self.identity(), self.command())
        token, seq = gate.token, gate.seq + 1
        if chance.random() < 0.05:
            token, seq = chance.choice([(token, seq - 1), (token, seq + 1), (token - 1, seq)])
        return OutcomeRecord(token, seq, self.outcome())

    def scheduled(self) -> RunRecord:
        """A record about a schedule: seen, its next slot (or one that is over), missed, paused, resumed, unnamed."""
        chance, gate = self.of_schedules, self.state.gate
        id_ = chance.choice(("a-0000000000", "a-0000000003"))
        known = self.state.schedules.get(id_)
        last_ms = 0 if known is None else known.last_ms - 1_000 * (chance.random() < 0.1)
        at_ms = last_ms + chance.randint(1, 10)
        what = chance.random()
        if what < 0.4:
            policy = chance.choice((OnConflict.ALLOW, OnConflict.JOIN, OnConflict.QUEUE))
            slot = Slot(id_, at_ms, last_ms)
            start = Start("default", "a", "1", msgspec.Raw(b"1"), "schedule", id_, policy, event_at_ms=at_ms, slot=slot)
            return CommandRecord(SlotId(id_, at_ms), start)
        if what < 0.5:
            self.count += 1
            body = PauseSchedule(id_) if what < 0.45 else ResumeSchedule(id_)
            return CommandRecord(ClientId(f"schedule-{self.count}"), body)
        definition = ScheduleDefinition("default", "a", chance.choice("12"), ScheduleSpec(every_ms=1_000))
        outcome: Outcome = SlotsMissed(id_, last_ms, at_ms, at_ms, 1)
        if what < 0.8:
            outcome = ScheduleSeen(id_, definition) if what < 0.75 else ScheduleUnnamed(id_)
        return OutcomeRecord(gate.token, gate.seq + 1, outcome)

    def identity(self) -> Identity:
        self.count += self.random.random() < 0.9
        if self.random.random() < 0.4:
            return ClientId(f"client-{self.count}")
        offset = self.count + self.random.randint(0, 2)
        floor = max(0, offset - self.random.randint(0, 30))
        return Coordinates(int(self.count > 400), "in", self.random.randint(0, 2), offset, "n", floor)

    def run(self) -> str:
        if self.state.runs and self.random.random() < 0.97:
            return self.random.choice(list(self.state.runs))
        return "1.00000000000000000000"

    def step_(self) -> str:
        return self.random.choice(STEPS)

    def command(self) -> Command:
        chance = self.random
        what = chance.random()
        if what < 0.75:
            keyed = chance.random() < 0.7
            policy = chance.choice(list(OnConflict)) if keyed else OnConflict.ALLOW
            meta = EventMeta(f"e-{self.count}", "/s", "t", "in", 0, self.count, key="k")
            return Start(
                "default",
                chance.choice(["a", "b"]),
                "1",
                msgspec.Raw(b'{"n": %d}' % self.count),
                key=chance.choice("klmnopqr") if keyed else None,
                policy=policy,
                event=meta if chance.random() < 0.7 else None,
                event_at_ms=self.at_ms - 5,
                record=SourceRecord(b"k", b"\x00\xff", (("h", b"v"),), 7) if policy is OnConflict.REJECT else None,
                redriven=Redriven(f"in.dlq/0/{self.count // 20}", 1, "0a") if self.count % 5 == 0 else None,
                parent=Parent(self.run(), self.step_(), chance.random() < 0.7) if chance.random() < 0.3 else None,
            )
        if what < 0.8:
            decision, roles = chance.choice(list(Verdict)), chance.choice([(), ("boss",), ("clerk", "boss")])
            return Approve(self.run(), self.step_(), decision, "ann", roles=roles)
        if what < 0.87:
            result = chance.choice([self.succeeded(), self.failed(), Abandoned(self.run(), self.step_(), 1)])
            return Deliver(self.state.gate.last, result)
        if what < 0.88:
            status = chance.choice([RunStatus.SUCCEEDED, RunStatus.CANCELLED])
            return ChildEnded(self.run(), self.step_(), "2.00000000000000000000", "a", status, msgspec.Raw(b'"r"'))
        if what < 0.93:
            return Cancel(self.run(), "no more") if what < 0.91 else Resume(self.run())
        failed = chance.choice(list(self.state.failed) or ["1.00000000000000000000"])
        if what < 0.99:
            return Retry(failed, chance.choice(["", *STEPS])) if what < 0.98 else Dismiss(failed)
        return Epoch("in", chance.randint(0, 1), (self.count, self.count - 5, self.count))

    def succeeded(self) -> AttemptSucceeded:
        return AttemptSucceeded(self.run(), self.step_(), "h", 1, msgspec.Raw(b'{ "a":[1,"\\u00e9"]}'), 5, 0.1 + 0.2)

    def asks(self, run: str, step: str) -> ApprovalRequested:
        due_at_ms = self.random.choice([None, self.at_ms + 5, self.at_ms + 50])
        roles = self.random.choice([(), ("boss",)])
        return ApprovalRequested(run, step, "may it?", roles, due_at_ms, rests_at=self.random.randint(-1, 3))

    def failed(self) -> AttemptFailed:
        run, step = self.run(), self.step_()
        tries = self.state.runs[run].tries.get(step) if run in self.state.runs else None
        after = 50 if self.random.random() < 0.7 else None
        number = (tries.failed if tries else 0) + 1
        return AttemptFailed(run, step, "h", number, Cause.RAISED, "E", "no", 5, 1.5, after)

    def outcome(self) -> Outcome:
        run, step, chance = self.run(), self.step_(), self.random
        entries = list(self.state.outbox)
        entry = chance.choice(entries) if entries else "none"
        return chance.choice(
            [
                self.succeeded,
                self.failed,
                self.failed,
                lambda: TimerArmed(run, step, self.at_ms + 10, rests_at=chance.randint(-1, 3)),
                lambda: self.asks(run, step),
                lambda: self.asks(run, step),
                lambda: TimerFired(run, step, self.at_ms + chance.choice([-1, 1])),
                lambda: StepsCancelled(run, (step, self.step_())),
                lambda: Emitted(run, step, "out", "t", msgspec.Raw(b"[1, 2]"), "key"),
                lambda: ChildStarted(run, step, "default", "a", "1", msgspec.Raw(b"[1]"), chance.random() < 0.7),
                lambda: OutboxProgress((Sent(entry, 0, 5),)),
                lambda: OutputRefused(entry, "HR5003", "too big"),
                lambda: RunEnded(run, RunStatus.SUCCEEDED, msgspec.Raw(b"1")),
                lambda: RunEnded(run, RunStatus.FAILED, error="E", message="no"),
                lambda: RunParked(run, ParkReason.NONDETERMINISTIC, step, "a", "b"),
                lambda: RunParked(run, ParkReason.POISON),
                lambda: RunProbed(run),
                lambda: RunProbed(run),
                lambda: ProbePassed(run),
            ]
        )()


def random_log(seed: int, records: int) -> list[tuple[int, RunRecord]]:
    """(append time, record) pairs; the offset is the index."""
    chance = Chance(seed)
    for _ in range(records):
        chance.step()
    return chance.log


def ended_with_outputs(state: PartitionState) -> list[str]:
    """Entries of the outbox whose run is over."""
    return [entry.id for entry in state.outbox.values() if isinstance(entry, Output) and entry.run not in state.runs]
