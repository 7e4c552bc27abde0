"""A driver that plays the owner, in memory: one log, one fold, live interpreters, and attempts that end when a test says so.

Every record goes over the wire format. After every record that it reads it checks what must always hold: an interpreter that replays the run's history asks
for exactly what the live one has open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.service.definitions.workflow import Workflow
from headrace.service.engine.child import depth_of
from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.folded import Folded
from headrace.service.engine.instruction import (
    Advance,
    Begin,
    Close,
    Instruction,
    Park,
    Rearm,
    TryAgain,
    Unpark,
)
from headrace.service.engine.interpreter import TIMEOUT_STEP, Interpreter
from headrace.service.engine.limit import RunLimits
from headrace.service.engine.run_state import Phase, RunState
from headrace.service.engine.state import Forward, Message, OutboxEntry, Output, PartitionState
from headrace.service.engine.step import ApprovalStep, CallStep, ChildStep, EmitStep, Leaf, TimerStep
from headrace.service.engine.turn import Turn
from headrace.topics.approval import Verdict
from headrace.topics.command import Approve, Cancel, Command, OnConflict, Resume, Retry, Start
from headrace.topics.errors import Cause
from headrace.topics.identity import ClientId, Coordinates, Identity, run_id
from headrace.topics.outcome import (
    ApprovalRequested,
    AttemptFailed,
    AttemptSucceeded,
    ChildStarted,
    Emitted,
    OutboxProgress,
    Outcome,
    OutputRefused,
    RunEnded,
    RunParked,
    Sent,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, RunRecord, decode, encode

RUNS = "test.runs"
DAY_MS = 86_400_000
BEGAN_MS = 1_700_000_000_000


def empty_state(partition: int = 0, partitions: int = 1) -> PartitionState:
    return new_state(topic=RUNS, partition=partition, partitions=partitions, client_retention_ms=DAY_MS)


def refold(log: list[tuple[int, bytes]], state: PartitionState | None = None) -> PartitionState:
    """The state after these (append time, value) records."""
    state = empty_state() if state is None else state
    for at_ms, value in log:
        fold(state, state.next_offset, at_ms, len(value), decode(value))
    return state


@dataclass
class Live:
    """A run that is awake: its interpreter and what it has asked for."""

    state: RunState
    interpreter: Interpreter
    open: dict[str, Leaf[Any]] = field(default_factory=dict)
    cancelling: set[str] = field(default_factory=set)
    ended: RunEnded | None = None
    parked: RunParked | None = None

    def asks_for(self) -> tuple[set[str], set[str], RunEnded | None]:
        settled = self.state.settled
        open_ = {ref for ref in self.open if ref not in settled}
        if self.ended is not None:
            return {ref for ref in open_ if isinstance(self.open[ref], EmitStep)}, set(), self.ended
        begun = {ref for ref in open_ if ref in self.state.children}  # the log knows them
        return open_ - self.cancelling - begun, open_ & self.cancelling, None


class Driver:
    """`auto` reads back at once what is appended; without it a test calls `read` when it wants."""

    def __init__(
        self,
        *workflows: Workflow[Any, Any],
        partition: int = 0,
        partitions: int = 1,
        payload_bytes_max: int | None = None,
    ) -> None:
        self.workflows = {workflow.name: workflow for workflow in workflows}
        self.payload_bytes_max = payload_bytes_max
        self.partition, self.partitions = partition, partitions
        self.now_ms = BEGAN_MS
        self.log: list[tuple[int, bytes]] = []
        self.auto = True
        self.state = empty_state(partition, partitions)
        self.live: dict[str, Live] = {}
        self.numbers: dict[tuple[str, str], int] = {}  # attempts that run, or wait for their turn
        self.due: dict[tuple[str, str], int] = {}
        self.endings: dict[str, list[RunEnded]] = {}
        self.closed: dict[str, RunState] = {}
        self.parkings: list[RunParked] = []
        self.instructions: list[Instruction] = []
        self.last: Folded = Folded(instructions=[])
        self.check_replay = True
        self._token = self._seq = -1
        self._reading = False
        self._count = 0
        self.announce()

    # --- the log ---------------------------------------------------------------------------------------------------

    def append(self, record: RunRecord, at_ms: int | None = None) -> None:
        self.log.append((self.now_ms if at_ms is None else at_ms, encode(record)))
        if self.auto:
            self.read()

    def read(self, records: int | None = None) -> None:
        """Read back what was appended, and what that makes us append. `records`: at most so many."""
        if self._reading:
            return
        self._reading = True
        try:
            left = len(self.log) if records is None else records
            while self.state.next_offset < len(self.log) and (records is None or left > 0):
                self._read_one()
                left -= 1
        finally:
            self._reading = False

    def _read_one(self) -> None:
        offset = self.state.next_offset
        at_ms, value = self.log[offset]
        record = decode(value)
        self.last = fold(self.state, offset, at_ms, len(value), record)
        self.instructions = list(self.last.instructions)
        if isinstance(record, Announce) and self.last.skip is None:
            self._token, self._seq = offset, 0
        for instruction in self.last.instructions:
            self._carry_out(instruction)
        if self.check_replay:
            self.check()

    def announce(self) -> None:
        self.append(
            Announce(
                app="test",
                instance="i",
                member="m",
                nonce=f"nonce-{len(self.log)}",
                previous_token=self.state.gate.last,
                partitions=self.partitions,
            )
        )

    def propose(self, outcome: Outcome, at_ms: int | None = None) -> None:
        record = OutcomeRecord(token=self._token, seq=self._seq, body=outcome)
        self._seq += 1
        self.append(record, at_ms)

    def command(self, body: Command, identity: Identity | None = None) -> Identity:
        if identity is None:
            self._count += 1
            identity = ClientId(f"client-{self._count}")
        self.append(CommandRecord(id=identity, body=body))
        return identity

    # --- commands --------------------------------------------------------------------------------------------------

    def start(
        self,
        workflow: Workflow[Any, Any] | str,
        input: object = None,
        *,
        key: str | None = None,
        policy: OnConflict = OnConflict.ALLOW,
        identity: Identity | None = None,
        **more: Any,
    ) -> str:
        name = workflow if isinstance(workflow, str) else workflow.name
        raw = msgspec.Raw(msgspec.json.encode(input))
        start = Start(namespace="default", workflow=name, version="1", input=raw, key=key, policy=policy, **more)
        return run_id(self.partition, self.command(start, identity))

    def cancel(self, run: str, reason: str = "") -> None:
        self.command(Cancel(run=run, reason=reason))

    def retry(self, run: str, from_step: str = "") -> str:
        """The id of the new run, if there is one."""
        return run_id(self.partition, self.command(Retry(run=run, from_step=from_step)))

    def resume(self, run: str) -> None:
        self.command(Resume(run=run))

    def approve(
        self,
        run: str,
        step: str,
        decision: Verdict = Verdict.APPROVED,
        *,
        by: str = "ann",
        note: str = "",
        roles: tuple[str, ...] = (),
    ) -> None:
        self.command(Approve(run=run, step=step, decision=decision, by=by, note=note, roles=roles))

    # --- outcomes --------------------------------------------------------------------------------------------------

    def succeed(self, run: str, step: str, value: object = None) -> None:
        call = self.call(run, step)
        self.propose(
            AttemptSucceeded(
                run=run,
                step=step,
                handler=call.handler.name,
                number=self.numbers[run, step],
                result=msgspec.Raw(msgspec.json.encode(value)),
                started_at_ms=self.now_ms,
                duration_ms=1.0,
            )
        )

    def fail(
        self,
        run: str,
        step: str,
        *,
        message: str = "no",
        error: str = "ValueError",
        retry_after_ms: int | None = None,
        number: int | None = None,
    ) -> None:
        call = self.call(run, step)
        self.propose(
            AttemptFailed(
                run=run,
                step=step,
                handler=call.handler.name,
                number=self.numbers[run, step] if number is None else number,
                cause=Cause.RAISED,
                error=error,
                message=message,
                started_at_ms=self.now_ms,
                duration_ms=1.0,
                retry_after_ms=retry_after_ms,
            )
        )

    def fire(self, run: str, step: str) -> None:
        """Move the clock to when the timer is due, and let it fire."""
        due_at_ms = self.due[run, step]
        self.now_ms = max(self.now_ms, due_at_ms)
        self.propose(TimerFired(run=run, step=step, due_at_ms=due_at_ms))

    def time_out(self, run: str) -> None:
        self.propose(TimerFired(run=run, step=TIMEOUT_STEP, due_at_ms=self.now_ms))

    def refuse(self, entry: str) -> None:
        self.propose(OutputRefused(entry=entry, code="HR6001", message="no such topic"))

    def sent(self, *entries: str) -> None:
        self.propose(OutboxProgress(sent=tuple(Sent(entry, 0, 0) for entry in entries)))

    # --- looks -----------------------------------------------------------------------------------------------------

    def call(self, run: str, step: str) -> CallStep[Any]:
        leaf = self.live[run].open[step]
        assert isinstance(leaf, CallStep)
        return leaf

    def open(self, run: str) -> list[str]:
        """What the run waits for, given up or not, in the order in which it was asked for."""
        live = self.live[run]
        return [ref for ref in live.open if ref not in live.state.settled]

    def ended(self, run: str) -> RunEnded:
        """The run's one ending."""
        (ended,) = self.endings[run]
        assert run not in self.state.runs
        return ended

    def result(self, run: str) -> Any:
        ended = self.ended(run)
        assert ended.status == "succeeded", ended
        return msgspec.json.decode(ended.result)

    def outputs(self) -> list[Output]:
        return [entry for entry in self.state.outbox.values() if isinstance(entry, Output)]

    def entries(self, kind: type[OutboxEntry]) -> list[OutboxEntry]:
        return [entry for entry in self.state.outbox.values() if isinstance(entry, kind)]

    # --- restarts --------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Die and come back: the state is refolded from the log, the runs are replayed."""
        before = self.state
        self.state = refold(self.log[: before.next_offset], empty_state(self.partition, self.partitions))
        assert self.state == before
        asked = {run: live.asks_for() for run, live in self.live.items() if live.state.phase is Phase.OPEN}
        self._lose_all()
        assert {run: self.live[run].asks_for() for run in asked} == asked
        if self.auto:
            self.read()

    def crash(self) -> None:
        """Lose all that is not in the log, records appended and not read back included, and announce anew."""
        self._lose_all()
        if self.auto:
            self.read()

    def _lose_all(self) -> None:
        auto, self.auto = self.auto, False
        for live in self.live.values():
            live.interpreter.close()
        self.live.clear()
        self.numbers.clear()
        self.due.clear()
        del self.log[self.state.next_offset :]
        self.announce()
        self.read(1)
        for run in list(self.state.runs.values()):
            if run.phase is Phase.OPEN and run.id not in self.live:
                self._wake(run)
        self.auto = auto

    # --- carrying out ----------------------------------------------------------------------------------------------

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Begin(run=run) | Unpark(run=run):
                self._wake(run)
            case Advance(run=run, record=record, at_ms=at_ms):
                live = self.live.get(run.id)
                if live is not None:
                    self._act(live, live.interpreter.feed(record, at_ms))
            case TryAgain(run=run, step=step, number=number):
                self.numbers[run.id, step] = number
            case Rearm(run=run, step=step, due_at_ms=due_at_ms):
                self.due[run.id, step] = due_at_ms
            case Close(run=run, ended=ended):
                self.endings.setdefault(run.id, []).append(ended)
                self.closed[run.id] = run
                self._forget(run)
            case Park(run=run, parked=parked):
                self.parkings.append(parked)
                self._forget(run)
            case _:
                pass

    def _forget(self, run: RunState) -> None:
        live = self.live.pop(run.id, None)
        if live is not None:
            live.interpreter.close()

    def interpreter(self, run: RunState) -> Interpreter:
        return Interpreter(
            self.workflows[run.start.workflow],
            run_id=run.id,
            key=run.start.key or "",
            event=None,
            raw_input=bytes(run.start.input),
            began_at_ms=run.began_at_ms,
            limits=RunLimits(payload_bytes=self.payload_bytes_max),
            retried=run.retried,
            depth=depth_of(run.start),
        )

    def _wake(self, run: RunState) -> None:
        if run.start.workflow not in self.workflows:
            return
        live = self.live[run.id] = Live(run, self.interpreter(run))
        self._act(live, _replayed(live.interpreter, run))

    def _act(self, live: Live, turn: Turn) -> None:
        run = live.state
        if turn.parked is not None:
            live.parked = turn.parked
            self.propose(turn.parked)
            return
        for leaf in turn.issued:
            live.open[leaf.ref] = leaf
            if isinstance(leaf, CallStep):
                tries = run.tries.get(leaf.ref)
                self.numbers[run.id, leaf.ref] = tries.failed + 1 if tries is not None else 1
            elif isinstance(leaf, TimerStep):
                self.due[run.id, leaf.ref] = leaf.due_at_ms
                if run.timers.get(leaf.ref) != leaf.due_at_ms:
                    self.propose(TimerArmed(run=run.id, step=leaf.ref, due_at_ms=leaf.due_at_ms))
            elif isinstance(leaf, ApprovalStep):
                self._ask(run, leaf)
            elif isinstance(leaf, EmitStep):
                self._emit(run, leaf)
            elif isinstance(leaf, ChildStep):
                self._start_child(run, leaf)
        if turn.cancelled:
            live.cancelling.update(turn.cancelled)
            for ref in turn.cancelled:
                live.open.setdefault(ref, Leaf(live.interpreter, ref))
            self.propose(StepsCancelled(run=run.id, steps=tuple(turn.cancelled)))
        if turn.ended is not None:
            live.ended = turn.ended
            self.propose(turn.ended)

    def _ask(self, run: RunState, leaf: ApprovalStep) -> None:
        if leaf.due_at_ms is not None:
            self.due[run.id, leaf.ref] = leaf.due_at_ms
        request = self.state.approvals.get(f"{run.id}{leaf.ref}")
        if request is None or not leaf.asks(request):
            self.propose(ApprovalRequested(run.id, leaf.ref, leaf.title, leaf.roles, leaf.due_at_ms))

    def _emit(self, run: RunState, leaf: EmitStep) -> None:
        emitted = Emitted(
            run=run.id,
            step=leaf.ref,
            topic=leaf.topic,
            type=leaf.type,
            data=msgspec.Raw(leaf.data),
            key=leaf.key,
            subject=leaf.subject,
        )
        self.propose(emitted)

    def _start_child(self, run: RunState, leaf: ChildStep[Any]) -> None:
        namespace, workflow, version = leaf.workflow.id
        self.propose(
            ChildStarted(
                run=run.id,
                step=leaf.ref,
                namespace=namespace,
                workflow=workflow,
                version=version,
                input=msgspec.Raw(leaf.input),
                awaited=leaf.awaited,
                key=leaf.key,
                policy=leaf.workflow.on_conflict,
                timeout_ms=leaf.workflow.timeout_ms,
                traceparent="00-11111111111111111111111111111111-2222222222222222-01",
            )
        )

    # --- what must always hold -------------------------------------------------------------------------------------

    def check(self) -> None:
        for live in self.live.values():
            if live.parked is not None:
                continue
            replica = self.interpreter(live.state)
            turn = _replayed(replica, live.state)
            assert turn.parked is None, turn.parked
            issued = {leaf.ref for leaf in turn.issued}
            assert (issued, set(turn.cancelled), turn.ended) == live.asks_for()
            for leaf in turn.issued:
                _assert_same(leaf, live.open[leaf.ref])
            replica.close()


def _replayed(interpreter: Interpreter, run: RunState) -> Turn:
    return interpreter.replay(run.history, timers=run.sleeps, tried=run.tries, approvals=run.approvals)


def _assert_same(one: Leaf[Any], other: Leaf[Any]) -> None:
    assert type(one) is type(other)
    if isinstance(one, CallStep) and isinstance(other, CallStep):
        assert (one.handler, one.arguments, one.issued_at_ms, one.undoes) == (
            other.handler,
            other.arguments,
            other.issued_at_ms,
            other.undoes,
        )
    elif isinstance(one, TimerStep) and isinstance(other, TimerStep):
        assert one.due_at_ms == other.due_at_ms
    elif isinstance(one, ApprovalStep) and isinstance(other, ApprovalStep):
        assert (one.title, one.roles, one.due_at_ms) == (other.title, other.roles, other.due_at_ms)
    elif isinstance(one, EmitStep) and isinstance(other, EmitStep):
        assert (one.topic, one.type, one.data, one.key) == (other.topic, other.type, other.data, other.key)
    elif isinstance(one, ChildStep) and isinstance(other, ChildStep):
        assert (one.workflow, one.input, one.key, one.awaited) == (
            other.workflow,
            other.input,
            other.key,
            other.awaited,
        )


def forwarded(entry: Forward | Message, floor: int = 0) -> CommandRecord:
    """The command that the outbox makes of an entry that goes to another partition."""
    at = entry.identity
    identity = Coordinates(at.epoch, at.origin, at.partition, at.offset, at.n, floor)
    return CommandRecord(id=identity, body=entry.start if isinstance(entry, Forward) else entry.body)
