"""What the engine costs: microseconds per run of five durable steps, in one process, without log and loop.

`python -m benchmarks.engine [RUNS]` prints a line for each part, best of five. The run is the one of `benchmarks/app`: check, reserve, invoice beside
shipping, emit; its log has eight records: the start, four results, the event, the end, and the outbox's progress.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from time import perf_counter

import msgspec

from benchmarks.app.app import Line, Order, fulfil
from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.instruction import Advance, Begin, Close
from headrace.service.engine.interpreter import Interpreter
from headrace.service.engine.limit import RunLimits
from headrace.service.engine.run_state import RunState
from headrace.service.engine.state import PartitionState
from headrace.service.engine.step import CallStep, EmitStep
from headrace.service.engine.turn import Turn
from headrace.topics.command import OnConflict, Start
from headrace.topics.event import EventMeta
from headrace.topics.identity import Coordinates, start_digest
from headrace.topics.outcome import AttemptSucceeded, Emitted, OutboxProgress, Outcome, Sent
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, RunRecord, decode, encode

ROUNDS = 5


class Recorder:
    """Makes the log of many runs, as an owner with instant handlers would."""

    def __init__(self) -> None:
        self.records: list[RunRecord] = []
        self._state = state()
        self._seq = 0
        self._live: dict[str, Interpreter] = {}
        self._append(announce())

    def run(self, number: int) -> None:
        """One run from start to end."""
        self._append(start(number))
        while self._state.next_offset < len(self.records):
            self._read()

    def _append(self, record: RunRecord) -> None:
        self.records.append(record)

    def _propose(self, outcome: Outcome) -> None:
        self._append(OutcomeRecord(token=0, seq=self._seq, body=outcome))
        self._seq += 1

    def _read(self) -> None:
        offset = self._state.next_offset
        for instruction in fold(self._state, offset, 1, 300, self.records[offset]).instructions:
            if isinstance(instruction, Begin):
                live = self._live[instruction.run.id] = interpreter(instruction.run)
                self._act(instruction.run, live.replay(instruction.run.history))
            elif isinstance(instruction, Advance):
                live = self._live[instruction.run.id]
                self._act(instruction.run, live.feed(instruction.record, instruction.at_ms))
            elif isinstance(instruction, Close):
                self._live.pop(instruction.run.id).close()

    def _act(self, run: RunState, turn: Turn) -> None:
        for step in turn.issued:
            if isinstance(step, CallStep):
                raw = msgspec.Raw(b"true" if step.handler.name == "check" else b'"reservation-o-0000001"')
                self._propose(AttemptSucceeded(run.id, step.ref, step.handler.name, 1, raw, 1_700_000_000_000, 0.12))
            elif isinstance(step, EmitStep):
                data = msgspec.Raw(step.data)
                self._propose(Emitted(run.id, step.ref, step.topic, step.type, data, step.key, step.subject))
        if turn.ended is not None:
            self._propose(turn.ended)
            self._propose(OutboxProgress(sent=(Sent(f"{run.id}/6/emit", 3, 17),)))


def state() -> PartitionState:
    return new_state(topic="bench.runs", partition=0, partitions=1, client_retention_ms=1000)


def announce() -> Announce:
    return Announce("bench", "i", "m", "n", -1, 1)


def start(number: int) -> CommandRecord:
    order = Order(f"o-{number:07}", "c-1", 100, "EUR", [Line("a-1", 2), Line("a-2", 1)])
    event = EventMeta(f"e-{number}", "/shop", "bench.order.placed", "orders", 0, number, key=order.order)
    body = Start(
        "default",
        "fulfil",
        "1",
        msgspec.Raw(msgspec.json.encode(order)),
        key=order.order,
        policy=OnConflict.QUEUE,
        event=event,
        event_at_ms=1_700_000_000_000,
    )
    identity = Coordinates(0, "orders", 0, number, start_digest("start", "default", "fulfil"), max(0, number - 50))
    return CommandRecord(id=identity, body=body)


def interpreter(run: RunState) -> Interpreter:
    return Interpreter(
        fulfil,
        run_id=run.id,
        key=run.start.key or "",
        event=None,
        raw_input=bytes(run.start.input),
        began_at_ms=run.began_at_ms,
        limits=RunLimits(payload_bytes=900_000),
    )


def best_us(runs: int, act: Callable[[], object]) -> float:
    """Microseconds per run, best of a few rounds."""
    found: list[float] = []
    for _ in range(ROUNDS):
        gc.collect()
        gc.disable()
        began = perf_counter()
        act()
        found.append((perf_counter() - began) / runs * 1e6)
        gc.enable()
    return min(found)


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    recorder = Recorder()
    for number in range(runs):
        recorder.run(number)
    records = recorder.records
    values = [encode(record) for record in records]
    histories: list[RunState] = []

    def fold_all() -> None:
        folded = state()
        for offset, record in enumerate(records):
            fold(folded, offset, 1, 300, record)

    def interpret_all() -> None:
        for run in histories:
            live = interpreter(run)
            live.begin()
            for record, at_ms in run.history:
                live.feed(record, at_ms)
            live.close()

    def replay_all() -> None:
        for run in histories:
            live = interpreter(run)
            live.replay(run.history)
            live.close()

    folded = state()
    for offset, record in enumerate(records):
        instructions = fold(folded, offset, 1, 300, record).instructions
        histories += [each.run for each in instructions if isinstance(each, Close)]
    print(
        f"{runs} runs, {len(records) / runs:.1f} records and {sum(map(len, values)) / runs:.0f} bytes a run; us per run"
    )
    for name, act in (
        ("encode", lambda: [encode(record) for record in records]),
        ("decode", lambda: [decode(value) for value in values]),
        ("fold", fold_all),
        ("interpreter, live", interpret_all),
        ("interpreter, replay", replay_all),
    ):
        print(f"{name:<20} {best_us(runs, act):6.1f}")


if __name__ == "__main__":
    main()
