"""Runs as bytes: whoever folds, compares or looks need not know which are packed."""

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.service.engine.fold import fold
from headrace.service.engine.instruction import Begin, Queued
from headrace.service.engine.open_runs import OpenRuns
from headrace.service.engine.run_bytes import pack, restore, shrink, unpack
from headrace.service.engine.run_state import RunState
from headrace.service.engine.state import PartitionState
from headrace.topics.command import Cancel, SourceRecord, Start
from headrace.topics.event import EventMeta
from headrace.topics.identity import ClientId, Coordinates, run_id
from headrace.topics.outcome import Emitted, RunEnded
from headrace.topics.run_record import OutcomeRecord, decode
from tests.service.engine.driver import empty_state, refold
from tests.service.engine.test_restart import history
from tests.service.test_live_run import state_of

seeds = st.integers(0, 2**32)
many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def pack_some(state: PartitionState, chance: Random, share: float) -> None:
    for run in state.runs:
        if chance.random() < share:
            chance.choice([state.runs.pack, state.runs.shrink])(run)


@many
@given(seeds, st.sampled_from([0.3, 1.0]))
def test_packing_at_any_moment_changes_nothing(seed: int, share: float) -> None:
    log = history(seed).log
    chance = Random(seed)
    plain, packed = empty_state(), empty_state()
    for offset, (at_ms, value) in enumerate(log):
        one = fold(plain, offset, at_ms, len(value), decode(value))
        other = fold(packed, offset, at_ms, len(value), decode(value))
        assert one == other
        pack_some(packed, chance, share)
        assert packed == plain
        assert list(packed.runs) == list(plain.runs)
    assert packed == refold(log)


@many
@given(seeds)
def test_bytes_give_back_the_same_run_and_the_same_bytes(seed: int) -> None:
    log = history(seed).log
    state = empty_state()
    for offset, (at_ms, value) in enumerate(log):
        fold(state, offset, at_ms, len(value), decode(value))
        for run in state.runs.values():
            packed = pack(run)
            assert unpack(packed) == run
            assert pack(unpack(packed)) == packed
            small = shrink(packed)
            assert restore(small) == packed
            assert shrink(small) == small
            assert len(small) <= len(packed)


def test_every_field_of_a_start_survives() -> None:
    run = state_of(
        "w",
        key="k-\u00e9\u0000",
        traceparent="00-a",
        record=SourceRecord(b"\xff", None, (("h", b"\x00\x01"),), 7),
    )
    run.identity = Coordinates(1, "orders", 2, 3, "n", 4)
    run.id = run_id(0, run.identity)
    run.settled = {f"/{number}/work" for number in range(50)}
    again = unpack(pack(run))
    assert again == run
    assert bytes(again.start.input) == bytes(run.start.input)


def test_what_is_asked_for_is_live_and_what_is_looked_at_is_not() -> None:
    run = state_of("w")
    runs = OpenRuns([run])
    runs.pack(run.id)
    assert runs.is_packed(run.id)
    for look in runs.values():
        look.joined += 1  # of the copy
    assert runs.is_packed(run.id)
    found = runs.get(run.id)
    assert found is not None
    assert found == run
    assert found is not run
    assert found is runs[run.id]
    assert found.joined == 0
    found.joined = 3
    runs.pack(run.id)
    assert runs[run.id].joined == 3


def test_equality_sees_through_the_bytes() -> None:
    one, other = state_of("w"), state_of("w")
    left, right = OpenRuns([one]), OpenRuns([other])
    left.pack(one.id)
    assert left == right
    assert right == left
    right.pack(other.id)
    assert left == right
    right[other.id].joined = 1
    assert left != right
    del right[other.id]
    assert left != right
    assert not right


def test_runs_travel_as_bytes() -> None:
    one = state_of("w")
    runs = OpenRuns([one])
    again = OpenRuns()
    for run, packed in runs.packed():
        again.put_packed(run, packed)
    assert again == runs
    assert not runs.is_packed(one.id)
    assert again.packed_of(one.id) == runs.packed_of(one.id) == pack(one)


def test_unknown_runs_are_unknown() -> None:
    runs = OpenRuns()
    assert runs.get("0.x") is None
    assert "0.x" not in runs
    runs.pack("0.x")
    assert not runs.is_packed("0.x")
    with pytest.raises(KeyError):
        runs["0.x"]
    with pytest.raises(KeyError):
        runs.packed_of("0.x")
    with pytest.raises(KeyError):
        del runs["0.x"]


# --- starts that are left in the log ----------------------------------------------------------------------------------


def fresh(n: int, **options: Any) -> RunState:
    run = state_of("w", key=f"k{n}", event=EventMeta("e", "/s", "t", "orders", 1, n), **options)
    run.identity = ClientId(f"c{n}")
    run.id = run_id(0, run.identity)
    run.offset = 100 + n
    return run


def test_a_start_that_is_left_is_equal_to_itself_and_comes_back_whole() -> None:
    whole, runs = OpenRuns([fresh(1), fresh(2)]), OpenRuns([fresh(1), fresh(2)])
    first, second = runs
    start = runs[second].start
    assert runs.leave(second)
    assert runs.left == {second: 102}
    assert runs.left_bytes == 10
    assert runs.oldest_left() == 102
    assert runs == whole
    assert whole == runs
    looked = runs.look(second)
    assert looked is not None
    assert looked.left
    assert looked.start.event is not None
    assert (looked.start.workflow, looked.start.key, looked.start.event.topic) == ("w", "k2", "orders")
    assert not runs.leave(second)
    runs[second].joined = 1
    assert runs != whole
    runs[second].joined = 0
    runs.give_back(second, start)
    runs.give_back(first, start)  # was never left
    assert (runs.left, runs.left_bytes, runs.oldest_left()) == ({}, 0, None)
    assert runs[first] == fresh(1)
    assert runs[second] == fresh(2)


def test_two_starts_are_not_equal_because_both_are_left() -> None:
    one, other = OpenRuns([fresh(1)]), OpenRuns([fresh(1)])
    (run,) = one
    other[run].offset = 7
    assert one.leave(run)
    assert one != other
    assert other.leave(run)
    assert one != other


def test_only_a_start_to_which_nothing_has_happened_and_that_the_log_keeps_can_be_left() -> None:
    runs = OpenRuns([fresh(1), fresh(2), fresh(3)])
    first, second, third = runs
    runs[first].history.append((Cancel(run=first), 5))
    runs.readable_from = 103
    assert [runs.leave(run) for run in (first, second, third, "0.x")] == [False, False, True, False]
    del runs[third]
    assert (runs.left, runs.left_bytes) == ({}, 0)


@many
@given(seeds)
def test_leaving_starts_in_the_log_changes_nothing_that_is_folded(seed: int) -> None:
    """Every fresh run is left at once, and given back before what only a run that was woken can do: emit, and end."""
    log = history(seed).log
    plain, state = empty_state(), empty_state()
    starts: dict[str, Start] = {}
    for offset, (at_ms, value) in enumerate(log):
        record = decode(value)
        if isinstance(record, OutcomeRecord) and isinstance(record.body, Emitted | RunEnded):
            run = record.body.run
            state.runs.give_back(run, starts.get(run) or fresh(0).start)
        fold(plain, offset, at_ms, len(value), record)
        folded = fold(state, offset, at_ms, len(value), record)
        for instruction in folded.instructions:
            if isinstance(instruction, Begin | Queued) and not instruction.run.left:
                starts[instruction.run.id] = instruction.run.start
                state.runs.leave(instruction.run.id)
        assert state == plain


def test_packing_all_finds_old_and_new_ones() -> None:
    """Those that are live are the newest, which were never packed, and old ones that somebody asked for."""
    state = empty_state()
    runs = [state_of("order") for _ in range(20)]
    for number, run in enumerate(runs):
        run.id = f"0.{number:020}"
    for run in runs[:10]:
        state.runs[run.id] = run
    state.runs.pack_all()
    assert state.runs.live_count == 0
    assert state.runs.get(runs[3].id) == runs[3]
    for run in runs[10:]:
        state.runs[run.id] = run
    assert state.runs.live_count == 11
    state.runs.pack_all()
    assert state.runs.live_count == 0
    assert all(state.runs.is_packed(run.id) for run in runs)
    assert list(state.runs.values()) == runs
