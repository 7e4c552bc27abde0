"""A checkpoint: a partition's whole state as JSON items, made piece by piece while the state goes on, and the way back.

    dump = Dump(state)              as of now
    dump.before(record)             before each record that is folded from now on: what it may change is captured first (copy-on-write)
    for item in dump.items(): ...   one small piece at a time, in any rhythm; `Chunker` cuts them into chunks. A `LeftRun` becomes one with `whole`

    restored = Load(new_state(...)) the same state as it was when `dump` was made
    restored.add(chunk)             every chunk, in order
    restored.finished()

Pure. Items are JSON arrays whose first element says what they are:

    ["head", {field: value}]        plain fields of `PartitionState`
    ["entry", field, [key, value]]  of its dicts of frozen values, in order
    ["slot", key, open, [queued]]
    ["origin", [topic, partition], epoch, floor, pruned_at, [[offset, [n, ...]], ...], newest, newest_ms]   repeated until all marks are there
    ["clients", [[id, at], ...]]
    ["epochs", {topic: epoch}]
    ["redrives", [[id, at], ...]]
    ["run", id, state]              in log order; the bytes of `run_bytes.py`
    ["part", bytes, last]           of one item that does not fit into a chunk
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec

from headrace.service.engine.dedupe import OriginMarks
from headrace.service.engine.run_bytes import pack, unpack
from headrace.service.engine.state import KeySlot, PartitionState
from headrace.service.engine.touched import touched
from headrace.topics.errors import Fatal
from headrace.topics.outcome import CheckpointChunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.topics.command import Start
    from headrace.topics.run_record import RunRecord

CHUNK_BYTES = 256 << 10
"""Of items in one chunk: small enough that normal commits hardly notice one, and far below every limit of a record's size."""
_PART_BYTES = CHUNK_BYTES * 3 // 4 - 64  # Base64 makes four bytes of three
_SAMPLE = 32
_HEAD_BYTES, _SLOT_BYTES, _MARK_BYTES, _ITEM_BYTES = 600, 90, 26, 40  # measured, for estimates
_REDRIVE_BYTES = 90
_MARKS = 512  # dedupe marks or client ids in one item

_IDENTITY = ("topic", "partition", "partitions")
_OF_THE_READER = ("client_retention_ms", "retry_retention_ms")  # settings: every reader has its own
_BY_HAND = ("dedupe", "runs", "slots")


class CheckpointUnusable(Fatal):
    """The chunks make no state: something is missing, of another partition, or unknown to this version."""

    code = "HR5111"


class _Head(msgspec.Struct, array_like=True, tag="head", gc=False):
    fields: dict[str, msgspec.Raw]


class _Entry(msgspec.Struct, array_like=True, tag="entry", gc=False):
    field: str
    entry: msgspec.Raw


class _Slot(msgspec.Struct, array_like=True, tag="slot", gc=False):
    key: tuple[str, str, str]
    open: str
    queued: list[str]


class _Origin(msgspec.Struct, array_like=True, tag="origin", gc=False):
    origin: tuple[str, int]
    epoch: int
    floor: int
    pruned_at: int
    seen: list[tuple[int, tuple[str, ...]]]
    newest: int = -1
    newest_ms: int = 0


class _Clients(msgspec.Struct, array_like=True, tag="clients", gc=False):
    accepted: list[tuple[str, int]]


class _Epochs(msgspec.Struct, array_like=True, tag="epochs", gc=False):
    epochs: dict[str, int]


class _Redrives(msgspec.Struct, array_like=True, tag="redrives", gc=False):
    accepted: list[tuple[str, int]]


class _Run(msgspec.Struct, array_like=True, tag="run", gc=False):
    id: str
    run: msgspec.Raw


class _Part(msgspec.Struct, array_like=True, tag="part", gc=False):
    data: bytes
    last: bool


class LeftRun(msgspec.Struct, frozen=True, gc=False):
    """A run whose start lies in the log alone, as of the dump. A checkpoint has it whole."""

    id: str
    offset: int
    state: bytes

    def whole(self, start: Start) -> bytes:
        """The item, with the start that was read again."""
        run = unpack(self.state)
        run.start, run.left = start, False
        return _encode(_Run(self.id, msgspec.Raw(pack(run))))


_Item = _Head | _Entry | _Slot | _Origin | _Clients | _Epochs | _Redrives | _Run | _Part

_encode = msgspec.json.Encoder().encode
_decode_item = msgspec.json.Decoder(_Item).decode
_PLAIN: dict[str, msgspec.json.Decoder[Any]] = {}
_DICTS: dict[str, msgspec.json.Decoder[Any]] = {}
for _field in msgspec.structs.fields(PartitionState):
    if _field.name in _BY_HAND:
        continue
    if get_origin(_field.type) is dict:
        _DICTS[_field.name] = msgspec.json.Decoder(tuple[get_args(_field.type)])
    else:
        _PLAIN[_field.name] = msgspec.json.Decoder(_field.type)


class Dump:
    """The state as it was when this was made, whatever is folded meanwhile: `before` must be called for every record.

    Making one copies names and references: some 10 ms for a million open runs. `as_of` is the offset of the last record that is in it.
    """

    def __init__(self, state: PartitionState) -> None:
        self.as_of = state.next_offset - 1
        self._state = state
        plain = {name: msgspec.Raw(_encode(getattr(state, name))) for name in _PLAIN if name not in _OF_THE_READER}
        self._head = _encode(_Head(plain))
        self._dicts = {name: dict[Any, Any](getattr(state, name)) for name in _DICTS}  # frozen values: see the tests
        self._slots = dict.fromkeys(state.slots)  # those that are neither captured nor given out; runs likewise
        self._runs = dict.fromkeys(state.runs)
        self._origins = [
            (key, marks.epoch, marks.floor, marks.pruned_at, dict(marks.seen), marks.newest, marks.newest_ms)
            for key, marks in state.dedupe.origins.items()
        ]
        self._clients = dict(state.dedupe.clients)
        self._epochs = dict(state.dedupe.epochs)
        self._redrives = dict(state.dedupe.redrives)
        self._early: dict[str, bytes | LeftRun] = {}
        self._early_slots: dict[tuple[str, str, str], bytes] = {}

    def before(self, record: RunRecord) -> None:
        """This record is about to be folded into the state."""
        changing = touched(self._state, record)
        for id_ in changing.runs:
            if id_ in self._runs and id_ not in self._early:
                self._early[id_] = self._run(id_)
        for slot in changing.slots:
            if slot in self._slots and slot not in self._early_slots:
                self._early_slots[slot] = self._slot(slot)

    def items(self) -> Iterator[bytes | LeftRun]:
        """All items. Each step is short, whatever the state's size, as long as single runs are small."""
        yield self._head
        for name, entries in self._dicts.items():
            for entry in entries.items():
                yield _encode(_Entry(name, msgspec.Raw(_encode(entry))))
        yield from self._dedupe()
        for slot in list(self._slots):
            early = self._early_slots.pop(slot, None)
            item = early if early is not None else self._slot(slot)
            del self._slots[slot]
            yield item
        for id_ in list(self._runs):
            early = self._early.pop(id_, None)
            item = early if early is not None else self._run(id_)
            del self._runs[id_]
            yield item

    def _dedupe(self) -> Iterator[bytes]:
        for key, epoch, floor, pruned_at, seen, newest, newest_ms in self._origins:
            marks = iter(seen.items())
            batch = list(islice(marks, _MARKS))
            yield _encode(_Origin(key, epoch, floor, pruned_at, batch, newest, newest_ms))
            while batch := list(islice(marks, _MARKS)):
                yield _encode(_Origin(key, epoch, floor, pruned_at, batch, newest, newest_ms))
        clients = iter(self._clients.items())
        while accepted := list(islice(clients, _MARKS)):
            yield _encode(_Clients(accepted))
        if self._epochs:
            yield _encode(_Epochs(self._epochs))
        redrives = iter(self._redrives.items())
        while accepted := list(islice(redrives, _MARKS)):
            yield _encode(_Redrives(accepted))

    def _run(self, id_: str) -> bytes | LeftRun:
        runs = self._state.runs
        packed = runs.packed_of(id_)
        offset = runs.left.get(id_) if runs.left else None
        return _encode(_Run(id_, msgspec.Raw(packed))) if offset is None else LeftRun(id_, offset, packed)

    def _slot(self, key: tuple[str, str, str]) -> bytes:
        slot = self._state.slots[key]
        return _encode(_Slot(key, slot.open, list(slot.queued)))


class Chunker:
    """Cuts items into chunks of at most `CHUNK_BYTES`. `add` gives the chunks that became full, `finish` the last one."""

    def __init__(self, as_of: int) -> None:
        self._as_of = as_of
        self._items: list[msgspec.Raw] = []
        self._size = 0
        self._index = 0

    def add(self, item: bytes) -> Iterable[CheckpointChunk]:
        """One more item."""
        if len(item) <= CHUNK_BYTES:
            return self._add(item)
        pieces = [item[first : first + _PART_BYTES] for first in range(0, len(item), _PART_BYTES)]
        full: list[CheckpointChunk] = []
        for number, piece in enumerate(pieces, 1):
            full += self._add(_encode(_Part(piece, number == len(pieces))))
        return full

    def finish(self) -> CheckpointChunk:
        """What is left: the last chunk."""
        return self._cut(last=True)

    def _add(self, item: bytes) -> Iterable[CheckpointChunk]:
        full = (self._cut(last=False),) if self._items and self._size + len(item) > CHUNK_BYTES else ()
        self._items.append(msgspec.Raw(item))
        self._size += len(item) + 1
        return full

    def _cut(self, *, last: bool) -> CheckpointChunk:
        chunk = CheckpointChunk(self._as_of, self._index, last, tuple(self._items))
        self._index += 1
        self._items, self._size = [], 0
        return chunk


class Load:
    """Fills a new partition state with chunks. Raises `CheckpointUnusable`; the state is of no use then."""

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._next = 0
        self._as_of: int = -1
        self._parts: list[bytes] = []
        self._has_head = False
        self._complete = False

    def add(self, chunk: CheckpointChunk) -> None:
        """The next chunk."""
        if chunk.index != self._next or self._complete or (self._next > 0 and chunk.as_of != self._as_of):
            raise CheckpointUnusable(f"Chunk {chunk.index} of a checkpoint came where {self._next} was expected.")
        self._next += 1
        self._as_of = chunk.as_of
        try:
            for raw in chunk.items:
                self._item(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CheckpointUnusable(
                f"A checkpoint cannot be read: {error}",
                why="It was written by something else, or by a newer version of Headrace.",
                do="Run the newest version on all instances; the partition goes on where it stopped.",
            ) from error
        self._complete = chunk.last

    def finished(self) -> PartitionState:
        """The state as of the checkpoint."""
        if not self._complete or self._parts or not self._has_head:
            raise CheckpointUnusable("A checkpoint has no end.")
        if self._state.next_offset != self._as_of + 1:
            raise CheckpointUnusable(
                f"A checkpoint as of {self._as_of} has a state that ends at {self._state.next_offset}."
            )
        return self._state

    def _item(self, raw: msgspec.Raw | bytes) -> None:
        state = self._state
        item: _Item = _decode_item(raw)
        match item:
            case _Run(id=id_, run=run):
                state.runs.put_packed(id_, bytes(run))
            case _Entry(field=field, entry=entry):
                key, value = self._known(_DICTS, field).decode(bytes(entry))
                getattr(state, field)[key] = value
            case _Slot(key=key, open=open_, queued=queued):
                state.slots[key] = KeySlot(open=open_, queued=deque(queued))
            case _Origin(origin=origin, seen=seen):
                marks = state.dedupe.origins.setdefault(
                    origin,
                    OriginMarks(
                        epoch=item.epoch,
                        floor=item.floor,
                        seen={},
                        pruned_at=item.pruned_at,
                        newest=item.newest,
                        newest_ms=item.newest_ms,
                    ),
                )
                marks.seen.update(seen)
            case _Clients(accepted=accepted):
                state.dedupe.clients.update(accepted)
            case _Epochs(epochs=epochs):
                state.dedupe.epochs.update(epochs)
            case _Redrives(accepted=accepted):
                state.dedupe.redrives.update(accepted)
            case _Head(fields=fields):
                self._head(fields)
            case _Part(data=data, last=last):
                self._parts.append(data)
                if last:
                    parts, self._parts = self._parts, []
                    self._item(b"".join(parts))

    def _head(self, fields: dict[str, msgspec.Raw]) -> None:
        for name, raw in fields.items():
            value = self._known(_PLAIN, name).decode(bytes(raw))
            if name in _IDENTITY and value != getattr(self._state, name):
                raise CheckpointUnusable(
                    f"A checkpoint in {self._state.topic}/{self._state.partition} is of {name} {value}, "
                    f"not {getattr(self._state, name)}.",
                    why="Records of another topic were copied here, or the topic was made anew with other partitions.",
                )
            setattr(self._state, name, value)
        self._has_head = True

    @staticmethod
    def _known(decoders: dict[str, msgspec.json.Decoder[Any]], name: str) -> msgspec.json.Decoder[Any]:
        decoder = decoders.get(name)
        if decoder is None:
            raise CheckpointUnusable(
                f"A checkpoint has {name}, which this version does not know.",
                why="It was written by a newer version of Headrace.",
                do="Run the newest version on all instances; the partition goes on where it stopped.",
            )
        return decoder


def estimated_bytes(state: PartitionState) -> int:
    """About how large a checkpoint would be now: a few runs, approvals and outbox entries stand for all."""
    runs, outbox, approvals = state.runs, state.outbox, state.approvals
    bytes_ = state.failed_bytes + _HEAD_BYTES + _SLOT_BYTES * len(state.slots) + _MARK_BYTES * len(state.dedupe.clients)
    bytes_ += _REDRIVE_BYTES * len(state.dedupe.redrives)
    bytes_ += _MARK_BYTES * sum(len(marks.seen) for marks in state.dedupe.origins.values())
    bytes_ += _scaled([len(runs.packed_of(id_)) for id_ in _sample(runs, len(runs))], len(runs))
    bytes_ += _scaled([len(_encode(approvals[id_])) for id_ in _sample(approvals, len(approvals))], len(approvals))
    return bytes_ + _scaled([len(_encode(outbox[id_])) for id_ in _sample(outbox, len(outbox))], len(outbox))


def _sample(ids: Iterable[str], count: int) -> Iterable[str]:
    return islice(ids, 0, None, max(1, count // _SAMPLE))


def _scaled(sizes: list[int], count: int) -> int:
    return (sum(sizes) // len(sizes) + _ITEM_BYTES) * count if sizes else 0


def dump(state: PartitionState) -> list[CheckpointChunk]:
    """The whole state at once."""
    whole = Dump(state)
    chunker = Chunker(whole.as_of)
    chunks: list[CheckpointChunk] = []
    for item in whole.items():
        if isinstance(item, LeftRun):
            raise ValueError(f"the start of {item.id} has to be read again, at {item.offset}")  # noqa: TRY004 - of its value
        chunks += chunker.add(item)
    return [*chunks, chunker.finish()]


def load(chunks: Iterable[CheckpointChunk], into: PartitionState) -> PartitionState:
    """The state that was dumped. `into` is a new one of the same partition; its settings stay."""
    loading = Load(into)
    for chunk in chunks:
        loading.add(chunk)
    return loading.finished()
