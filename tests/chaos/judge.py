"""The judge: topics, effects and public interfaces against the oracle. Each finding names its invariant of reliability.md.

Safety (I1 to I7, I9, I11, I12) holds whatever happened; liveness (I14) is asked after everything was healed. A finding is
a sentence; an empty list is a pass. Nothing is averaged and nothing tried again.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from tests.chaos.load import Input, Try
from tests.chaos.program import Expected, expected
from tests.chaos.recorder import At, Record
from tests.chaos.run_log import CLOSED, RunFacts, RunLog
from tests.chaos.sink import Effect

NO_FAULT = "load"
"""The kind of a window in which nothing is harmed."""
_CLOCK_MS = 2  # append times are cut to milliseconds


class Window(NamedTuple):
    """A fault, from when to when by this machine's clock. `fired`: it hit real work."""

    kind: str
    began_ms: float
    ended_ms: float
    fired: bool


class Position(NamedTuple):
    """A look at the committed positions, and the ends of the run log just after it."""

    committed: Mapping[At, int]
    ends: Mapping[At, int]


class Violation(NamedTuple):
    """What is wrong."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


class Evidence(msgspec.Struct, kw_only=True):
    """All that the judge sees of one session."""

    inputs: Mapping[str, Input]
    tries: Mapping[str, Try]
    acknowledged: frozenset[str]
    source: Sequence[Record]
    log: RunLog
    results: Sequence[Record]
    letters: Sequence[Record]
    audit: Sequence[Record]
    effects: Sequence[Effect]
    windows: Sequence[Window]
    positions: Sequence[Position] = ()
    committed: Mapping[At, int]
    source_ends: Mapping[At, int]
    listed: Sequence[Mapping[str, Any]] | None = None
    """`headrace run list -o json`, whole; None: the log was trimmed, so that it cannot know."""
    missed: int = 0
    bugs: Sequence[str] = ()
    """Lines of workers that name a bug of Headrace."""
    worker_clock: bool = True
    """False where workers' clocks were moved: then the sink's is asked."""


class Figures(msgspec.Struct, kw_only=True):
    """What faults left behind and is allowed. `quiet`: inputs that came while no fault was on; `quiet_done`: of these, in and ended as they should."""

    runs: int
    effects: int
    repeated_attempts: int
    duplicates: int
    duplicates_allowed: int
    skipped: dict[str, int]
    repeated_commands: int
    taken: int
    timers: int
    timer_late_ms_p99: float
    timer_late_ms_max: float
    quiet: int
    quiet_done: int


class Verdict(NamedTuple):
    """Findings and figures."""

    violations: list[Violation]
    figures: Figures


def judge(evidence: Evidence) -> Verdict:
    """Everything that can be said about one session."""
    case = _Case(evidence)
    return Verdict(list(case.findings()), case.figures())


class _Case:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.log = evidence.log
        self.by_run: dict[str, list[Effect]] = defaultdict(list)
        for effect in evidence.effects:
            self.by_run[effect.run].append(effect)
        self.results: dict[str, list[Record]] = defaultdict(list)
        for record in evidence.results:
            self.results[record.header("ce_id")].append(record)
        self.result_of: dict[str, str] = {}  # run: result id
        for id_ in self.results:
            self.result_of.setdefault(id_[: _run_length(id_)], id_)
        self.jobs = list(self._jobs())
        self.late_ms: list[float] = []
        self.duplicates_allowed = 0

    def findings(self) -> Iterator[Violation]:
        checks: list[tuple[str, Callable[[], Iterator[str]]]] = [
            ("I1", self._each_input_once),
            ("I1", self._each_result_right),
            ("I2", self._duplicates),
            ("I3", self._one_ending),
            ("I4", self._effects),
            ("I5", self._nothing_after_its_result),
            ("I6", self._order_of_keys),
            ("I7", self._timers),
            ("I9", self._retries_and_undos),
            ("I12", self._positions),
            ("I14", self._all_done),
            ("I18", self._listed),
            ("P1", self._no_bug),
        ]
        for invariant, check in checks:
            for what in check():
                yield Violation(invariant, what)

    def figures(self) -> Figures:
        late = sorted(self.late_ms)
        quiet = self._quiet()
        return Figures(
            runs=len(self.log.runs),
            effects=len(self.evidence.effects),
            repeated_attempts=self._repeated(),
            duplicates=len(self.evidence.results) - len(self.results),
            duplicates_allowed=self.duplicates_allowed,
            skipped=dict(self.log.skipped),
            repeated_commands=self.log.repeated_commands,
            taken=self.log.all_taken(),
            timers=len(late),
            timer_late_ms_p99=late[int(len(late) * 0.99)] if late else 0.0,
            timer_late_ms_max=late[-1] if late else 0.0,
            quiet=len(quiet),
            quiet_done=len(quiet & self._done()),
        )

    def _jobs(self) -> Iterator[tuple[Record, Input, Expected, RunFacts | None]]:
        """Every job in the source topic, with what must become of it and its run, if it has one."""
        for record in self.evidence.source:
            meant = self.evidence.inputs[record.header("ce_id")]
            if meant.job is not None:
                runs = self.log.by_source.get((*record.at, record.offset), [])
                yield record, meant, expected(meant.job), self.log.runs[runs[0]] if runs else None

    # --- what counts ---

    def _quiet(self) -> set[str]:
        """Inputs whose put met no fault."""
        faults = [window for window in self.evidence.windows if window.kind != NO_FAULT]
        return {
            id_
            for id_, put in self.evidence.tries.items()
            if not any(put.began_ms <= fault.ended_ms and put.ended_ms >= fault.began_ms for fault in faults)
        }

    def _done(self) -> set[str]:
        """Inputs that their producer knows to be in, and whose runs came to the end that they should."""
        otherwise = {
            meant.id
            for _, meant, wanted, run in self.jobs
            if run is None or wanted.status != (run.ended[0][1] if run.ended else "parked" if run.parked else "hanging")
        }
        return set(self.evidence.acknowledged - otherwise)

    # --- I1 ---

    def _each_input_once(self) -> Iterator[str]:
        in_topic = Counter(record.header("ce_id") for record in self.evidence.source)
        for id_ in self.evidence.acknowledged - set(in_topic):
            yield f"input {id_} was acknowledged to its producer and is not in the topic"
        letters = Counter(
            (
                each.header("headrace-dlq-topic"),
                each.header("headrace-dlq-partition"),
                each.header("headrace-dlq-offset"),
            )
            for each in self.evidence.letters
        )
        unmatched = _unmatched(self.evidence.audit)
        for record in self.evidence.source:
            meant = self.evidence.inputs[record.header("ce_id")]
            where = (*record.at, record.offset)
            found = {
                "run": len(self.log.by_source.get(where, [])),
                "dead letter": int(letters[record.at[0], str(record.at[1]), str(record.offset)] > 0),
                "unmatched": int(where in unmatched),
            }
            wanted = {"malformed": "dead letter", "unmatched": "unmatched"}.get(meant.what, "run")
            if found != {name: int(name == wanted) for name in found}:
                yield f"input {meant.id} at {where} should be one {wanted} and is {found}"
        for foreign in self.log.foreign_outcomes[:5]:
            yield f"an outcome of a run that nobody started: {foreign}"
        if self.evidence.missed:
            yield f"{self.evidence.missed} records of the run log were trimmed before the judge saw them: void"

    def _each_result_right(self) -> Iterator[str]:
        known = {run.id for _, _, _, run in self.jobs if run is not None}
        for run_id, result_id in self.result_of.items():
            if run_id not in known:
                yield f"result {result_id} belongs to no run"
        for _, meant, wanted, run in self.jobs:
            if run is None:
                continue
            result = self.result_of.get(run.id)
            ending = run.ended[0][1] if run.ended else "parked" if run.parked else "open"
            if ending not in {"open", wanted.status}:
                yield f"{meant.id} ({run.id}) is {ending} {run.ended[0][2] if run.ended else ''} and should be {wanted.status}"
            if result is None:
                if wanted.status == ending == "succeeded":
                    yield f"{meant.id} ({run.id}) succeeded without a result in its topic"
                continue
            if wanted.status != "succeeded":
                yield f"{meant.id} ({run.id}) has the result {result} and should be {wanted.status}"
                continue
            said = msgspec.json.decode(self.results[result][0].value or b"null")
            if (said["id"], said["sum"]) != (meant.id, wanted.sum):
                yield f"{meant.id} ({run.id}) answered {said['sum']} and should {wanted.sum}"
            recorded = {
                (answer.result["place"], answer.result["branch"]): answer.result["chance"]
                for answer in run.succeeded.values()
                if isinstance(answer.result, dict)
            }
            for part in said["done"]:
                if recorded.get((part["place"], part["branch"])) != part["chance"]:
                    yield f"{meant.id} ({run.id}) went on with another result of {part['place']}/{part['branch']} than the log has first"

    # --- I2 ---

    def _duplicates(self) -> Iterator[str]:
        allowed_in_all = sum(self._times_met(run, step) for run in self.log.runs.values() for step in run.emitted)
        self.duplicates_allowed = allowed_in_all
        doubled = 0
        for id_, copies in self.results.items():
            if len({(copy.key, copy.value, copy.headers) for copy in copies}) > 1:
                yield f"result {id_} came {len(copies)} times with different bytes"
            if len(copies) > 1:
                doubled += len(copies) - 1
                if not self._was_in_flight(id_):
                    yield f"result {id_} came {len(copies)} times though no fault met it in the outbox"
        if doubled > allowed_in_all:
            yield f"{doubled} physical duplicates; {allowed_in_all} results were in flight at the faults"

    def _was_in_flight(self, id_: str) -> bool:
        run = self.log.runs.get(id_[: _run_length(id_)])
        return run is not None and self._times_met(run, id_[len(run.id) :]) > 0

    def _times_met(self, run: RunFacts, step: str) -> int:
        """By how many faults a result was met in the outbox, and by how many changes of owner after the first of them.

        A change without a release counts always: the owner before was lost, though we did nothing (a machine that stands still).
        """
        windows = self.evidence.windows
        emitted_ms = run.emitted.get(step, float("inf")) - _CLOCK_MS
        left_ms = self.log.left.get(f"{run.id}{step}", float("inf")) + _CLOCK_MS
        first_ms = min((window.began_ms for window in windows), default=float("inf"))
        taken = self.log.taken(run.partition)
        return sum(emitted_ms <= window.ended_ms and left_ms >= window.began_ms for window in windows) + sum(
            emitted_ms <= each.at_ms <= left_ms and (each.at_ms >= first_ms or not each.handed_over) for each in taken
        )

    # --- I3 ---

    def _one_ending(self) -> Iterator[str]:
        for run in self.log.runs.values():
            if len(run.ended) > 1:
                yield f"{run.id} has {len(run.ended)} terminal records: {run.ended}"
            if run.emitted_after_end:
                yield f"{run.id} emitted after its end"

    # --- I4 ---

    def _effects(self) -> Iterator[str]:
        keys: dict[tuple[str, str], set[str]] = defaultdict(set)
        tasks: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for effect in self.evidence.effects:
            keys[effect.run, effect.task].add(effect.key)
            tasks[effect.key].add((effect.run, effect.task))
        yield from (
            f"task {task} was attempted with the keys {sorted(each)}" for task, each in keys.items() if len(each) > 1
        )
        yield from (f"key {key} was given to the tasks {sorted(each)}" for key, each in tasks.items() if len(each) > 1)
        for _, meant, wanted, run in self.jobs:
            effects = [] if run is None else self.by_run[run.id]
            begun = {(effect.place, effect.branch) for effect in effects if effect.phase == "start"}
            if begun - wanted.tasks - wanted.optional:
                yield f"{meant.id}: tasks that it does not have: {sorted(begun - wanted.tasks - wanted.optional)}"
            if run is not None and run.ended and wanted.tasks - begun:
                yield f"{meant.id} ({run.id}) ended without the effects of {sorted(wanted.tasks - begun)}"
            distinct = len({effect.key for effect in effects if effect.phase == "start"})
            if distinct != len(begun):
                yield f"{meant.id}: {distinct} keys for {len(begun)} tasks"
        strangers = set(self.by_run) - set(self.log.runs)
        yield from (f"effects of {run}, which was never started" for run in sorted(strangers)[:5])

    # --- I5 ---

    def _nothing_after_its_result(self) -> Iterator[str]:
        for run in self.log.runs.values():
            taken = self.log.taken(run.partition)
            tokens = {each.token: each.pid for each in taken}
            by_pid: dict[int, list[tuple[int, int]]] = defaultdict(list)
            for each in taken:
                by_pid[each.pid].append((each.at_ms, each.token))
            for effect in self.by_run[run.id]:
                answer = run.succeeded.get(_step_of(effect))
                if answer is None or effect.phase == "end":
                    continue
                began_ms = (effect.at_ns if self.evidence.worker_clock else effect.seen_ns) / 1e6
                own = by_pid[effect.pid]
                newest = bisect_right(own, (began_ms - _CLOCK_MS, 1 << 62)) - 1
                if newest >= 0 and own[newest][1] > answer.offset:
                    yield (
                        f"{effect.task} of {run.id} began in process {effect.pid} after it had taken the partition at "
                        f"{own[newest][1]} and so read the task's result at {answer.offset}"
                    )
                elif (
                    tokens.get(answer.token) == effect.pid
                    and began_ms > answer.at_ms + _CLOCK_MS
                    and answer.token != CLOSED
                ):
                    yield f"{effect.task} of {run.id} began again in process {effect.pid}, which had its result"
        for key, begun in _began(self.evidence.effects).items():
            yield from (f"{key}: {what}" for what in self._begun_twice(begun))

    def _begun_twice(self, begun: Sequence[Effect]) -> Iterator[str]:
        """One process begins an attempt once a tenure. One that took its partition anew between may have lost what the first came to."""
        newest: dict[tuple[int, int], float] = {}
        for effect in begun:
            now_ms = (effect.at_ns if self.evidence.worker_clock else effect.seen_ns) / 1e6
            before_ms = newest.get((effect.pid, effect.number))
            newest[effect.pid, effect.number] = now_ms
            run = self.log.runs.get(effect.run)
            if before_ms is None or run is None:
                continue
            taken = (each.at_ms for each in self.log.taken(run.partition) if each.pid == effect.pid)
            if not any(before_ms - _CLOCK_MS <= at_ms <= now_ms + _CLOCK_MS for at_ms in taken):
                yield f"process {effect.pid} began attempt {effect.number} twice in one tenure"

    # --- I6 ---

    def _order_of_keys(self) -> Iterator[str]:
        groups: dict[str, list[tuple[RunFacts, Record, Input]]] = defaultdict(list)
        for record, meant, _, run in self.jobs:
            if meant.what == "turn" and meant.job is not None and run is not None:
                groups[meant.job.group].append((run, record, meant))
        for group, members in groups.items():
            members.sort(key=lambda member: member[0].offset)
            placed = [record for _, record, meant in members if meant.ordered]
            if any(a.at == b.at and a.offset > b.offset for a, b in pairwise(placed)):
                yield f"group {group}: starts are not in the order of the source"
            for (before, *_), (after, *_) in pairwise(members):
                if before.parked or after.first_outcome < 0:
                    continue
                if not before.ended or before.ended[0][0] > after.first_outcome:
                    yield f"group {group}: {after.id} began before {before.id} had ended"
            first = {
                run.id: self.results[result][0].offset
                for run, _, _ in members
                if (result := self.result_of.get(run.id)) is not None
            }
            left = [first[run.id] for run, _, _ in members if run.id in first]
            if left != sorted(left):
                yield f"group {group}: results left in another order than their runs began"

    # --- I7 ---

    def _timers(self) -> Iterator[str]:
        for run in self.log.runs.values():
            for due_ms, at_ms in run.fired.values():
                self.late_ms.append(at_ms - due_ms)
        for _, meant, _, run in self.jobs:
            if run is None or meant.job is None:
                continue
            for place, (verb, ms, _) in enumerate(meant.job.program):
                if verb != "nap":
                    continue
                effects = [effect for effect in self.by_run[run.id] if effect.place == place]
                ends = [effect.seen_ns for effect in effects if (effect.branch, effect.phase) == (0, "end")]
                begins = [effect.seen_ns for effect in effects if (effect.branch, effect.phase) == (1, "start")]
                if begins and (not ends or min(begins) / 1e6 < min(ends) / 1e6 + ms - _CLOCK_MS):
                    slept = (min(begins) - min(ends)) / 1e6 if ends else 0
                    yield f"{meant.id} ({run.id}) slept {slept:.1f} ms instead of {ms} at {place}"

    # --- I9 ---

    def _retries_and_undos(self) -> Iterator[str]:
        for _, meant, wanted, run in self.jobs:
            if run is None:
                continue
            effects = self.by_run[run.id]
            for step, answers in run.failed.items():
                numbers = sorted({answer.number for answer in answers})
                if numbers != list(range(1, len(numbers) + 1)):
                    yield f"{run.id}{step}: attempts {numbers} failed"
                first = {
                    answer.number: answer for answer in reversed(answers)
                }  # a repetition of an attempt may fail again
                for answer in first.values():
                    yield from self._spacing(run, step, answer.number, answer.at_ms + (answer.retry_after_ms or 0))
            succeeded = {
                (answer.result["place"], answer.result["branch"]): answer.number
                for answer in run.succeeded.values()
                if isinstance(answer.result, dict)
            }
            for place, branch, number in wanted.retried:
                if succeeded.get((place, branch), number) != number:
                    yield f"{meant.id}: {place}/{branch} succeeded at attempt {succeeded[place, branch]} and should at {number}"
            undone = list(dict.fromkeys(effect.place for effect in effects if effect.phase == "undo"))
            if undone != list(wanted.undone)[: len(undone)] or (run.ended and len(undone) != len(wanted.undone)):
                yield f"{meant.id} ({run.id}) undid {undone} and should {list(wanted.undone)}"

    def _spacing(self, run: RunFacts, step: str, number: int, not_before_ms: int) -> Iterator[str]:
        for effect in self.by_run[run.id]:
            again = effect.phase == "start" and effect.number == number + 1 and _step_of(effect) == step
            if again and effect.seen_ns / 1e6 < not_before_ms - _CLOCK_MS:
                yield f"{run.id}{step}: attempt {number + 1} began {not_before_ms - effect.seen_ns / 1e6:.0f} ms early"

    # --- I12, I14, I18 ---

    def _positions(self) -> Iterator[str]:
        unmatched = _unmatched(self.evidence.audit)
        for position in self.evidence.positions:
            for record in self.evidence.source:
                if record.offset >= position.committed.get(record.at, 0):
                    continue
                meant = self.evidence.inputs[record.header("ce_id")]
                where = (*record.at, record.offset)
                if meant.job is None:
                    if meant.what == "unmatched" and where not in unmatched:
                        yield f"position {position.committed[record.at]} of {record.at} passed {record.offset}, which is nowhere"
                    continue
                if not self.log.recorded_before(where, position.ends):
                    yield f"position {position.committed[record.at]} of {record.at} passed {record.offset}, not in the log yet"

    def _all_done(self) -> Iterator[str]:
        for at, end in self.evidence.source_ends.items():
            if self.evidence.committed.get(at, 0) != end:
                yield f"{at} is done up to {self.evidence.committed.get(at, 0)} of {end}"
        for _, meant, wanted, run in self.jobs:
            if run is not None and not run.ended and not run.parked and wanted.status != "hanging":
                waits = [f"{step} until {due}" for step, due in run.armed.items() if step not in run.fired]
                yield f"{meant.id} ({run.id}) is open; timers {waits}, answers {sorted(run.succeeded)}"
            if run is not None:
                stay = [step for step in run.emitted if f"{run.id}{step}" not in self.log.left]
                if stay and wanted.status == "succeeded":
                    yield f"{meant.id} ({run.id}): {stay} did not leave the outbox"

    def _listed(self) -> Iterator[str]:
        if self.evidence.listed is None:
            return
        here = Counter(
            run.ended[0][1] if run.ended else "parked" if run.parked else "running" for run in self.log.runs.values()
        )
        there = Counter(str(row["status"]) for row in self.evidence.listed)
        if here != there:
            yield f"`run list` says {dict(there)}, the log {dict(here)}"

    def _no_bug(self) -> Iterator[str]:
        """What a worker survives is a bug all the same."""
        yield from (f"a worker tells of a bug: {line[:500]}" for line in self.evidence.bugs)

    def _repeated(self) -> int:
        return sum(
            len(begun) - len({effect.number for effect in begun}) for begun in _began(self.evidence.effects).values()
        )


def bugs_in(said: str) -> list[str]:
    """The lines of a worker's standard error with a code of bugs."""
    return [line for line in said.splitlines() if '"code":"HR9' in line]


def _began(effects: Sequence[Effect]) -> dict[str, list[Effect]]:
    found: dict[str, list[Effect]] = defaultdict(list)
    for effect in effects:
        if effect.phase in {"start", "undo"}:
            found[effect.key].append(effect)
    return found


def _step_of(effect: Effect) -> str:
    return effect.task


def _run_length(result_id: str) -> int:
    slash = result_id.find("/")
    return len(result_id) if slash < 0 else slash


def _unmatched(audit: Sequence[Record]) -> set[tuple[str, int, int]]:
    found: set[tuple[str, int, int]] = set()
    for record in audit:
        said = msgspec.json.decode(record.value or b"null")
        found |= {(said["topic"], said["partition"], offset) for offset in range(said["first"], said["last"] + 1)}
    return found
