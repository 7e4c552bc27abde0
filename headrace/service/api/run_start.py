"""Starting a run over HTTP: a start command, appended to the run log as routers do; and, where it is asked for, waiting for what becomes of it.

The answer comes after the log has the command. The identity is the client's `Idempotency-Key`, with workflow and key: asked twice, one run begins.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import uuid_utils

from headrace.handlers.payload import PayloadError
from headrace.service.api.problem import (
    INPUT_REFUSED,
    KEY_HELD,
    KEY_REFUSED,
    NO_SUCH_WORKFLOW,
    PARAMETER_INVALID,
    ApiError,
)
from headrace.service.definitions.matcher import Refused, key_of
from headrace.service.request_error import Conflict
from headrace.topics.command import OnConflict, Start
from headrace.topics.errors import HeadraceError
from headrace.topics.identity import ClientId, run_id
from headrace.topics.log import AppendFailed, LogUnavailable, NewRecord
from headrace.topics.outcome import RunStatus
from headrace.topics.partition_hash import partition_of
from headrace.topics.run_record import CommandRecord, encode
from headrace.topics.trace_context import received_context

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from headrace.service.api.facade import Facade
    from headrace.service.api.live_runs import Followed
    from headrace.service.definitions.app import AnyWorkflow
    from headrace.service.run_view.run_detail import RunDetail
    from headrace.topics.trace_context import TraceContext

_TRIES = 3  # of an append that may or may not have happened: its identity makes that harmless
_AGAIN_S = 0.2
_GONE_S = 1.0  # between two looks whether who asked is still there
_TOLD_S = 10.0  # what a start comes to, where its policy may refuse it: the service is at work, or it is away
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)


class StartRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Start a run. `key` is for a workflow that takes none from its input: it is only noted, for people."""

    workflow: str
    namespace: str = "default"
    input: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    key: str | None = None


class StartedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run was started. `status` is `accepted` until somebody has waited for more; `result`, `error` and `message` are of its end.

    `joined`: its key has an open run already, and by the workflow's policy that is the one that is meant: `id` is its id.
    """

    id: str
    namespace: str
    workflow: str
    version: str
    key: str | None
    status: str
    joined: bool = False
    result: msgspec.Raw | None = None
    error: str = ""
    message: str = ""


class Wait:
    """How long somebody waits, None: not at all. `begun`: it was waited. `gone` tells whether nobody does any more."""

    def __init__(self, seconds: float | None, *, tell_begun: Callable[[], None], gone: Callable[[], bool]) -> None:
        self.seconds = seconds
        self.begun = False
        self.gone = gone
        self._tell_begun = tell_begun

    def begin(self) -> None:
        """What was to be done is done: from here on it is only waited."""
        self.begun = True
        self._tell_begun()


class Order(msgspec.Struct, frozen=True):
    """A start, judged: where it goes and as what."""

    start: Start
    identity: ClientId
    partition: int
    run: str


def order_of(
    facade: Facade, request: StartRequest, *, idempotency_key: str | None, trace: TraceContext | None
) -> Order:
    """Judge a request. ApiError: no such workflow, an input that does not fit, a key that cannot be."""
    workflow = _workflow(facade, request)
    decoded = _decoded(workflow, request.input)
    key = _key(workflow, decoded, request.key)
    start = Start(
        namespace=workflow.namespace,
        workflow=workflow.name,
        version=workflow.version,
        input=request.input,
        trigger="http",
        key=key,
        policy=workflow.on_conflict if workflow.key is not None else OnConflict.ALLOW,
        timeout_ms=workflow.timeout_ms,
        traceparent=None if trace is None else trace.traceparent,
        tracestate=(trace.state or None) if trace is not None else None,
    )
    identity = _identity(start, idempotency_key)
    partition = partition_of((key or identity.id).encode(), facade.shared.partitions)
    return Order(start, identity, partition, run_id(partition, identity))


async def appended(facade: Facade, order: Order) -> int:
    """The offset of the start, once the run log has it. Raises `AppendFailed`, `LogUnavailable`, `AppendRefused`."""
    record = NewRecord(encode(CommandRecord(id=order.identity, body=order.start)))
    writer = facade.shared.writers.runs(order.partition)
    for tries_left in reversed(range(_TRIES)):
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def written(offset: int, error: HeadraceError | None, done: asyncio.Future[int] = done) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(offset)
            else:
                done.set_exception(error)

        writer.put(record, written)
        try:
            return await done
        except (AppendFailed, LogUnavailable):
            if not tries_left:
                raise
        await asyncio.sleep(_AGAIN_S)
    raise AssertionError("the last try returns or raises")


async def started(facade: Facade, order: Order, *, wait: Wait) -> StartedRun:
    """Append, and look at what comes of it as far as is asked for, or as its policy makes needful.

    Conflict: the key has an open run, and the policy is `reject`.
    """
    contended = order.start.contended_key is not None and order.start.policy in {OnConflict.REJECT, OnConflict.JOIN}
    if wait.seconds is None and not contended:
        await appended(facade, order)
        return _answer(order, status="accepted")
    with facade.waiting() as room, facade.live.following(order.partition) as followed:
        end = followed.end_of(order.run)
        try:
            offset = await appended(facade, order)
            if not room:
                return _answer(order, status="accepted")
            wait.begin()
            return await _seen(facade, order, followed, offset, end, wait)
        finally:
            followed.forget_end_of(order.run, end)
            end.cancel()


async def _seen(
    facade: Facade, order: Order, followed: Followed, offset: int, end: asyncio.Future[RunDetail], wait: Wait
) -> StartedRun:
    wait_s = wait.seconds or 0.0
    folded = followed.took(offset, order.run)
    await _patiently(facade, folded, wait, max(wait_s, _TOLD_S))
    if not folded.done():
        folded.cancel()
        return _answer(order, status="accepted")
    took = folded.result()
    if took.refused:
        raise Conflict(
            f"Key {order.start.key!r} has an open run of {order.start.workflow}: {took.open_run}.",
            code=KEY_HELD,
            why="The workflow says on_conflict=reject.",
            do="Wait until that run has ended.",
        )
    if took.joined:
        return _answer(order, status="running", run=took.open_run)
    if took.run is None and not end.done():  # begun and ended before: this is its client's second request
        detail = await _end_of(facade, order.run)
        if detail is not None:
            return _ended(order, detail)
    status = "accepted" if took.run is None else took.run.status
    if wait_s:
        await _patiently(facade, end, wait, wait_s)
    return _ended(order, end.result()) if end.done() else _answer(order, status=status)


async def _end_of(facade: Facade, run: str) -> RunDetail | None:
    """How a run ended that is known to have ended. The history hears of it a moment later."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _TOLD_S
    while True:
        detail = await facade.queries.run(run)
        told = detail is None or detail.summary.status in set(RunStatus)
        if told or facade.stopping.done() or loop.time() > until:
            return detail
        await asyncio.sleep(_AGAIN_S)


async def _patiently(facade: Facade, awaited: asyncio.Future[Any], wait: Wait, seconds: float) -> None:
    """Until it is done, the time is over, the service stops, or who asked is gone."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while not wait.gone() and (left := ends - loop.time()) > 0:
        done, _ = await asyncio.wait(
            [awaited, facade.stopping], timeout=min(left, _GONE_S), return_when=asyncio.FIRST_COMPLETED
        )
        if done:
            return


def _answer(order: Order, *, status: str, run: str = "") -> StartedRun:
    start = order.start
    return StartedRun(
        id=run or order.run,
        namespace=start.namespace,
        workflow=start.workflow,
        version=start.version,
        key=start.key,
        status=status,
        joined=bool(run),
    )


def _ended(order: Order, detail: RunDetail) -> StartedRun:
    summary = detail.summary
    return msgspec.structs.replace(
        _answer(order, status=summary.status),
        version=summary.version,
        result=detail.result,
        error=summary.error,
        message=summary.message,
    )


# --- judging ----------------------------------------------------------------------------------------------------------


def _workflow(facade: Facade, request: StartRequest) -> AnyWorkflow:
    found = facade.shared.app.newest_of(request.namespace, request.workflow)
    if found is None:
        raise no_such_workflow(request.namespace, request.workflow)
    return found


def no_such_workflow(namespace: str, name: str) -> ApiError:
    """The app does not have it."""
    return ApiError(
        HTTPStatus.NOT_FOUND,
        NO_SUCH_WORKFLOW,
        f"There is no workflow {namespace:.100}/{name:.100} here.",
        do="GET workflows lists those that are loaded; `namespace` is `default` unless it is given.",
    )


def _decoded(workflow: AnyWorkflow, raw: msgspec.Raw) -> object:
    try:
        return workflow.input_type.decode(bytes(raw))
    except PayloadError as error:
        reason = str(error)
    except BaseException as error:  # noqa: BLE001 - validators are user code
        reason = f"decoding it raised {type(error).__name__}"
    message = f"The input does not fit {workflow.name}: {reason}"
    raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, INPUT_REFUSED, message, do="Correct the input.")


def _key(workflow: AnyWorkflow, decoded: object, given: str | None) -> str | None:
    made = key_of(workflow, decoded)
    if isinstance(made, Refused):
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, KEY_REFUSED, made.error, do="Correct the input.")
    if made is not None:
        if given not in {None, made}:
            message = f"{workflow.name} takes its key from the input, and that gives another one."
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, KEY_REFUSED, message, do="Leave `key` out.")
        return made
    if given == "":
        message = "The key is empty."
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, KEY_REFUSED, message, do="Leave it out or fill it.")
    return given


def _identity(start: Start, idempotency_key: str | None) -> ClientId:
    if idempotency_key is None:
        return ClientId(f"http-{uuid_utils.uuid7()}")
    if not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            PARAMETER_INVALID,
            "The Idempotency-Key is not 1 to 200 printable ASCII characters without spaces.",
            do="Send a UUID, say.",
        )
    return ClientId(f"http:{start.namespace}/{start.workflow}/{start.key or ''}:{idempotency_key}")


def trace_of(request: BaseRequest) -> tuple[TraceContext | None, bool]:
    """The caller's context, by W3C's headers, and whether there was one, or a state, that is not sound: it is left out."""
    parents = [each.encode("utf-8", "replace") for each in request.headers.getall("traceparent", ())]
    states = [each.encode("utf-8", "replace") for each in request.headers.getall("tracestate", ())]
    found = received_context(parents, states, {})
    if found is None:
        return None, bool(parents)
    return found, not found.state and any(state.strip(b" \t,") for state in states)
