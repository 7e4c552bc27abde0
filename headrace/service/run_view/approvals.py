"""`ApprovalView`: one approval for people; and `Approvals`, which collects them while the run log is scanned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.approval import may_decide
from headrace.service.engine.instruction import Decided
from headrace.topics.approval import ApprovalEnding, approval_id
from headrace.topics.command import Approve
from headrace.topics.event import format_time
from headrace.topics.run_record import CommandRecord

if TYPE_CHECKING:
    from headrace.service.engine.approval import ApprovalRequest
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.scan import Seen

PENDING = "pending"
APPROVAL_STATUSES = (PENDING, *map(str, ApprovalEnding))
"""What `status` may be."""

_ROOM = 2  # times the limit: how many wait for the next sorting


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """One approval. Times are RFC 3339 in UTC; `roles` empty: anybody may decide; `due_at` None: it waits for ever.

    `key` is the run's. `by` and `note` are there if somebody has decided, `decided_at` once it is over, however it ended.

    This is the JSON of `approval list`; keys are added, never renamed.
    """

    id: str
    run: str
    step: str
    namespace: str
    workflow: str
    key: str | None
    title: str
    roles: tuple[str, ...]
    status: str
    requested_at: str
    due_at: str | None
    decided_at: str | None = None
    by: str | None = None
    note: str | None = None


class ApprovalFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which approvals are wanted: empty and None mean any. `roles`: only what somebody with these may decide. `limit` 0 means all."""

    id: str | None = None
    statuses: frozenset[str] = frozenset()
    workflow: str | None = None  # as name or namespace/name
    roles: frozenset[str] = frozenset()
    limit: int = 0


class Approvals:
    """A scan's watcher: collects the newest approvals that a filter lets through."""

    def __init__(self, wanted: ApprovalFilter) -> None:
        self._wanted = wanted
        self._kept: list[tuple[int, ApprovalView]] = []
        self.trimmed_at_ms: int | None = None
        """What was over before this time may be missing: the log was trimmed."""

    def begin(self, state: PartitionState) -> None:
        """A partition whose log was trimmed."""
        self.trimmed_at_ms = max(self.trimmed_at_ms or 0, state.clock_ms)

    def see(self, seen: Seen) -> None:
        """A record of a partition."""
        for instruction in seen.folded.instructions:
            if isinstance(instruction, Decided) and self._wants(instruction.request, str(instruction.ending)):
                self._keep(instruction.request, over(seen, instruction))

    def end(self, state: PartitionState) -> None:
        """Those that are still open at a partition's end."""
        for asked in state.approvals.values():
            if self._wants(asked, PENDING):
                self._keep(asked, pending(asked))

    def newest_first(self) -> list[ApprovalView]:
        """Those that match, at most the limit."""
        self._sort()
        return [view for _, view in self._kept]

    def _keep(self, asked: ApprovalRequest, view: ApprovalView) -> None:
        self._kept.append((asked.requested_at_ms, view))
        if self._wanted.limit and len(self._kept) >= _ROOM * self._wanted.limit:
            self._sort()

    def _wants(self, asked: ApprovalRequest, status: str) -> bool:
        wanted = self._wanted
        return (
            (not wanted.statuses or status in wanted.statuses)
            and (wanted.id is None or wanted.id == approval_id(asked.run, asked.step))
            and (wanted.workflow is None or wanted.workflow in {asked.workflow, f"{asked.namespace}/{asked.workflow}"})
            and (not wanted.roles or may_decide(asked.roles, wanted.roles))
        )

    def _sort(self) -> None:
        self._kept.sort(key=lambda item: (-item[0], item[1].id))
        if self._wanted.limit:
            del self._kept[self._wanted.limit :]


def pending(asked: ApprovalRequest) -> ApprovalView:
    """One that is open."""
    return ApprovalView(
        id=approval_id(asked.run, asked.step),
        run=asked.run,
        step=asked.step,
        namespace=asked.namespace,
        workflow=asked.workflow,
        key=asked.key,
        title=asked.title,
        roles=asked.roles,
        status=PENDING,
        requested_at=format_time(asked.requested_at_ms),
        due_at=None if asked.due_at_ms is None else format_time(asked.due_at_ms),
    )


def over(seen: Seen, decided: Decided) -> ApprovalView:
    """One that this record has ended."""
    body = seen.record.body if isinstance(seen.record, CommandRecord) else None
    said = body if isinstance(body, Approve) else None
    return msgspec.structs.replace(
        pending(decided.request),
        status=str(decided.ending),
        decided_at=format_time(decided.at_ms),
        by=None if said is None else said.by,
        note=None if said is None else said.note,
    )
