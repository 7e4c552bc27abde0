"""Approvals: what waits for people, and their decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service import approval_command
from headrace.service.api.asked_values import body_as, limit_of, wrong_parameter
from headrace.service.api.cursor import place_in
from headrace.service.api.listing import Behind, page_of
from headrace.service.api.route import Answer, Asked
from headrace.service.api.run_routes import PATIENCE_S
from headrace.service.client_log import opened
from headrace.service.run_view.approvals import APPROVAL_STATUSES, PENDING, ApprovalFilter, ApprovalView
from headrace.service.run_view.missing import trimmed, unread
from headrace.topics.approval import Verdict

if TYPE_CHECKING:
    from headrace.service.api.facade import Facade

_NOBODY = "api"


class ApprovalList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of approvals, newest first."""

    items: tuple[ApprovalView, ...]
    next: str | None
    notes: tuple[str, ...] = ()


class DecisionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who decides, in which of the asked roles, and why. All of it is believed: whoever may ask the API may decide."""

    by: str = _NOBODY
    note: str = ""
    roles: tuple[str, ...] = ()


async def list_approvals(facade: Facade, asked: Asked) -> Answer:
    """GET approvals."""
    statuses = frozenset(word for word in asked.query.get("status", PENDING).split(",") if word)
    if statuses - set(APPROVAL_STATUSES):
        raise wrong_parameter("status", f"is one or more, with commas, of {', '.join(APPROVAL_STATUSES)}")
    role = asked.query.get("role")
    wanted = ApprovalFilter(
        statuses=statuses,
        workflow=asked.query.get("workflow") or None,
        roles=frozenset({role} if role else ()),
    )
    limit, behind = limit_of(asked), place_in(asked.query.get("cursor"), Behind)
    async with facade.scanning, opened(facade.settings) as log:
        found, problems = await approval_command.listed(log, facade.settings, wanted)
    views = found.newest_first()
    page, after = page_of(views, [view.requested_at for view in views], behind, limit)
    notes = unread(problems)
    if found.trimmed_at_ms is not None and statuses != frozenset({PENDING}):
        notes += (trimmed("What was over", found.trimmed_at_ms),)
    return Answer(body=ApprovalList(items=page, next=after, notes=notes))


async def get_approval(facade: Facade, asked: Asked) -> Answer:
    """GET approvals/{approval}."""
    async with opened(facade.settings) as log:
        return Answer(body=await approval_command.shown(log, facade.settings, asked.path["approval"]))


async def approve(facade: Facade, asked: Asked) -> Answer:
    """POST approvals/{approval}/approve."""
    return await _decide(facade, asked, Verdict.APPROVED)


async def reject(facade: Facade, asked: Asked) -> Answer:
    """POST approvals/{approval}/reject."""
    return await _decide(facade, asked, Verdict.REJECTED)


async def _decide(facade: Facade, asked: Asked, verdict: Verdict) -> Answer:
    settings = facade.settings
    request = body_as(asked, DecisionRequest, nesting_max=settings.limits.nesting, empty=DecisionRequest())
    async with opened(settings) as log:
        view = await approval_command.decide(
            log,
            settings,
            asked.path["approval"],
            verdict,
            by=request.by or _NOBODY,
            note=request.note,
            roles=request.roles,
            patience_s=PATIENCE_S,
        )
    return Answer(body=view)
