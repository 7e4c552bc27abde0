"""State: what the records of one run-log partition mean so far. Changed by `fold.py` alone; refolding the log gives the same state."""

from __future__ import annotations

from collections import deque

import msgspec

from headrace.service.engine.approval import ApprovalRequest
from headrace.service.engine.dedupe import Dedupe
from headrace.service.engine.gate import Gate
from headrace.service.engine.open_runs import OpenRuns
from headrace.service.engine.probation import Probation
from headrace.service.engine.retry import RETENTION_MS, FailedRun
from headrace.service.engine.schedule_state import ScheduleState
from headrace.topics.command import Cancel, ChildEnded, Start
from headrace.topics.identity import Coordinates
from headrace.topics.outcome import Emitted


class KeySlot(msgspec.Struct):
    """A key with an open run, and the starts that wait for it."""

    open: str
    queued: deque[str]


class Output(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="output"):
    """An event on its way to a topic."""

    id: str
    run: str
    emitted: Emitted
    workflow: str
    namespace: str
    run_key: str
    origin: tuple[str, int, int] | None  # the source record
    event_at_ms: int | None
    traceparent: str | None
    tracestate: str | None
    at_ms: int  # append time of the record that put it here: the event's CloudEvents time
    awaited: bool | None = None  # as of the run's start


class Forward(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="forward"):
    """A start on its way to the partition of its key."""

    id: str
    partition: int
    identity: Coordinates  # without floor: that is known when it is sent
    start: Start


class Message(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="message"):
    """A command on its way to another run, perhaps of the same partition: a child's start, its end for its parent, or that it is given up.

    `after`: not before this entry is where it goes, if it is in the outbox at all.
    """

    id: str
    partition: int
    identity: Coordinates  # without floor, as above
    body: Start | ChildEnded | Cancel
    after: str = ""


class Refusal(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="refusal"):
    """A start that its policy rejected, on its way to the dead letters of its source."""

    id: str
    start: Start
    open_run: str


class RefusedOutput(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="refused"):
    """An ended run's output that its topic refused, on its way to `<app>.dlq`."""

    id: str
    output: Output
    code: str
    message: str


OutboxEntry = Output | Forward | Message | Refusal | RefusedOutput


class Given(msgspec.Struct, frozen=True, gc=False):
    """An attempt that ran while its owner, the member `giver`, gave the partition away. Its successor leaves it alone until then, or the giver is gone."""

    number: int
    until_ms: int
    giver: str = ""


class PartitionState(msgspec.Struct):
    """Everything one run-log partition says. `next_offset` is the first offset not folded yet."""

    partition: int
    partitions: int
    topic: str
    client_retention_ms: int
    next_offset: int = 0
    clock_ms: int = 0
    gate: Gate = msgspec.field(default_factory=Gate)
    dedupe: Dedupe = msgspec.field(default_factory=Dedupe)
    runs: OpenRuns = msgspec.field(default_factory=OpenRuns)
    slots: dict[tuple[str, str, str], KeySlot] = {}
    outbox: dict[str, OutboxEntry] = {}
    given: dict[tuple[str, str], Given] = {}  # attempts that a release listed and whose result is still awaited
    probation: Probation = msgspec.field(default_factory=Probation)
    retry_retention_ms: int = RETENTION_MS
    failed: dict[str, FailedRun] = {}  # runs that may be retried, the oldest first
    failed_bytes: int = 0  # of what is kept of them
    parents: dict[str, int] = {}  # open runs that await children: how many
    approvals: dict[str, ApprovalRequest] = {}  # those that are open, by run and step, in the order of their requests
    schedules: dict[str, ScheduleState] = {}  # that live in this partition, by id

    def become(self, other: PartitionState) -> None:
        """Say what another one says, which is of no use any more: who refers to this one need not know."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(other, name))
