"""A run's state as bytes: what a run that only waits is kept as, and what a checkpoint carries of an open run.

JSON, fields by position, sets and maps sorted: the same state gives the same bytes, and any tool can show them. Inputs and results stay the very bytes that
they were. Fields are only ever added at the end, with a default: bytes of an older version are read by every newer one.

In memory a run that will wait for long may be kept smaller still (`shrink`): a third of its size for 20 us. That form never leaves the process.
"""

from __future__ import annotations

import zlib

import msgspec

from headrace.service.engine.run_state import Phase, RunState
from headrace.topics.command import Parent


class EventLook(msgspec.Struct, frozen=True, gc=False):
    """Where the event of a start was."""

    topic: str


class StartLook(msgspec.Struct, frozen=True, gc=False):
    """What a look at a run shows of its start."""

    namespace: str
    workflow: str
    version: str
    key: str | None = None
    timeout_ms: int | None = None
    event: EventLook | None = None
    parent: Parent | None = None


class RunLook(msgspec.Struct, array_like=True, frozen=True):
    """The first fields of a `RunState`: what a look at its bytes shows without making all of it."""

    id: str
    offset: int
    size: int
    identity: msgspec.Raw
    start: StartLook
    started_at_ms: int
    began_at_ms: int
    phase: Phase
    clock_ms: int
    rests: bool = False
    left: bool = False
    timers: dict[str, int] = {}


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(RunState)
_look_decoder = msgspec.json.Decoder(RunLook)


def pack(run: RunState) -> bytes:
    """The bytes of a run; `unpack` gives an equal one."""
    return _encoder.encode(run)


def unpack(packed: bytes) -> RunState:
    """The run behind the bytes. Raises msgspec.ValidationError, DecodeError for what `pack` has not made."""
    return _decoder.decode(packed)


def look(packed: bytes) -> RunLook:
    """Only the first fields."""
    return _look_decoder.decode(packed)


# --- smaller still, in memory --------------------------------------------------------------------------------------------

_COMMON = (  # what most runs have in common, the most frequent last
    b'"failed_step":"undone":["cancelled"]"is":"emitted","topic":"out","data":"is":"timer.fired","due_at_ms":17"is":"attempt.failed","cause":"raised",'
    b'"error":"message":"retry_after_ms":"is":"steps.cancelled","steps":["is":"output.refused","is":"cancel","reason":"extensions":{"datacontenttype":'
    b'"application/json","dataschema":"subject":"time":"2026-"tracestate":"traceparent":"00-","timeout_ms":"policy":"queue","reject","join"'
    b'"event_at_ms":17952700000},17952700000,17952700000,"open",17952700000,true,false,{"/2/sleep":17952700000},0,null,[[{"is":"attempt.succeeded",'
    b'"run":"0.","step":"/1/","handler":"","number":1,"result":,"started_at_ms":17952700000,"duration_ms":0.0},17952700000]],0,{},["/1/"]]["c",0,"orders",'
    b'0,1000,"",0],{"is":"start","namespace":"default","workflow":"","version":"1","input":{"key":"","event":{"id":"","source":"/","type":"com.","topic":"",'
    b'"partition":0,"offset":1000,"key":"'
)
_PLAIN = ord("[")  # how the bytes of `pack` begin; a deflated block of ours never does
_MARK = b"\x00"


def shrink(packed: bytes) -> bytes:
    """The same, smaller, for `restore`. Nothing to do for bytes that are."""
    if packed[0] != _PLAIN:
        return packed
    deflate = zlib.compressobj(3, zlib.DEFLATED, -12, 3, zlib.Z_DEFAULT_STRATEGY, _COMMON)
    small = _MARK + deflate.compress(packed) + deflate.flush()
    return small if len(small) < len(packed) else packed


def restore(packed: bytes) -> bytes:
    """The bytes of `pack` again, from either form."""
    return packed if packed[0] == _PLAIN else zlib.decompressobj(-12, _COMMON).decompress(memoryview(packed)[1:])
