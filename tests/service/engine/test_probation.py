"""Probation: unclean take-overs are counted, and who was being probed at one is struck, by nothing but the log."""

import msgspec

from headrace.service.engine.fold import fold
from headrace.service.engine.folded import Folded
from headrace.service.engine.gate import NO_TOKEN
from headrace.service.engine.instruction import Begin, Probe, Proven
from headrace.service.engine.probation import STRIKES_MAX, TAKEOVERS, WINDOW_MS, Suspect
from headrace.topics.command import Cancel, Resume, Start
from headrace.topics.errors import Cause
from headrace.topics.identity import ClientId
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Outcome,
    ParkReason,
    ProbePassed,
    RunEnded,
    RunParked,
    RunProbed,
    RunStatus,
    TimerArmed,
    TimerFired,
)
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release, RunRecord, decode, encode
from tests.service.engine.driver import BEGAN_MS, empty_state, refold


class Partition:
    """A run log and its state; who owns it is a name."""

    def __init__(self) -> None:
        self.state = empty_state()
        self.log: list[tuple[int, bytes]] = []
        self.now_ms = BEGAN_MS
        self._seq = 0

    def append(self, record: RunRecord) -> Folded:
        value = encode(record)
        self.log.append((self.now_ms, value))
        folded = fold(self.state, self.state.next_offset, self.now_ms, len(value), decode(value))
        assert refold(self.log) == self.state
        return folded

    def announce(self, instance: str) -> None:
        self._seq = 0
        previous = self.state.gate.last
        record = Announce(
            app="a", instance=instance, member=instance, nonce=str(len(self.log)), previous_token=previous, partitions=1
        )
        assert self.append(record).skip is None

    def release(self) -> None:
        self.append(Release(token=self.state.gate.token, seq=self._seq, attempts=(), grace_ms=0))

    def outcome(self, body: Outcome) -> Folded:
        folded = self.append(OutcomeRecord(token=self.state.gate.token, seq=self._seq, body=body))
        assert folded.skip is None
        self._seq += 1
        return folded

    def start(self) -> str:
        start = Start(namespace="default", workflow="w", version="1", input=msgspec.Raw(b"1"))
        (begin,) = self.append(CommandRecord(id=ClientId(f"c{len(self.log)}"), body=start)).instructions
        assert isinstance(begin, Begin)
        return begin.run.id

    def deaths(self, count: int) -> None:
        """So many owners die, one after the other, and another one takes over."""
        for _ in range(count):
            self.announce(f"owner-{len(self.log)}")

    @property
    def probing(self) -> bool:
        return self.state.probation.probing(self.now_ms)


def owned() -> Partition:
    partition = Partition()
    partition.announce("first")
    return partition


def succeeded(run: str, step: str = "/1/work") -> AttemptSucceeded:
    return AttemptSucceeded(
        run=run, step=step, handler="work", number=1, result=msgspec.Raw(b"1"), started_at_ms=0, duration_ms=1.0
    )


def failed(run: str, retry_after_ms: int | None) -> AttemptFailed:
    return AttemptFailed(
        run=run,
        step="/1/work",
        handler="work",
        number=1,
        cause=Cause.RAISED,
        error="ValueError",
        message="",
        started_at_ms=0,
        duration_ms=1.0,
        retry_after_ms=retry_after_ms,
    )


def struck(partition: Partition, run: str, times: int) -> None:
    """The run is being probed at so many deaths."""
    for _ in range(times):
        partition.outcome(RunProbed(run=run))
        partition.deaths(1)


# --- unclean take-overs ------------------------------------------------------------------------------------------------


def test_from_the_third_unclean_take_over_on_runs_are_probed() -> None:
    partition = owned()
    for _ in range(TAKEOVERS - 1):
        partition.deaths(1)
        assert not partition.probing
    partition.deaths(1)
    assert partition.probing


def test_a_take_over_after_a_release_is_clean() -> None:
    partition = owned()
    partition.deaths(TAKEOVERS - 1)
    for _ in range(5):
        partition.release()
        partition.deaths(1)
    assert len(partition.state.probation.unclean) == TAKEOVERS - 1
    assert not partition.probing


def test_an_owner_that_announces_anew_has_not_died() -> None:
    partition = owned()
    for _ in range(5):
        partition.announce("first")
    assert partition.state.probation.unclean == []


def test_an_announce_that_does_not_count_is_no_take_over() -> None:
    partition = owned()
    for _ in range(5):
        late = Announce(app="a", instance="late", member="m", nonce="n", previous_token=NO_TOKEN, partitions=1)
        assert partition.append(late).skip is not None
    assert partition.state.probation.unclean == []
    assert partition.state.probation.owner == "first"


def test_only_what_happened_within_the_window_counts() -> None:
    partition = owned()
    partition.deaths(TAKEOVERS)
    partition.now_ms += WINDOW_MS
    assert partition.probing
    partition.now_ms += 1
    assert not partition.probing
    partition.deaths(TAKEOVERS - 1)
    assert not partition.probing
    partition.deaths(1)
    assert partition.probing


# --- trials ------------------------------------------------------------------------------------------------------------


def test_a_probe_that_was_read_back_asks_for_the_run_to_be_woken() -> None:
    partition = owned()
    run = partition.start()
    assert partition.outcome(RunProbed(run=run)).instructions == [Probe(run)]
    assert partition.state.probation.suspects == {run: Suspect(token=0)}


def test_who_was_being_probed_at_an_unclean_take_over_is_struck() -> None:
    partition = owned()
    run, other = partition.start(), partition.start()
    struck(partition, run, 2)
    assert partition.state.probation.strikes(run) == 2
    assert partition.state.probation.strikes(other) == 0


def test_a_release_and_an_announce_of_the_same_owner_strike_nobody() -> None:
    partition = owned()
    run = partition.start()
    partition.outcome(RunProbed(run=run))
    partition.announce("first")
    partition.outcome(RunProbed(run=run))
    partition.release()
    partition.deaths(1)
    assert partition.state.probation.suspects == {}


def test_strikes_are_kept_while_the_run_is_not_probed() -> None:
    partition = owned()
    run = partition.start()
    struck(partition, run, 1)
    partition.deaths(5)
    partition.release()
    partition.deaths(1)
    assert partition.state.probation.suspects == {run: Suspect(strikes=1)}


def test_progress_proves_a_run_and_takes_its_strikes_away() -> None:
    proofs = (
        succeeded,
        lambda run: failed(run, None),
        lambda run: TimerArmed(run=run, step="/1/sleep", due_at_ms=1),
        lambda run: ProbePassed(run=run),
        lambda run: RunEnded(run=run, status=RunStatus.SUCCEEDED),
        lambda run: RunParked(run=run, reason=ParkReason.NONDETERMINISTIC),
    )
    for proof in proofs:
        partition = owned()
        run = partition.start()
        struck(partition, run, 2)
        partition.outcome(RunProbed(run=run))
        assert Proven(run) in partition.outcome(proof(run)).instructions
        assert partition.state.probation.suspects == {}
        partition.deaths(1)
        assert partition.state.probation.suspects == {}


def test_what_is_not_the_runs_own_doing_proves_nothing() -> None:
    partition = owned()
    run, other = partition.start(), partition.start()
    partition.outcome(RunProbed(run=run))
    for outcome in (
        failed(run, 100),  # the task tries again; it may not be the deadly one
        TimerFired(run=run, step="/timeout", due_at_ms=BEGAN_MS),  # the code has not seen it yet
        succeeded(other),
        succeeded("0.0123456789abcdef0123"),
    ):
        folded = partition.outcome(outcome)
        assert not any(isinstance(each, Proven) for each in folded.instructions)
    assert run in partition.state.probation.suspects


def test_a_result_that_comes_too_late_proves_nothing() -> None:
    partition = owned()
    run = partition.start()
    partition.outcome(succeeded(run))
    partition.outcome(RunProbed(run=run))
    assert partition.outcome(succeeded(run)).without_effect
    assert run in partition.state.probation.suspects


def test_a_probe_of_a_run_that_is_gone_leaves_nothing_behind() -> None:
    partition = owned()
    assert partition.outcome(RunProbed(run="0.0123456789abcdef0123")).instructions
    assert partition.state.probation.suspects == {}


# --- parked as poison --------------------------------------------------------------------------------------------------


def poisoned() -> tuple[Partition, str]:
    partition = owned()
    run = partition.start()
    struck(partition, run, STRIKES_MAX)
    folded = partition.outcome(RunParked(run=run, reason=ParkReason.POISON))
    assert folded.instructions[0] == Proven(run)
    return partition, run


def test_a_run_parked_as_poison_that_is_resumed_has_one_more_try() -> None:
    partition, run = poisoned()
    partition.append(CommandRecord(id=ClientId("resume"), body=Resume(run=run)))
    assert partition.state.probation.strikes(run) == STRIKES_MAX - 1
    struck(partition, run, 1)
    assert partition.state.probation.strikes(run) == STRIKES_MAX


def test_a_run_parked_as_poison_that_proves_itself_after_all_is_like_any_other() -> None:
    partition, run = poisoned()
    partition.append(CommandRecord(id=ClientId("resume"), body=Resume(run=run)))
    partition.outcome(RunProbed(run=run))
    partition.outcome(succeeded(run))
    assert partition.state.probation.suspects == {}


def test_a_run_parked_as_poison_can_be_cancelled() -> None:
    partition, run = poisoned()
    partition.append(CommandRecord(id=ClientId("cancel"), body=Cancel(run=run)))
    partition.outcome(RunEnded(run=run, status=RunStatus.CANCELLED))
    assert not partition.state.runs
    assert partition.state.probation.suspects == {}
