"""A checkpoint is the state, exactly, however the state goes on while it is made. I10: checkpoint and tail equal the full log."""

from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.service.engine.checkpoint import CHUNK_BYTES, CheckpointUnusable, Chunker, Dump, dump, load
from headrace.service.engine.dedupe import Dedupe, OriginMarks
from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.gate import Gate
from headrace.service.engine.run_state import RunState
from headrace.service.engine.state import KeySlot, PartitionState
from headrace.topics.command import Start
from headrace.topics.identity import ClientId
from headrace.topics.outcome import AttemptSucceeded, CheckpointChunk
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, RunRecord, decode, encode
from tests.service.engine.random_log import empty, ended_with_outputs, fold_all, random_log

seeds = st.integers(0, 2**32)
RECORD_BYTES_MAX = 512 << 10


def over_the_wire(chunks: list[CheckpointChunk]) -> list[CheckpointChunk]:
    """The same chunks, written and read as records."""
    records = [decode(encode(OutcomeRecord(0, seq, chunk))) for seq, chunk in enumerate(chunks)]
    return [record.body for record in records if isinstance(record.body, CheckpointChunk)]  # type: ignore[union-attr]


def restored(state: PartitionState) -> PartitionState:
    return load(over_the_wire(dump(state)), empty())


def orders(state: PartitionState) -> list[list[Any]]:
    """What `==` does not see, and what the shell relies on."""
    slots = {key: list(slot.queued) for key, slot in state.slots.items()}
    return [list(state.runs), list(state.outbox), list(state.dedupe.clients), sorted(slots.items())]


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 400))
def test_a_checkpoint_at_any_offset_and_the_tail_are_the_full_log(seed: int, cut: int) -> None:
    log = random_log(seed, 400)
    state = fold_all(log[:cut])
    loaded = restored(state)
    assert loaded == state
    assert orders(loaded) == orders(state)
    whole = fold_all(log)
    fold_all(log[cut:], loaded)
    assert loaded == whole
    assert orders(loaded) == orders(whole)


def captured_meanwhile(
    log: list[tuple[int, RunRecord]], cut: int, seed: int, *, copy_on_write: bool = True
) -> list[CheckpointChunk]:
    """The chunks of a checkpoint as of `cut` - 1 that was written while the rest of the log was folded, in a random rhythm."""
    state, chance = fold_all(log[:cut]), Random(seed)
    whole = Dump(state)
    chunker = Chunker(whole.as_of)
    chunks: list[CheckpointChunk] = []
    tail: Iterator[tuple[int, RunRecord]] = iter(log[cut:])
    for item in whole.items():
        assert isinstance(item, bytes)
        chunks += chunker.add(item)
        while chance.random() < 0.6 and (following := next(tail, None)) is not None:
            at_ms, record = following
            if copy_on_write:
                whole.before(record)
            fold(state, state.next_offset, at_ms, 100, record)
    return [*chunks, chunker.finish()]


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(50, 350))
def test_what_is_folded_while_a_checkpoint_is_written_is_not_in_it(seed: int, cut: int) -> None:
    log = random_log(seed, 500)
    state = fold_all(log[:cut])
    loaded = load(over_the_wire(captured_meanwhile(log, cut, seed)), empty())
    assert loaded == state
    assert orders(loaded) == orders(state)


def test_without_copy_on_write_the_future_would_be_in_it() -> None:
    wrong = 0
    for seed in range(20):
        log = random_log(seed, 500)
        try:
            loaded = load(captured_meanwhile(log, 250, seed, copy_on_write=False), empty())
        except (CheckpointUnusable, KeyError):
            wrong += 1
        else:
            wrong += loaded != fold_all(log[:250])
    assert wrong > 10


def test_random_logs_have_what_a_checkpoint_must_not_forget() -> None:
    """The tests above mean something: outputs of ended runs, queued starts, given attempts, parked runs, forwards, refusals."""
    seen: set[str] = set()
    for seed in range(30):
        log = random_log(seed, 400)
        state = empty()
        for offset, (at_ms, record) in enumerate(log):
            fold(state, offset, at_ms, 100, record)
            seen.update(type(entry).__name__ for entry in state.outbox.values())
            seen.update(str(run.phase) for run in state.runs.values())
            seen.update(["ended run's output"] if ended_with_outputs(state) else [])
            seen.update(["given"] if state.given else [])
            seen.update(["two in a queue"] if any(len(slot.queued) > 1 for slot in state.slots.values()) else [])
    assert seen == {
        *("Output", "Forward", "Message", "Refusal", "RefusedOutput", "open", "queued", "parked"),
        *("ended run's output", "given", "two in a queue"),
    }


# --- nothing is forgotten ---------------------------------------------------------------------------------------------


def full_states() -> list[PartitionState]:
    """States that between them have something in every field."""
    return [fold_all(random_log(seed, 2_000)[:cut]) for seed in range(4) for cut in (300, 700, 1_500, 2_000)]


def values_of(states: list[PartitionState]) -> dict[type, list[Any]]:
    """All parts of these states by type."""
    return {
        PartitionState: states,
        Gate: [state.gate for state in states],
        Dedupe: [state.dedupe for state in states],
        OriginMarks: [marks for state in states for marks in state.dedupe.origins.values()],
        KeySlot: [slot for state in states for slot in state.slots.values()],
        RunState: [run for state in states for run in state.runs.values()],
    }


def test_every_field_of_the_state_comes_back() -> None:
    """Whoever adds a field gives it a value in some random log, or adds it to `full_states`; then it must survive."""
    states = full_states()
    values = values_of(states)
    back = values_of([restored(state) for state in states])
    untouched: list[str] = []
    for kind, found in values.items():
        for field in msgspec.structs.fields(kind):
            default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
            if all(getattr(one, field.name) == default for one in found):
                untouched.append(f"{kind.__name__}.{field.name}")
            assert [getattr(one, field.name) for one in back[kind]] == [getattr(one, field.name) for one in found]
    assert untouched == ["RunState.left"]  # a checkpoint has no start left in the log


def test_where_pruning_stands_comes_back() -> None:
    state = empty()
    state.dedupe.origins["in", 3] = OriginMarks(
        epoch=2, floor=7, seen=dict.fromkeys(range(2000), ("a", "b")), pruned_at=9
    )
    state.dedupe.clients.update((f"c-{n}", n) for n in range(2_000))
    assert restored(state) == state


def test_values_that_are_only_referred_to_never_change() -> None:
    """`Dump` copies the dicts of the state, not what is in them: dicts of changing values need copy-on-write of their own."""
    for field in msgspec.structs.fields(PartitionState):
        if field.name in {"runs", "slots", "dedupe"} or get_origin(field.type) is not dict:
            continue
        value = get_args(field.type)[1]
        kinds = get_args(value) or (value,)
        assert all(kind in {int, str} or kind.__struct_config__.frozen for kind in kinds), field.name


def test_a_setting_is_the_readers_own() -> None:
    state = fold_all(random_log(1, 300))
    other = new_state(topic=state.topic, partition=1, partitions=3, client_retention_ms=5)
    assert load(dump(state), other).client_retention_ms == 5


# --- sizes ------------------------------------------------------------------------------------------------------------


def with_results(count: int, size: int) -> PartitionState:
    """One open run with large results, and many small ones."""
    state = empty()
    records: list[RunRecord] = [Announce("test", "i", "m", "n", -1, 3)]
    records += [
        CommandRecord(ClientId(f"c-{n}"), Start("default", "a", "1", msgspec.Raw(b'"%s"' % (b"x" * 500))))
        for n in range(2_000)
    ]
    fold_all([(5, record) for record in records], state)
    run = next(iter(state.runs))
    raw = msgspec.Raw(b'"%s"' % (b"y" * size))
    results = [OutcomeRecord(0, n, AttemptSucceeded(run, f"/{n}/a", "h", 1, raw, 5, 1.0)) for n in range(count)]
    return fold_all([(6, record) for record in results], state)


def test_no_chunk_is_larger_than_a_record_may_be() -> None:
    chunks = dump(with_results(8, 400_000))
    assert len(chunks) > 10
    sizes = [len(encode(OutcomeRecord(2**50, 2**50, chunk))) for chunk in chunks]
    assert max(sizes) <= RECORD_BYTES_MAX
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


@pytest.mark.parametrize("size", [CHUNK_BYTES - 2_000, CHUNK_BYTES, 3 * CHUNK_BYTES])
def test_a_run_that_fits_into_no_chunk_comes_back(size: int) -> None:
    state = with_results(2, size)
    assert restored(state) == state


# --- what is no checkpoint --------------------------------------------------------------------------------------------


def test_chunks_that_are_not_all_there_are_refused() -> None:
    chunks = dump(with_results(3, 300_000))
    middle = len(chunks) // 2
    for wrong in (chunks[1:], chunks[:-1], chunks[:middle] + chunks[middle + 1 :], chunks + chunks[-1:], []):
        with pytest.raises(CheckpointUnusable):
            load(wrong, empty())


def test_chunks_of_two_checkpoints_make_none() -> None:
    state = with_results(3, 300_000)
    one = dump(state)
    fold(state, state.next_offset, 9, 1, Announce("test", "i", "m", "o", 0, 3))
    other = dump(state)
    with pytest.raises(CheckpointUnusable):
        load([*one[:2], *other[2:]], empty())


def test_a_checkpoint_of_another_partition_is_refused() -> None:
    chunks = dump(fold_all(random_log(1, 100)))
    with pytest.raises(CheckpointUnusable, match="partition 1"):
        load(chunks, new_state(topic="test.runs", partition=2, partitions=3, client_retention_ms=5))


def test_a_field_that_this_version_does_not_know_is_refused() -> None:
    (chunk,) = dump(empty())
    head = msgspec.json.decode(chunk.items[0])
    head[1]["karma"] = 5
    newer = CheckpointChunk(-1, 0, last=True, items=(msgspec.Raw(msgspec.json.encode(head)),))
    with pytest.raises(CheckpointUnusable, match="karma"):
        load([newer], empty())


def test_dumping_changes_nothing() -> None:
    state = fold_all(random_log(3, 400))
    before = deepcopy(state)
    dump(state)
    assert state == before


def test_a_start_that_another_owners_checkpoint_has_is_not_left_in_the_log() -> None:
    """That owner may have been stopped before it trimmed, and go on at any time: the record may be gone when it is wanted."""
    state = empty()
    announce = Announce("test", "i", "m", "n", -1, 3)
    starts = [CommandRecord(ClientId(f"c-{n}"), Start("default", "a", "1", msgspec.Raw(b"1"))) for n in range(2)]
    fold_all([(5, record) for record in (announce, starts[0])], state)
    (chunk,) = dump(state)
    fold_all([(6, record) for record in (OutcomeRecord(0, 0, chunk), starts[1])], state)
    covered, later = state.runs
    assert not state.runs.leave(covered)
    assert state.runs.leave(later)
