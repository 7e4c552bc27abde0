"""Approvals, decided and seen to be: what `headrace approval` and the API do.

A decision is a command in the run log; whether it counts, the log says: it is read back from there. The deadline is judged by the broker's clock, not by ours.
Whoever calls this has made sure that `by` and `roles` are true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service.engine.approval import ROLE_CHARS_MAX, ROLES_MAX, may_decide
from headrace.service.engine.limit import TEXT_MAX
from headrace.service.names import Names
from headrace.service.request_error import Conflict, NotAllowed, NotFound
from headrace.service.run_view.approvals import PENDING, ApprovalFilter, Approvals
from headrace.service.run_view.scan import Reading, scan
from headrace.service.sent_command import sent
from headrace.topics.approval import run_and_step
from headrace.topics.command import Approve
from headrace.topics.errors import Rejected
from headrace.topics.event import format_time
from headrace.topics.identity import partition_in
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from headrace.service.run_view.approvals import ApprovalView
    from headrace.service.run_view.scan import Seen
    from headrace.service.settings import Settings
    from headrace.topics.approval import Verdict
    from headrace.topics.errors import Fatal
    from headrace.topics.log import Log

UNKNOWN_APPROVAL = "HR4106"
NOT_OPEN = "HR4107"
ROLE_MISSING = "HR4108"
TEXT_REFUSED = "HR4109"


async def listed(log: Log, settings: Settings, wanted: ApprovalFilter) -> tuple[Approvals, tuple[Fatal, ...]]:
    """All approvals that are wanted, and what kept partitions from being read."""
    found = Approvals(wanted)
    return found, await scan(log, settings, found)


async def shown(log: Log, settings: Settings, approval: str) -> ApprovalView:
    """One approval, open or not. NotFound."""
    _, at, _ = await _place(log, settings, approval)
    found = Approvals(ApprovalFilter(id=approval))
    for problem in await scan(log, settings, found, only=(at.partition,)):
        raise problem
    return _only(found, approval)


async def decide(
    log: Log,
    settings: Settings,
    approval: str,
    verdict: Verdict,
    *,
    by: str,
    note: str = "",
    roles: tuple[str, ...] = (),
    patience_s: float | None,
) -> ApprovalView:
    """Say yes or no, and see that it counts. NotFound, Conflict (it is not open any more), NotAllowed (none of the roles), Rejected (a text), TimedOut."""
    _check(by, note, roles)
    (run, step), at, partitions = await _place(log, settings, approval)
    decision = Approve(run=run, step=step, decision=verdict, by=by, note=note, roles=roles)
    found = Approvals(ApprovalFilter(id=approval))
    reading = Reading(at, settings, partitions=partitions, begin=found.begin)

    def allowed() -> Approve:
        nonlocal found
        found.end(reading.state)
        _must_be_open(_only(found, approval), roles)
        found = Approvals(ApprovalFilter(id=approval))
        return decision

    def see(seen: Seen) -> None:
        found.see(seen)

    _, seen = await sent(log, reading, allowed, see=see, patience_s=patience_s)
    if not seen.folded.without_effect:
        return _only(found, approval)
    found.end(reading.state)
    raise _too_late(_only(found, approval), roles, seen.timestamp_ms)


async def _place(log: Log, settings: Settings, approval: str) -> tuple[tuple[str, str], TopicPartition, int]:
    """Run and step, their partition, and how many there are."""
    found = run_and_step(approval)
    if found is None:
        raise NotFound(
            f"{approval!r} is not the id of an approval.",
            code=UNKNOWN_APPROVAL,
            why="Such an id is that of a run, and the step with a dash for each slash: 5.0123456789abcdef0123-3-approval.",
            do="See `headrace approval list`.",
        )
    topic = Names(settings.app.name).runs
    partitions = await log.partitions(topic)
    partition = partition_in(found[0])
    if partition is None or partition >= partitions:
        raise _unknown(approval)
    return found, TopicPartition(topic, partition), partitions


def _only(found: Approvals, approval: str) -> ApprovalView:
    views = found.newest_first()
    if not views:
        raise _unknown(approval, trimmed_at_ms=found.trimmed_at_ms)
    return views[0]


def _unknown(approval: str, *, trimmed_at_ms: int | None = None) -> NotFound:
    trimmed = "" if trimmed_at_ms is None else format_time(trimmed_at_ms)
    return NotFound(
        f"There is no approval {approval}.",
        code=UNKNOWN_APPROVAL,
        why=f"If it was over before {trimmed}: the run log was trimmed." if trimmed else "",
        do="See `headrace approval list`; is app.name right?",
    )


def _must_be_open(view: ApprovalView, roles: tuple[str, ...]) -> None:
    if view.status != PENDING:
        who = f" by {view.by}" if view.by else ""
        message = f"Approval {view.id} is not open any more: {view.status}{who} at {view.decided_at}."
        raise Conflict(message, code=NOT_OPEN, do="Nothing is left to do: the first decision counts.")
    if not may_decide(view.roles, roles):
        has = f"{', '.join(roles)} is not among them" if roles else "no role was given"
        raise NotAllowed(
            f"Approval {view.id} wants one of these roles: {', '.join(view.roles)}; {has}.",
            code=ROLE_MISSING,
            do="Let somebody decide who has one of them (--role).",
        )


def _too_late(view: ApprovalView, roles: tuple[str, ...], at_ms: int) -> Conflict:
    """Why it does not count, though it was open when it was sent."""
    _must_be_open(view, roles)
    return Conflict(
        f"Approval {view.id} was due at {view.due_at}, and the decision came at {format_time(at_ms)}.",
        code=NOT_OPEN,
        why="It expires; what counts is when the log got the decision.",
        do="A retry of the run asks anew, if it fails for that.",
    )


def _check(by: str, note: str, roles: tuple[str, ...]) -> None:
    limits = (("by", by, ROLE_CHARS_MAX), ("note", note, TEXT_MAX), *(("role", role, ROLE_CHARS_MAX) for role in roles))
    for name, text, chars_max in limits:
        if len(text) > chars_max:
            raise _refused(f"{name} has {len(text)} characters; {chars_max} are allowed.")
        try:
            text.encode()
        except ValueError:
            raise _refused(f"{name} is no Unicode.") from None
    if not by:
        raise _refused("nobody is named who decides.")
    if len(roles) > ROLES_MAX:
        raise _refused(f"{len(roles)} roles were given; {ROLES_MAX} are allowed.")


def _refused(what: str) -> Rejected:
    return Rejected(f"The decision was not sent: {what}", code=TEXT_REFUSED, do="Correct it and decide again.")
