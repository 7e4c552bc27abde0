"""A run's state as bytes: what a run that only waits is kept as, and what a checkpoint carries of an open run.

JSON, fields by position, sets and maps sorted: the same state gives the same bytes, and any tool can show them. Inputs and results stay the very bytes that
they were. Fields are only ever added at the end, with a default: bytes of an older version are read by every newer one.
"""

from __future__ import annotations

import msgspec

from headrace.service.engine.run_state import Phase, RunState


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
