"""What a command is deduplicated by, and the ids that derive from it.

The formats here are frozen: run ids are part of users' data, and a router of any version must give one record one identity.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NewType

import msgspec

_RUN_ID = re.compile(r"(0|[1-9][0-9]{0,5})\.[0-9a-f]{20}")

RunId = NewType("RunId", str)
"""`<run-log partition>.<20 hex digits of the start's identity>`."""


class Coordinates(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="c"):
    """The identity of a command that was made from a record: a source record, or a record of the run log (for messages between partitions).

    `n` is never a running number over matches: for a source record it is the digest of (command kind, namespace, workflow, correlation value); between
    partitions it is the index among the instructions of that record's fold. `floor`: everything of this origin partition below it is acknowledged.
    """

    epoch: int
    origin: str  # topic
    partition: int
    offset: int
    n: str
    floor: int


class ClientId(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="i"):
    """The identity of a command that came from a client (CLI, API): kept until 24 h after the run's end."""

    id: str


class SlotId(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="s"):
    """The identity of a slot's start. Nothing is kept of it: the schedule's own newest slot says what was accepted."""

    schedule: str
    at_ms: int


Identity = Coordinates | ClientId | SlotId


def start_digest(kind: str, namespace: str, workflow: str, correlation: str = "") -> str:
    """The `n` of a command made from a source record."""
    return blake2b(f"{kind}\0{namespace}\0{workflow}\0{correlation}".encode(), digest_size=6).hexdigest()


def run_id(partition: int, identity: Identity) -> RunId:
    """The id of the run that a start with this identity begins in this partition."""
    match identity:
        case Coordinates(epoch=epoch, origin=origin, partition=source, offset=offset, n=n):
            text = f"c\0{epoch}\0{origin}\0{source}\0{offset}\0{n}"
        case ClientId(id=client_id):
            text = f"i\0{client_id}"
        case SlotId(schedule=schedule, at_ms=at_ms):
            text = f"s\0{schedule}\0{at_ms}"
    return RunId(f"{partition}.{blake2b(text.encode(), digest_size=10).hexdigest()}")


def partition_in(run: str) -> int | None:
    """The run-log partition inside a run id, or None if this is not a run id."""
    match = _RUN_ID.fullmatch(run)
    return None if match is None else int(match[1])
