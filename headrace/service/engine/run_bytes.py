"""A run's state as bytes: what a run that only waits is kept as, and what a checkpoint carries of an open run.

JSON, fields by position, sets and maps sorted: the same state gives the same bytes, and any tool can show them. Inputs and results stay the very bytes that
they were. Fields are only ever added at the end, with a default: bytes of an older version are read by every newer one.
"""

from __future__ import annotations

import msgspec

from headrace.service.engine.run_state import RunState

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(RunState)


def pack(run: RunState) -> bytes:
    """The bytes of a run; `unpack` gives an equal one."""
    return _encoder.encode(run)


def unpack(packed: bytes) -> RunState:
    """The run behind the bytes. Raises msgspec.ValidationError, DecodeError for what `pack` has not made."""
    return _decoder.decode(packed)
