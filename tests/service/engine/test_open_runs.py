"""Runs as bytes: whoever folds, compares or looks need not know which are packed."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.service.engine.fold import fold
from headrace.service.engine.open_runs import OpenRuns
from headrace.service.engine.run_bytes import pack, unpack
from headrace.service.engine.state import PartitionState
from headrace.topics.command import SourceRecord
from headrace.topics.identity import Coordinates, run_id
from headrace.topics.run_record import decode
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
            state.runs.pack(run)


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
