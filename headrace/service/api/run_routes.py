"""Runs: listed, looked at, started, commanded."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from headrace.service import run_command
from headrace.service.api import answers as a
from headrace.service.api.asked_values import body_as, invalid_body, limit_of, run_filter, wait_s
from headrace.service.api.cursor import cursor_of, place_in
from headrace.service.api.problem import BODY_TOO_LARGE, ApiError
from headrace.service.api.route import Answer, Asked
from headrace.service.api.run_start import StartRequest, Wait, order_of, started, trace_of
from headrace.service.client_log import opened
from headrace.service.loop_turn import LARGE_BYTES, LoopTurn
from headrace.service.names import Names
from headrace.service.request_error import NotFound
from headrace.service.run_view.queries import HistoryPlace
from headrace.topics.json_text import JsonRejected, parse_json
from headrace.topics.outcome import RunStatus

if TYPE_CHECKING:
    from headrace.service.api.facade import Facade
    from headrace.service.run_view.history_entry import HistoryEntry

T = TypeVar("T")

PATIENCE_S = 20.0
"""A command is seen to have taken effect within this time, or the answer is HR4103 (504): it is not lost."""
_PAGE_BYTES = 1 << 20  # of the records in one page of a history; at least one record is shown
_HISTORY_LIMIT = 200
_AROUND_BYTES = 64 << 10  # of a start's body around its input


async def list_runs(facade: Facade, asked: Asked) -> Answer:
    """GET runs."""
    page = await facade.queries.runs(run_filter(asked))
    after = None if page.next is None else cursor_of(page.next)
    return Answer(body=a.RunList(items=page.runs, next=after, notes=page.notes))


async def get_run(facade: Facade, asked: Asked) -> Answer:
    """GET runs/{run}."""
    run = asked.path["run"]
    detail = await facade.queries.run(run)
    if detail is None:
        raise _unknown(facade, run)
    return Answer(body=a.run_facts(detail, producers_trace=facade.settings.telemetry.parent_from_kafka))


async def get_history(facade: Facade, asked: Asked) -> Answer:
    """GET runs/{run}/history."""
    run = asked.path["run"]
    start = place_in(asked.query.get("cursor"), HistoryPlace)
    page = await facade.queries.history(run, start=start, limit=limit_of(asked, _HISTORY_LIMIT))
    if page is None:
        raise _unknown(facade, run)
    fitting = _fitting(page.entries)
    following = page.next
    if fitting < len(page.entries):
        following = _place(page.entries, fitting, start)
    after = None if following is None else cursor_of(following)
    return Answer(body=a.HistoryList(items=page.entries[:fitting], next=after, notes=page.notes))


async def start_run(facade: Facade, asked: Asked) -> Answer:
    """POST runs."""
    limits = facade.settings.limits
    if len(asked.body) > limits.payload_bytes + _AROUND_BYTES:
        raise _too_large(f"The body has {len(asked.body)} bytes", limits.payload_bytes)
    request = body_as(asked, StartRequest, nesting_max=limits.nesting)
    raw = bytes(request.input)
    if len(raw) > limits.payload_bytes:
        raise _too_large(f"The input has {len(raw)} bytes", limits.payload_bytes)
    try:
        parse_json(raw, nesting_max=limits.nesting)
    except JsonRejected as error:
        raise invalid_body(error.message) from None
    small = len(asked.body) <= LARGE_BYTES  # it may be held by who waits, more of them than requests at once
    if not small:
        await LoopTurn().taken()  # it is read once more below
    idempotency_key = asked.headers.get("Idempotency-Key")
    trace, refused = trace_of(asked.request)
    order = order_of(facade, request, idempotency_key=idempotency_key, trace=trace)
    seconds = wait_s(asked)
    wait = Wait(seconds, tell_begun=asked.slot.release if small else asked.slot.unlimited, gone=asked.is_gone)
    run = await started(facade, order, wait=wait)
    ended = run.status in set(RunStatus)
    headers = {"Location": f"{facade.settings.api.base_path.rstrip('/')}/api/v1/runs/{run.id}"}
    if seconds is not None and wait.begun:
        headers["Preference-Applied"] = f"wait={seconds:g}"
    status = HTTPStatus.OK if ended or run.joined else HTTPStatus.CREATED
    return Answer(body=run, status=status, headers=headers, context_refused=refused)


async def cancel_run(facade: Facade, asked: Asked) -> Answer:
    """POST runs/{run}/cancel."""
    run, request = asked.path["run"], _body(facade, asked, a.CancelRequest)
    async with opened(facade.settings) as log:
        detail = await run_command.cancel(log, facade.settings, run, reason=request.reason, patience_s=PATIENCE_S)
    return Answer(body=a.CommandDone(id=run, command="cancel", status=detail.summary.status))


async def resume_run(facade: Facade, asked: Asked) -> Answer:
    """POST runs/{run}/resume."""
    run = asked.path["run"]
    _body(facade, asked, a.EmptyRequest)
    async with opened(facade.settings) as log:
        detail = await run_command.resume(log, facade.settings, run, patience_s=PATIENCE_S)
    return Answer(body=a.CommandDone(id=run, command="resume", status=detail.summary.status))


async def retry_run(facade: Facade, asked: Asked) -> Answer:
    """POST runs/{run}/retry."""
    run, request = asked.path["run"], _body(facade, asked, a.RetryRequest)
    async with opened(facade.settings) as log:
        new = await run_command.retry(log, facade.settings, run, from_task=request.from_task, patience_s=PATIENCE_S)
    return Answer(
        body=a.RetryDone(id=new.id, command="retry", retry_of=run, copied=new.copied), status=HTTPStatus.CREATED
    )


async def dismiss_run(facade: Facade, asked: Asked) -> Answer:
    """POST runs/{run}/dismiss."""
    run = asked.path["run"]
    _body(facade, asked, a.EmptyRequest)
    async with opened(facade.settings) as log:
        await run_command.dismiss(log, facade.settings, run, patience_s=PATIENCE_S)
    return Answer(body=a.CommandDone(id=run, command="dismiss"))


def _body(facade: Facade, asked: Asked, kind: type[T]) -> T:
    return body_as(asked, kind, nesting_max=facade.settings.limits.nesting, empty=kind())


def _too_large(what: str, most: int) -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        BODY_TOO_LARGE,
        f"{what}; limits.payload is {most}.",
        do="Send less, or a reference to it.",
    )


def _unknown(facade: Facade, run: str) -> Exception:
    """404, whether that is a run id or not."""
    names = Names(facade.settings.app.name)
    try:
        run_command.partition_of_run(run, facade.shared.partitions, names.runs)
    except NotFound as error:
        return error
    return run_command.unknown_run(run, names.runs)


def _fitting(entries: tuple[HistoryEntry, ...]) -> int:
    size = 0
    for number, entry in enumerate(entries):
        size += len(bytes(entry.record))
        if number and size > _PAGE_BYTES:
            return number
    return len(entries)


def _place(entries: tuple[HistoryEntry, ...], number: int, start: HistoryPlace | None) -> HistoryPlace:
    """The place of the entry with this number on a page that began at `start`."""
    offset = entries[number].offset
    before = sum(1 for entry in entries[:number] if entry.offset == offset)
    if start is not None and before == number and start.offset == offset:
        before += start.index
    return HistoryPlace(offset, before)
