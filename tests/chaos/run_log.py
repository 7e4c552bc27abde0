"""The run log as its design says it is to be read: an accept rule and a dedupe of their own, on plain JSON.

Nothing of the engine is imported: what both believe must come from the records. Frozen formats are shared: run ids and
the hash of keys.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.topics.identity import ClientId, Coordinates, run_id
from headrace.topics.partition_hash import partition_of
from tests.chaos.recorder import Record

CLOSED = -1


class Taken(msgspec.Struct, frozen=True):
    """An accepted announce. `handed_over`: nobody owned the partition: it was released, or never taken."""

    token: int
    at_ms: int
    instance: str
    handed_over: bool = True

    @property
    def pid(self) -> int:
        """Instances are named host-pid-chance."""
        return int(self.instance.split("-")[-2])


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an attempt, accepted. `token` -1: delivered after a release."""

    offset: int
    at_ms: int
    token: int
    step: str
    number: int
    result: Any = None  # of a success
    retry_after_ms: int | None = None  # of a failure: None is final


class RunFacts(msgspec.Struct, kw_only=True):
    """What was accepted about one run."""

    id: str
    partition: int
    offset: int
    at_ms: int
    workflow: str
    key: str | None
    source: tuple[str, int, int] | None
    succeeded: dict[str, Answer] = {}
    failed: dict[str, list[Answer]] = {}
    armed: dict[str, int] = {}
    fired: dict[str, tuple[int, int]] = {}  # due, append time
    emitted: dict[str, int] = {}  # append time
    emitted_after_end: int = 0
    first_outcome: int = -1  # offset
    ended: list[tuple[int, str, str]] = []  # offset, status, error
    over_ms: int = -1  # append time of the first ending
    parked: str = ""
    """The reason, until somebody resumes it."""


class _Partition:
    """The gate."""

    def __init__(self) -> None:
        self.last = CLOSED
        self.token = CLOSED
        self.nonce = ""
        self.seq = -1
        self.taken: list[Taken] = []
        self.releases = 0
        self.identities: set[str] = set()


class RunLog:
    """`see` every record of the topic, in offset order a partition."""

    def __init__(self, app: str, partitions: int) -> None:
        self.app = app
        self.partitions = partitions
        self._states = [_Partition() for _ in range(partitions)]
        self.runs: dict[str, RunFacts] = {}
        self.by_source: dict[tuple[str, int, int], list[str]] = defaultdict(list)
        self.recorded: dict[tuple[str, int, int], tuple[int, int]] = {}
        """By source record: run-log partition and offset of the first command that was made from it."""
        self.left: dict[str, int] = {}  # outbox entry: append time of the progress that says so
        self.skipped: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.foreign_outcomes: list[str] = []  # of runs that nobody started
        self.records = 0
        self.repeated_commands = 0
        self.open = 0
        self.done = 0
        """Runs that ended or were parked."""

    def taken(self, partition: int) -> list[Taken]:
        """The accepted announces of a partition, oldest first."""
        return self._states[partition].taken

    def all_taken(self) -> int:
        """Accepted announces of all partitions."""
        return sum(len(state.taken) for state in self._states)

    def see(self, record: Record) -> None:
        """The next record of its partition."""
        self.records += 1
        said: dict[str, Any] = msgspec.json.decode(record.value or b"null")
        state = self._states[record.at[1]]
        kind = said["kind"]
        self.kinds[kind] += 1
        if kind == "announce":
            self._announce(state, record, said)
        elif kind == "command":
            self._command(state, record, said)
        elif self._admits(state, said):
            if kind == "release":
                state.token = CLOSED
                state.releases += 1
            elif "body" in said:
                self._outcome(record, said["token"], said["body"])

    def recorded_before(self, source: tuple[str, int, int], ends: Mapping[tuple[str, int], int]) -> bool:
        """Whether a command was made from this source record before the run log had these ends."""
        found = self.recorded.get(source)
        return found is not None and found[1] < ends.get((f"{self.app}.runs", found[0]), 0)

    # --- the accept rule ---

    def _announce(self, state: _Partition, record: Record, said: dict[str, Any]) -> None:
        if said["previous_token"] != state.last:
            self.skipped["announce"] += 1
            return
        handed_over = state.token == CLOSED
        state.last = state.token = record.offset
        state.nonce, state.seq = said["nonce"], -1
        state.taken.append(Taken(record.offset, record.timestamp_ms, said["instance"], handed_over))

    def _admits(self, state: _Partition, said: dict[str, Any]) -> bool:
        if state.token == CLOSED or said["token"] != state.token:
            self.skipped["stale_token"] += 1
            return False
        if said["seq"] != state.seq + 1:
            self.skipped["duplicate" if said["seq"] <= state.seq else "sequence_gap"] += 1
            return False
        state.seq += 1
        return True

    # --- commands ---

    def _command(self, state: _Partition, record: Record, said: dict[str, Any]) -> None:
        tag, *words = said["id"]
        identity = "/".join(map(str, words[:5] if tag == "c" else words))
        if identity in state.identities:
            self.repeated_commands += 1
            return
        state.identities.add(identity)
        if tag == "c":
            self.recorded.setdefault((words[1], words[2], words[3]), (record.at[1], record.offset))
        body = said["body"]
        if body["is"] == "start":
            self._start(record, said["id"], body)
        elif body["is"] == "resume":
            run = self.runs[body["run"]]
            if run.parked and not run.ended:
                self.open += 1
                self.done -= 1
            run.parked = ""
        elif body["is"] == "deliver":
            result = body["result"]
            if result.get("is") in {"attempt.succeeded", "attempt.failed"}:
                self._outcome(record, CLOSED, result)

    def _start(self, record: Record, identity: list[Any], body: dict[str, Any]) -> None:
        partition, key = record.at[1], body.get("key")
        contended = body.get("policy", "allow") != "allow"
        if key is not None and contended and partition_of(key.encode(), self.partitions) != partition:
            return  # goes on to the partition of its key
        run = _run_id(partition, identity)
        source = _source_of(body.get("event"))
        assert run not in self.runs, f"{run} was started twice by one identity"
        self.runs[run] = RunFacts(
            id=run,
            partition=partition,
            offset=record.offset,
            at_ms=record.timestamp_ms,
            workflow=body["workflow"],
            key=key,
            source=source,
        )
        self.open += 1
        if source is not None:
            self.by_source[source].append(run)

    # --- outcomes ---

    def _outcome(self, record: Record, token: int, body: dict[str, Any]) -> None:
        kind = body.get("is")
        if kind == "outbox.progress":
            for entry, *_ in body["sent"]:
                self.left.setdefault(entry, record.timestamp_ms)
            return
        if "run" not in body:
            return
        run = self.runs.get(body["run"])
        if run is None:
            self.foreign_outcomes.append(f"{record.at[1]}/{record.offset} {body['run']}")
            return
        if run.first_outcome < 0:
            run.first_outcome = record.offset
        match kind:
            case "attempt.succeeded":
                answer = _answer(record, token, body)
                if not run.ended:
                    run.succeeded.setdefault(answer.step, answer)
            case "attempt.failed":
                run.failed.setdefault(body["step"], []).append(_answer(record, token, body))
            case "timer.armed":
                run.armed.setdefault(body["step"], body["due_at_ms"])
            case "timer.fired":
                if record.timestamp_ms >= body["due_at_ms"]:
                    run.fired.setdefault(body["step"], (body["due_at_ms"], record.timestamp_ms))
            case "emitted":
                if run.ended and body["step"] not in run.emitted:
                    run.emitted_after_end += 1
                run.emitted.setdefault(body["step"], record.timestamp_ms)
            case "run.ended":
                self._over(run)
                run.over_ms = run.over_ms if run.ended else record.timestamp_ms
                run.ended.append((record.offset, body["status"], body.get("error", "")))
            case "run.parked":
                self._over(run)
                run.parked = body["reason"]
            case _:
                pass

    def _over(self, run: RunFacts) -> None:
        if not run.ended and not run.parked:
            self.open -= 1
            self.done += 1


def _answer(record: Record, token: int, body: dict[str, Any]) -> Answer:
    return Answer(
        offset=record.offset,
        at_ms=record.timestamp_ms,
        token=token,
        step=body["step"],
        number=body["number"],
        result=body.get("result"),
        retry_after_ms=body.get("retry_after_ms"),
    )


def _run_id(partition: int, identity: list[Any]) -> str:
    tag, *words = identity
    return run_id(partition, Coordinates(*words) if tag == "c" else ClientId(*words))


def _source_of(event: Any) -> tuple[str, int, int] | None:
    """An event's coordinates, whether it is written as a list or a table."""
    if event is None:
        return None
    return (event["topic"], event["partition"], event["offset"])
