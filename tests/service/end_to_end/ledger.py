"""`Ledger`: an app's run log as the fold sees it, read from outside and as far as it goes now."""

from collections import defaultdict
from typing import NamedTuple

from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.folded import Folded
from headrace.service.engine.schedule_state import ScheduleState
from headrace.topics.command import Deliver, Start
from headrace.topics.identity import run_id
from headrace.topics.log import Log, LogRecord, TopicPartition
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    Outcome,
    RunEnded,
    RunParked,
    RunStatus,
    TimerFired,
)
from headrace.topics.run_record import Announce, CommandRecord, Release, decode


class Entry(NamedTuple):
    """An accepted record about a run."""

    offset: int
    at_ms: int
    token: int  # of its owner; -1 for commands
    body: Outcome | Start | Deliver


class Ledger:
    """`refresh` reads on; everything else is what was read."""

    def __init__(self, log: Log, topic: str, *, partitions: int, client_retention_ms: int = 86_400_000) -> None:
        self._log = log
        self._states = {
            TopicPartition(topic, number): new_state(
                topic=topic, partition=number, partitions=partitions, client_retention_ms=client_retention_ms
            )
            for number in range(partitions)
        }
        self.starts: dict[str, Entry] = {}
        self.entries: dict[str, list[Entry]] = defaultdict(list)
        self.announced: dict[tuple[int, int], Announce] = {}
        self._announced_at_ms: dict[tuple[int, int], int] = {}
        self.releases: list[Release] = []
        self.skipped = 0
        self.records = 0

    async def refresh(self) -> "Ledger":
        offsets = await self._log.offsets(list(self._states))
        for at, state in self._states.items():
            end = offsets[at].end
            if state.next_offset >= end:
                continue
            async with self._log.read(at, state.next_offset) as batches:
                async for batch in batches:
                    for record in batch.records:
                        assert isinstance(record, LogRecord), record
                        self._see(at, record)
                    if state.next_offset >= end:
                        break
        return self

    # --- runs ---

    def schedules(self) -> dict[str, ScheduleState]:
        """All of them, as they are now."""
        return {id_: each for state in self._states.values() for id_, each in state.schedules.items()}

    def ended(self) -> dict[str, RunEnded]:
        """Terminal records by run; two of one run are an error of their own."""
        found: dict[str, RunEnded] = {}
        for run, entries in self.entries.items():
            terminal = [entry.body for entry in entries if isinstance(entry.body, RunEnded)]
            assert len(terminal) <= 1, f"{run} has {len(terminal)} terminal records: {terminal}"
            if terminal:
                found[run] = terminal[0]
        return found

    def with_status(self, status: RunStatus) -> list[str]:
        return [run for run, ended in self.ended().items() if ended.status is status]

    def open(self) -> list[str]:
        return [run for state in self._states.values() for run in state.runs]

    def parked(self) -> dict[str, RunParked]:
        return {
            run.id: run.parked
            for state in self._states.values()
            for run in state.runs.values()
            if run.parked is not None
        }

    def outbox(self, of: str = "") -> int:
        """Entries that are still to leave; with a run, those that it emitted."""
        return sum(entry.startswith(of) for state in self._states.values() for entry in state.outbox)

    def run_of(self, topic: str, partition: int, offset: int, workflow: str | None = None) -> str:
        """The run that a source record started."""
        found = self.runs_of(topic, partition, offset, workflow)
        assert len(found) == 1, f"{topic}/{partition}/{offset} started {found}"
        return found[0]

    def runs_of(self, topic: str, partition: int, offset: int, workflow: str | None = None) -> list[str]:
        return [
            run
            for run, entry in self.starts.items()
            if isinstance(entry.body, Start)
            and entry.body.event is not None
            and (entry.body.event.topic, entry.body.event.partition, entry.body.event.offset)
            == (topic, partition, offset)
            and workflow in {None, entry.body.workflow}
        ]

    def start(self, run: str) -> Start:
        body = self.starts[run].body
        assert isinstance(body, Start)
        return body

    def bodies(self, run: str) -> list[Outcome | Start | Deliver]:
        return [entry.body for entry in self.entries[run]]

    def failures(self, run: str) -> list[AttemptFailed]:
        return [body for body in map(_result, self.bodies(run)) if isinstance(body, AttemptFailed)]

    def successes(self) -> dict[str, tuple[int, Entry]]:
        """By idempotency key: the partition and the entry of the attempt that succeeded."""
        found: dict[str, tuple[int, Entry]] = {}
        for run, entries in self.entries.items():
            for entry in entries:
                result = _result(entry.body)
                if isinstance(result, AttemptSucceeded):
                    key = f"{run}{result.step}"
                    assert key not in found, f"{key} succeeded twice in the log"
                    found[key] = (int(run.partition(".")[0]), entry)
        return found

    def timers_fired(self, run: str) -> list[tuple[int, TimerFired]]:
        """Append time and record of the timers that counted."""
        return [(entry.at_ms, entry.body) for entry in self.entries[run] if isinstance(entry.body, TimerFired)]

    def emitted(self, run: str) -> list[Emitted]:
        return [body for body in self.bodies(run) if isinstance(body, Emitted)]

    def pid_of(self, partition: int, token: int) -> int:
        """The process behind a token: instances are named host-pid-chance."""
        return int(self.announced[partition, token].instance.split("-")[-2])

    def token_of(self, partition: int, pid: int, at_ms: int) -> int:
        """The newest token that the process had taken of the partition by then; -1: none."""
        tokens = [
            token
            for (number, token), announced_at_ms in self._announced_at_ms.items()
            if number == partition and announced_at_ms <= at_ms and self.pid_of(number, token) == pid
        ]
        return max(tokens, default=-1)

    # --- reading ---

    def _see(self, at: TopicPartition, raw: LogRecord) -> None:
        self.records += 1
        state, record = self._states[at], decode(raw.value)
        folded = fold(state, raw.offset, raw.timestamp_ms, len(raw.value or b""), record)
        if folded.skip is not None:
            self.skipped += 1
        elif isinstance(record, Announce):
            self.announced[at.partition, raw.offset] = record
            self._announced_at_ms[at.partition, raw.offset] = raw.timestamp_ms
        elif isinstance(record, Release):
            self.releases.append(record)
        elif isinstance(record, CommandRecord):
            self._command(at.partition, raw, record, folded)
        elif not folded.without_effect:
            run = getattr(record.body, "run", None)
            if run is not None:
                self.entries[run].append(Entry(raw.offset, raw.timestamp_ms, record.token, record.body))

    def _command(self, partition: int, raw: LogRecord, record: CommandRecord, folded: Folded) -> None:
        body = record.body
        if isinstance(body, Start):
            run = run_id(partition, record.id)
            if any(run in state.runs for state in self._states.values()):
                self.starts[run] = Entry(raw.offset, raw.timestamp_ms, -1, body)
        elif isinstance(body, Deliver) and not folded.without_effect:
            self.entries[body.result.run].append(Entry(raw.offset, raw.timestamp_ms, -1, body))


def _result(body: Outcome | Start | Deliver) -> object:
    return body.result if isinstance(body, Deliver) else body
