"""Where a state begins: random logs with checkpoints of every kind in them, whole and broken, of owners and of zombies, trimmed as far as they allow."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random

import msgspec
import pytest

from headrace.service.engine.checkpoint import dump
from headrace.service.engine.fold import fold
from headrace.service.engine.state import PartitionState
from headrace.service.recovery import LogGap, Recovered, Recovery
from headrace.service.run_view.scan import Reading
from headrace.service.settings import Settings
from headrace.topics.log import Log, NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.outcome import CheckpointChunk
from headrace.topics.run_record import Announce, OutcomeRecord, RunRecord, decode, encode
from headrace.topics.spec import TopicSpec
from tests.service.engine.random_log import TOPIC, Chance, empty
from tests.service.fault_log import FaultLog

AT = TopicPartition(TOPIC, 1)


class WithCheckpoints(Chance):
    """A random log in which owners write checkpoints, some to the end. `complete`: (offset of the first chunk, as_of), oldest first.

    What is drawn is written now and then, and folded once more with the log's own times: that is the state of which checkpoints are made.
    """

    def __init__(self, seed: int, log: Log) -> None:
        super().__init__(seed)
        self.complete: list[tuple[int, int]] = []
        self.records: list[tuple[int, int, RunRecord]] = []  # offset, append time, record
        self.real = empty()
        self._log = log
        self._chunks: list[CheckpointChunk] = []
        self._token = -1
        self._first = -1
        self._old: list[OutcomeRecord] = []  # chunks that a zombie may bring at any time

    async def steps(self, count: int) -> None:
        """So many records, all written."""
        for _ in range(count):
            if self._chunks and self.state.gate.token != self._token:
                self._chunks = []  # the token was lost on the way
            if self.state.gate.token >= 0 and not self._chunks and self.random.random() < 0.05:
                await self._write()
                self._chunks = in_pieces(dump(self.real), self.random.randint(1, 4))
                self._token = self.state.gate.token
            self.step()
        await self._write()

    async def until_complete(self, count: int) -> None:
        """Steps until so many checkpoints are complete; the last record is a last chunk."""
        while len(self.complete) < count:
            await self.steps(1)

    async def _write(self) -> None:
        fresh = await written(self._log, [record for _, record in self.log[len(self.records) :]])
        self.records += fresh
        fold_records(fresh, self.real)

    def record(self) -> RunRecord:
        gate, chance = self.state.gate, self.random
        if self._chunks and gate.token == self._token and chance.random() < 0.6:
            chunk = self._chunks.pop(0)
            if chunk.index == 0:
                self._first = len(self.log)
            if chunk.last:
                self.complete.append((self._first, chunk.as_of))
            self._old.append(OutcomeRecord(gate.token, gate.seq + 1, chunk))
            return self._old[-1]
        if self._old and chance.random() < 0.1:
            return chance.choice(self._old)
        if chance.random() < 0.03:  # a zombie's whole checkpoint, in one chunk
            self._old.append(OutcomeRecord(gate.last - 1, chance.randint(0, 9), dump(self.state)[0]))
            return self._old[-1]
        return super().record()


def in_pieces(chunks: Sequence[CheckpointChunk], count: int) -> list[CheckpointChunk]:
    """A checkpoint of one chunk as one of several."""
    (whole,) = chunks
    size = -(-len(whole.items) // count)
    parts = [whole.items[first : first + size] for first in range(0, len(whole.items), size)]
    return [CheckpointChunk(whole.as_of, index, index == len(parts) - 1, items) for index, items in enumerate(parts)]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    async with EmbeddedLog(tmp_path / "log.sqlite", owner=True) as opened:
        await opened.create([TopicSpec(name=TOPIC, partitions=2)])
        yield opened


async def written(log: Log, records: Sequence[RunRecord]) -> list[tuple[int, int, RunRecord]]:
    """Append the records; (offset, append time, record)."""
    told: list[tuple[int, int, RunRecord]] = []
    for first in range(0, len(records), 500):
        portion = records[first : first + 500]
        appended = await log.append(AT, [NewRecord(encode(record)) for record in portion])
        told += [(appended.base_offset + n, appended.timestamp_ms, record) for n, record in enumerate(portion)]
    return told


async def recover(log: Log, hint: int | None = None) -> Recovered:
    offsets = (await log.offsets([AT]))[AT]
    return await Recovery(log, AT, empty, offsets).newest(hint)


def fold_records(records: Sequence[tuple[int, int, RunRecord]], state: PartitionState) -> PartitionState:
    for offset, at_ms, record in records:
        if offset >= state.next_offset:
            fold(state, offset, at_ms, len(encode(record)), decode(encode(record)))
    return state


@pytest.mark.parametrize("seed", range(40))
async def test_the_newest_checkpoint_and_the_tail_are_the_full_log(seed: int, log: EmbeddedLog) -> None:
    made = WithCheckpoints(seed, log)
    await made.steps(Random(seed).randint(50, 600))
    records = made.records
    whole = fold_records(records, empty())
    as_of = made.complete[-1][1] if made.complete else -1
    for hint in (None, *[first for first, _ in made.complete], 0, 10_000):
        recovered = await recover(log, hint)
        assert fold_records(records, recovered.state) == whole
        if hint in {None, 0, 10_000}:
            assert (recovered.candidate.as_of if recovered.candidate else -1) == as_of
    await log.trim(AT, as_of + 1)
    recovered = await recover(log)
    assert (recovered.candidate.as_of if recovered.candidate else -1) == as_of
    assert fold_records(records, recovered.state) == whole


@pytest.mark.parametrize("seed", range(20))
async def test_a_record_too_many_is_trimmed_and_the_gap_is_named(seed: int, log: EmbeddedLog) -> None:
    """M18: nothing stands between `as_of` and the chunks' own offsets but the log."""
    made = WithCheckpoints(seed, log)
    await made.until_complete(1)
    first, as_of = made.complete[-1]
    await log.trim(AT, as_of + 2)
    for hint in (None, first):
        with pytest.raises(LogGap) as raised:
            await recover(log, hint)
        assert raised.value.code == "HR5112"
        assert f"offset {as_of + 2}" in raised.value.message


def announced() -> tuple[RunRecord, PartitionState]:
    """A log's first record, and a state behind it that makes several items."""
    state, announce = empty(), Announce("test", "i", "m", "n", -1, 3)
    fold(state, 0, 5, 1, announce)
    state.dedupe.clients.update((f"c-{n}", n) for n in range(2_000))
    return announce, state


@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_an_incomplete_checkpoint_counts_for_nothing(missing: int, log: EmbeddedLog) -> None:
    """M19: a chunk is not there. What comes after it has a gap in its seq; or, if seqs go on, in its index."""
    announce, state = announced()
    chunks = in_pieces(dump(state), 3)
    for seqs_go_on in (False, True):
        there = [(n, chunk) for n, chunk in enumerate(chunks) if n != missing]
        records = [OutcomeRecord(0, n if seqs_go_on else seq, chunk) for n, (seq, chunk) in enumerate(there)]
        first = len(await written(log, [announce, *records]))
        for hint in (None, *range(first)):
            assert (await recover(log, hint)).candidate is None


async def test_a_log_full_of_checkpoints_without_an_end_is_read_once(log: EmbeddedLog) -> None:
    """A process that dies while it writes one leaves another at each start: looking for each one's end would take as many times as long."""
    announce, state = announced()
    begun = in_pieces(dump(state), 3)[:2]
    await written(
        log, [announce, *(OutcomeRecord(0, 2 * n + i, chunk) for n in range(9) for i, chunk in enumerate(begun))]
    )
    counting = FaultLog(log)
    offsets = (await log.offsets([AT]))[AT]
    assert (await Recovery(counting, AT, empty, offsets).newest()).candidate is None
    assert counting.reading == [AT]


async def test_a_checkpoint_under_a_token_that_was_lost_counts_for_nothing(log: EmbeddedLog) -> None:
    """M19: all chunks are there, and between two of them somebody took over."""
    announce, state = announced()
    chunks = in_pieces(dump(state), 2)
    taken = Announce("test", "j", "m", "o", 0, 3)
    await written(log, [announce, OutcomeRecord(0, 0, chunks[0]), taken, OutcomeRecord(0, 1, chunks[1])])
    assert (await recover(log, 1)).candidate is None
    await log.trim(AT, 1)
    with pytest.raises(LogGap):
        await recover(log, 1)


async def test_a_checkpoint_of_a_token_that_never_was_counts_for_nothing(log: EmbeddedLog) -> None:
    """M19: whole, from a zombie, and the newest."""
    announce, state = announced()
    (good,), (bad,) = dump(state), in_pieces(dump(state), 1)
    await written(log, [announce, OutcomeRecord(0, 0, good), OutcomeRecord(-1, 0, bad), OutcomeRecord(0, 9, bad)])
    for hint in (None, 1, 2, 3):
        recovered = await recover(log, hint)
        assert recovered.candidate is not None
        assert recovered.candidate.offsets == [1]


@pytest.mark.parametrize(
    "item",
    [b'["run","\xff",{}]', b'["unheard",1]', msgspec.json.encode(["part", b"[" * 100_000, True])],
    ids=["no UTF-8", "unknown", "nested too deeply"],
)
async def test_a_checkpoint_that_cannot_be_decoded_is_passed_over(item: bytes, log: EmbeddedLog) -> None:
    """The log has accepted it; what it says is of no use."""
    made = WithCheckpoints(5, log)
    await made.until_complete(1)
    gate, as_of = made.real.gate, made.real.next_offset - 1
    spoiled = CheckpointChunk(as_of, 0, last=True, items=(msgspec.Raw(item),))
    records = made.records + await written(log, [OutcomeRecord(gate.token, gate.seq + 1, spoiled)])
    recovered = await recover(log, hint=as_of + 1)
    assert fold_records(records, recovered.state) == fold_records(records, empty())
    assert recovered.candidate is not None
    assert recovered.candidate.as_of == made.complete[0][1]


async def test_views_begin_at_the_oldest_checkpoint(log: EmbeddedLog) -> None:
    made = WithCheckpoints(7, log)
    await made.until_complete(3)
    await log.trim(AT, made.complete[0][1] + 1)
    offsets = (await log.offsets([AT]))[AT]
    recovered = await Recovery(log, AT, empty, offsets).oldest()
    assert recovered.candidate is not None
    assert recovered.candidate.as_of == made.complete[0][1] == recovered.state.next_offset - 1
    assert fold_records(made.records, recovered.state) == fold_records(made.records, empty())


async def test_a_view_begins_at_a_checkpoint_that_came_after_the_end_it_knew(log: EmbeddedLog) -> None:
    """The log was trimmed, and its owner went on, between the question where it ends and the first read."""
    made = WithCheckpoints(7, log)
    await made.until_complete(1)
    await log.trim(AT, made.complete[0][1] + 1)
    asked = (await log.offsets([AT]))[AT]
    await made.until_complete(2)
    await log.trim(AT, made.complete[1][1] + 1)
    reading = Reading(AT, Settings(), partitions=3)
    async with aclosing(reading.until(log, asked)) as records:
        assert [seen.offset async for seen in records][:1] == [made.complete[1][1] + 1]
    assert reading.state.next_offset == (await log.offsets([AT]))[AT].end


async def test_an_empty_log_is_a_new_partition(log: EmbeddedLog) -> None:
    recovered = await recover(log, 5)
    assert recovered.candidate is None
    assert recovered.state == empty()
