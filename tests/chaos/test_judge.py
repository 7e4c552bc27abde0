"""Can the judge find anything? A history without fault is taken, spoiled in one place, and has to be found out under the right invariant."""

import io
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headrace.observability.log_observer import LogObserver
from headrace.observability.logs import Logs
from headrace.observability.told_log import CheckpointFailed
from headrace.topics.identity import Coordinates, run_id
from tests.chaos.judge import NO_FAULT, Evidence, Position, Verdict, Violation, Window, bugs_in, judge
from tests.chaos.line import Line, Tally
from tests.chaos.load import Input, Try
from tests.chaos.program import Job, expected
from tests.chaos.recorder import Record
from tests.chaos.run_log import RunLog
from tests.chaos.sink import Effect

APP, RUNS, IN, OUT = "app", "app.runs", "app.in", "app.results"
JOB = Job(id="j", group="g", program=(("call", 0, 1), ("nap", 50, 0)))
UNDONE = Job(id="u", group="g", program=(("undoable", 0, 0), ("undoable", 0, 0), ("throw", 0, 0)))
T0 = 1_700_000_000_000


class History:
    """Two runs of one worker, as they would have been. Offsets and milliseconds rise by one a record; all of it may be changed."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.times: list[int] = []
        self.results: list[Record] = []
        self.letters: list[Record] = []
        self.audit: list[Record] = []
        self.effects: list[Effect] = []
        self.windows: list[Window] = []
        self.positions: list[Position] = []
        self.committed = {(IN, 0): 2}
        self.listed: list[dict[str, str]] | None = [{"status": "succeeded"}, {"status": "compensated"}]
        self.said = ""
        self.now = T0
        self.seq = self.token = 0
        self.pid = 11
        self.runs: dict[str, str] = {}
        self.acknowledged = {JOB.id, UNDONE.id}
        self._write(kind="announce", instance="host-11-x", nonce="n", previous_token=-1)
        for offset, job in enumerate((JOB, UNDONE)):
            self._start(offset, job)
        self._plays()
        self._is_undone()

    # --- what happens ---

    def _write(self, **said: Any) -> int:
        self.now += 1
        self.log.append(said)
        self.times.append(self.now)
        return len(self.log) - 1

    def outcome(self, **body: Any) -> int:
        offset = self._write(kind="outcome", token=self.token, seq=self.seq, body=body)
        self.seq += 1
        return offset

    def _start(self, offset: int, job: Job) -> None:
        identity = Coordinates(0, IN, 0, offset, "n", 0)
        self.runs[job.id] = run_id(0, identity)
        event = {"topic": IN, "partition": 0, "offset": offset}
        words = ["c", 0, IN, 0, offset, "n", 0]
        self._write(kind="command", id=words, body={"is": "start", "workflow": "jobs", "key": job.id, "event": event})

    def effect(self, job: Job, step: str, place: int, branch: int, phase: str, number: int = 1) -> None:
        self.now += 1
        run, ns = self.runs[job.id], self.now * 1_000_000
        self.effects.append(
            Effect(
                key=run + step,
                run=run,
                task=step,
                number=number,
                phase=phase,
                pid=self.pid,
                job=job.id,
                place=place,
                branch=branch,
                at_ns=ns,
                seen_ns=ns,
            )
        )

    def attempt(self, job: Job, step: str, place: int, branch: int, number: int = 1) -> dict[str, int]:
        self.effect(job, step, place, branch, "start", number)
        self.effect(job, step, place, branch, "end", number)
        value = zlib.crc32(f"{job.id}/{place}/{branch}".encode()) % 1000
        result = {"place": place, "branch": branch, "value": value, "chance": place * 10 + branch}
        self.outcome(**{"is": "attempt.succeeded"}, run=self.runs[job.id], step=step, number=number, result=result)
        return result

    def failure(self, job: Job, step: str, place: int, number: int, retry_after_ms: int | None) -> None:
        self.effect(job, step, place, 0, "start", number)
        more = {} if retry_after_ms is None else {"retry_after_ms": retry_after_ms}
        self.outcome(**{"is": "attempt.failed"}, run=self.runs[job.id], step=step, number=number, **more)

    def _plays(self) -> None:
        run = self.runs[JOB.id]
        self.failure(JOB, "/1", 0, 1, 5)
        self.now += 10
        done = [self.attempt(JOB, "/1", 0, 0, 2), self.attempt(JOB, "/2", 1, 0)]
        due = self.now + 50
        self.outcome(**{"is": "timer.armed"}, run=run, step="/3", due_at_ms=due)
        self.now = due + 2
        self.outcome(**{"is": "timer.fired"}, run=run, step="/3", due_at_ms=due)
        done.append(self.attempt(JOB, "/4", 1, 1))
        self.outcome(**{"is": "emitted"}, run=run, step="/5")
        self.outcome(**{"is": "run.ended"}, run=run, status="succeeded")
        data = {"id": JOB.id, "sum": expected(JOB).sum, "done": done}
        self.results.append(self.record(OUT, 0, data, ce_id=f"{run}/5"))
        self.outcome(**{"is": "outbox.progress"}, sent=[[f"{run}/5", 0, 0]])

    def _is_undone(self) -> None:
        for place in (0, 1):
            self.attempt(UNDONE, f"/{place + 1}", place, 0)
        self.failure(UNDONE, "/3", 2, 1, None)
        for place in (1, 0):
            self.effect(UNDONE, f"/{place + 1}/undo", place, 0, "undo")
        self.outcome(**{"is": "run.ended"}, run=self.runs[UNDONE.id], status="compensated")

    # --- what the judge sees ---

    def record(self, topic: str, offset: int, said: object, **headers: str) -> Record:
        pairs = tuple((name, text.encode()) for name, text in headers.items())
        return Record((topic, 0), offset, self.now, b"k", msgspec.json.encode(said), pairs)

    def judged(self) -> list[Violation]:
        return self.verdict().violations

    def verdict(self) -> Verdict:
        log = RunLog(APP, 1)
        for offset, (said, at_ms) in enumerate(zip(self.log, self.times, strict=True)):
            log.see(Record((RUNS, 0), offset, at_ms, None, msgspec.json.encode(said), ()))
        inputs = {job.id: Input(id=job.id, what="job", job=job) for job in (JOB, UNDONE)}
        evidence = Evidence(
            inputs=inputs,
            tries={JOB.id: Try(T0 - 9, T0 - 8), UNDONE.id: Try(T0 - 7, T0 - 6)},
            acknowledged=frozenset(self.acknowledged),
            source=[self.record(IN, offset, {}, ce_id=job.id) for offset, job in enumerate((JOB, UNDONE))],
            log=log,
            results=self.results,
            letters=self.letters,
            audit=self.audit,
            effects=self.effects,
            windows=self.windows,
            positions=self.positions,
            committed=self.committed,
            source_ends={(IN, 0): 2},
            listed=self.listed,
            bugs=bugs_in(self.said),
        )
        return judge(evidence)

    def find(self, kind: str, **wanted: object) -> int:
        """The offset of the first outcome like this."""
        return next(
            offset
            for offset, said in enumerate(self.log)
            if (body := said.get("body", {})).get("is") == kind and all(body.get(k) == v for k, v in wanted.items())
        )


def test_a_history_without_fault_passes() -> None:
    assert History().judged() == []


def test_a_process_that_took_its_partition_anew_may_begin_an_attempt_again() -> None:
    """What the first one came to was appended under its old token, and does not count."""

    class Retaken(History):
        def attempt(self, job: Job, step: str, place: int, branch: int, number: int = 1) -> dict[str, int]:
            if (job, step) == (UNDONE, "/1"):
                self.effect(job, step, place, branch, "start", number)
                self.token = self._write(kind="announce", instance="host-11-y", nonce="m", previous_token=0)
                self.seq = 0
            return super().attempt(job, step, place, branch, number)

    assert Retaken().judged() == []


def test_a_repetition_that_fails_after_the_next_attempt_has_begun_moves_nothing() -> None:
    """A zombie's first attempt went on while another owner made it again, and the second one too: it counts no more."""

    class Late(History):
        def attempt(self, job: Job, step: str, place: int, branch: int, number: int = 1) -> dict[str, int]:
            result = super().attempt(job, step, place, branch, number)
            if (job, step) == (JOB, "/1"):
                late = {
                    "is": "attempt.failed",
                    "run": self.runs[job.id],
                    "step": step,
                    "number": 1,
                    "retry_after_ms": 5,
                }
                self.outcome(**late)
            return result

    assert Late().judged() == []


def _result_lost(history: History) -> None:
    history.results.clear()


def _start_lost(history: History) -> None:
    """The record's command is not in the log, nor is it anywhere else."""
    history.log[history.find("start", key=UNDONE.id)] = {"kind": "release", "token": -5, "seq": 0}


def _run_and_dead_letter(history: History) -> None:
    facts = {"headrace-dlq-topic": IN, "headrace-dlq-partition": "0", "headrace-dlq-offset": "0"}
    history.letters.append(history.record("app.in.dlq", 0, {}, **facts))


def _wrong_sum(history: History) -> None:
    old = history.results[0]
    data = msgspec.json.decode(old.value or b"")
    history.results[0] = old._replace(value=msgspec.json.encode({**data, "sum": data["sum"] + 1}))


def _other_answer(history: History) -> None:
    """The run went on with an attempt's answer that is not the one in the log."""
    history.log[history.find("attempt.succeeded", step="/1")]["body"]["result"]["chance"] = 999


def _doubled_without_fault(history: History) -> None:
    history.results.append(history.results[0]._replace(offset=1))


def _doubled_with_other_bytes(history: History) -> None:
    history.windows.append(Window("kill", T0, history.now, fired=True))
    history.results.append(history.results[0]._replace(offset=1, key=b"other"))


def _second_ending(history: History) -> None:
    history.outcome(**{"is": "run.ended"}, run=history.runs[JOB.id], status="failed")


def _other_key(history: History) -> None:
    history.effects[2] = msgspec.structs.replace(history.effects[2], key="another")


def _effect_missing(history: History) -> None:
    history.effects = [each for each in history.effects if each.task != "/4"]


def _again_after_its_result(history: History) -> None:
    """A process takes the partition, and so has read the result, and calls the handler all the same."""
    history._write(kind="announce", instance="host-12-x", nonce="m", previous_token=0)
    history.pid = 12
    history.now += 10
    history.effect(JOB, "/1", 0, 0, "start", 2)


def _begun_twice(history: History) -> None:
    """The same process, the same number, and nothing between."""
    first = next(effect for effect in history.effects if effect.phase == "start")
    history.effects.insert(1, msgspec.structs.replace(first, at_ns=first.at_ns + 1_000, seen_ns=first.seen_ns + 1_000))


def _early(history: History) -> None:
    at = next(index for index, each in enumerate(history.effects) if (each.place, each.branch) == (1, 1))
    for index in (at, at + 1):
        old = history.effects[index]
        history.effects[index] = msgspec.structs.replace(
            old, seen_ns=old.seen_ns - 40_000_000, at_ns=old.at_ns - 40_000_000
        )


def _too_many_tries(history: History) -> None:
    for offset in (history.find("attempt.succeeded", step="/1"),):
        history.log[offset]["body"]["number"] = 3


def _retried_early(history: History) -> None:
    history.log[history.find("attempt.failed", step="/1")]["body"]["retry_after_ms"] = 5_000


def _undone_in_another_order(history: History) -> None:
    first, second = [index for index, each in enumerate(history.effects) if each.phase == "undo"]
    history.effects[first], history.effects[second] = history.effects[second], history.effects[first]


def _position_ahead(history: History) -> None:
    history.positions.append(Position({(IN, 0): 2}, {(RUNS, 0): 2}))  # the second start is at offset 2


def _not_done(history: History) -> None:
    history.committed = {(IN, 0): 1}


def _open(history: History) -> None:
    del history.log[history.find("run.ended", status="compensated") :]
    del history.times[len(history.log) :]
    history.listed = None


def _listed_otherwise(history: History) -> None:
    assert history.listed is not None
    history.listed[0] = {"status": "running"}


def _bug_survived(history: History) -> None:
    """As the worker's own log lines say it."""

    said = io.StringIO()
    LogObserver(Logs(stream=said)).checkpoint_failed(CheckpointFailed(partition=0, code="HR9003", message="KeyError"))
    history.said = said.getvalue()


SPOILED: list[tuple[str, Callable[[History], None]]] = [
    ("I1", _result_lost),
    ("I1", _start_lost),
    ("I1", _run_and_dead_letter),
    ("I1", _wrong_sum),
    ("I1", _other_answer),
    ("I2", _doubled_without_fault),
    ("I2", _doubled_with_other_bytes),
    ("I3", _second_ending),
    ("I4", _other_key),
    ("I4", _effect_missing),
    ("I5", _again_after_its_result),
    ("I5", _begun_twice),
    ("I7", _early),
    ("I9", _too_many_tries),
    ("I9", _retried_early),
    ("I9", _undone_in_another_order),
    ("I12", _position_ahead),
    ("I14", _not_done),
    ("I14", _open),
    ("I18", _listed_otherwise),
    ("P1", _bug_survived),
]


@pytest.mark.parametrize(("invariant", "spoil"), SPOILED, ids=lambda each: getattr(each, "__name__", each))
def test_what_is_spoiled_is_found(invariant: str, spoil: Callable[[History], None]) -> None:
    history = History()
    spoil(history)
    assert invariant in {violation.invariant for violation in history.judged()}, history.judged()


def test_an_outcome_under_a_stale_token_counts_for_nothing() -> None:
    history = History()
    history._write(kind="announce", instance="host-12-x", nonce="m", previous_token=0)
    history.outcome(**{"is": "run.ended"}, run=history.runs[JOB.id], status="failed")
    assert history.judged() == []


def test_a_result_that_came_twice_though_a_fault_met_it_in_the_outbox_is_allowed() -> None:
    history = History()
    emitted_ms = history.times[history.find("emitted")]
    history.windows.append(Window("kill", emitted_ms, emitted_ms, fired=True))
    history.results.append(history.results[0]._replace(offset=1))
    assert history.judged() == []


@pytest.mark.parametrize("released", [False, True], ids=["lost", "released"])
def test_a_result_that_came_twice_is_allowed_where_its_owner_was_lost_though_by_no_fault_of_ours(
    released: bool,
) -> None:
    """A machine that stands still for a session's time. One that hands over has its results home."""

    class Moved(History):
        def outcome(self, **body: Any) -> int:
            if body["is"] == "outbox.progress":
                if released:
                    self._write(kind="release", token=self.token, seq=self.seq)
                self.token = self._write(kind="announce", instance="host-12-x", nonce="m", previous_token=0)
                self.seq = 0
            return super().outcome(**body)

    history = Moved()
    assert history.judged() == []
    history.results.append(history.results[0]._replace(offset=1))
    assert {violation.invariant for violation in history.judged()} == ({"I2"} if released else set())


# --- what counts at all ---------------------------------------------------------------------------------------------------


def outcome_of(history: History) -> tuple[str, int, int]:
    """Verdict of a line with this history and one fault, and its figures of quiet times."""
    tally, verdict = Tally(), history.verdict()
    tally.fired, tally.figures, tally.violations = 1, [verdict.figures], list(map(str, verdict.violations))
    outcome = tally.outcome(Line("X", "", _nothing), 1.0)
    return outcome.verdict, outcome.quiet, outcome.quiet_done


async def _nothing(*_: object) -> None: ...


def test_a_line_in_which_all_that_came_in_quiet_times_was_done_counts() -> None:
    assert outcome_of(History()) == ("passed", 2, 2)


def test_a_line_that_works_badly_without_a_fault_is_void() -> None:
    """A producer that is told nothing: whatever came of its record is right, and it says nothing."""
    history = History()
    history.acknowledged.discard(JOB.id)
    assert outcome_of(history) == ("void", 2, 1)


def test_what_a_fault_meets_is_not_asked_for() -> None:
    history = History()
    history.acknowledged.discard(JOB.id)
    history.windows.append(Window("broker kill", T0 - 20, T0 - 8, fired=True))
    assert outcome_of(history) == ("passed", 1, 1)


def test_a_line_without_a_quiet_moment_is_void() -> None:
    history = History()
    history.windows.append(Window("broker kill", T0 - 20, T0 + 5, fired=True))
    assert outcome_of(history) == ("void", 0, 0)


def test_load_is_no_fault() -> None:
    history = History()
    history.windows.append(Window(NO_FAULT, T0 - 20, T0 + 5, fired=True))
    assert outcome_of(history) == ("passed", 2, 2)


def test_a_run_that_ends_otherwise_is_not_done() -> None:
    history = History()
    history.log[history.find("run.ended", status="compensated")]["body"]["status"] = "failed"
    assert outcome_of(history) == ("failed", 2, 1)
