"""What happens to each request: is anybody let in, which route is it, does it fit, how long may it take; and what is counted of it."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from headrace.observability import told_process
from headrace.service.api import openapi
from headrace.service.api.problem import (
    BODY_TOO_LARGE,
    BODY_TOO_SLOW,
    BUG,
    MALFORMED,
    MEDIA_TYPE,
    METHOD_NOT_ALLOWED,
    STOPPING,
    TOO_MANY,
    TOOK_TOO_LONG,
    ApiError,
    bug,
    headers_of,
    place_of,
    problem_of,
    status_of,
)
from headrace.service.api.route import UNKNOWN, Answer, Asked, Route, RouteTable, Slot
from headrace.service.api.route_table import OPENAPI, ROUTES
from headrace.service.loop_turn import LARGE_BYTES, LoopTurn
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from headrace.service.api.console_files import ConsoleFiles
    from headrace.service.api.facade import Facade
    from headrace.service.api.guard import Guard

CONSOLE: Final = "/{console}"
"""The `route` label of all files of the console."""
BODY_S: Final = 10.0
"""A body comes within this time, whatever its size."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURE: Final = {
    "Server": "headrace",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Dispatch:
    """`handle` answers every request. `draining`: no new ones are let in."""

    def __init__(self, facade: Facade, guard: Guard, console: ConsoleFiles) -> None:
        self._facade = facade
        self._guard = guard
        self._console = console
        self._settings = facade.settings.api
        self._observer = facade.shared.observer
        self._table = RouteTable(ROUTES)
        self._base = self._settings.base_path.rstrip("/")
        self._openapi = msgspec.json.encode(openapi.document(self._settings.base_path))
        self._open = {True: 0, False: 0}  # requests that are worked on: those that wait for the log, and others
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; what it comes to is counted, and a failure of ours is told."""
        began = perf_counter()
        method = request.method if request.method in _METHODS else "other"
        counted = _Counted()
        try:
            response = await self._answered(request, counted)
        except HeadraceError as error:
            response = self._refused(request, method, counted.route, error)
        except Exception as error:  # noqa: BLE001 - the last resort before the client
            self._tell_bug(method, counted.route, error)
            response = self._refused(request, method, counted.route, bug(error), told_already=True)
        finally:
            counted.release()
        self._observer.http_answered(
            told_process.HttpAnswered(
                method=method,
                route=counted.route,
                code=response.status,
                duration_ms=(perf_counter() - began) * 1000,
                context_refused=counted.context_refused,
            )
        )
        return response

    async def _answered(self, request: web.BaseRequest, counted: _Counted) -> web.StreamResponse:
        path = self._path(request)
        self._check_open()
        in_api = path == "/api" or path.startswith("/api/")
        self._guard.check(request.method, request.headers, token_needed=in_api)
        if not in_api:
            counted.route = CONSOLE
            return _response(self._file(request, path))
        if path == OPENAPI and request.method in {"GET", "HEAD"}:
            counted.route = OPENAPI
            return _response(Answer(body=self._openapi))
        route, values = self._table.find(request.method, path)
        counted.route = route.template
        slot = counted.slot = self._slot(route)
        body = await self._body(request)
        if len(body) > LARGE_BYTES:
            await LoopTurn().taken()
        asked = Asked(
            path=values,
            query=dict(request.query),
            headers=request.headers,
            body=body,
            media_type=request.content_type,
            request=request,
            slot=slot,
        )
        answer = await self._within_time(route.handler(self._facade, asked), slot)
        if isinstance(answer, web.StreamResponse):
            return answer
        counted.context_refused = answer.context_refused
        return _response(answer)

    async def _within_time(
        self, answering: Awaitable[Answer | web.StreamResponse], slot: Slot
    ) -> Answer | web.StreamResponse:
        """Or without a limit, once it says so itself: it only waits for something."""
        limit = asyncio.timeout(self._settings.request_timeout_ms / 1000)
        slot.when_unlimited(lambda: limit.reschedule(None))
        try:
            async with limit:
                return await answering
        except TimeoutError:
            if not limit.expired():
                raise
            raise ApiError(
                HTTPStatus.GATEWAY_TIMEOUT,
                TOOK_TOO_LONG,
                f"There was no answer within {self._settings.request_timeout_ms / 1000:g} s: api.request_timeout.",
                why="The run log is large, or the broker or the history are slow. What was to be changed may be, or may be yet.",
                do="Look again later; ask for less; keep a history, which answers faster. A start may be sent again with its Idempotency-Key.",
            ) from None

    def _path(self, request: web.BaseRequest) -> str:
        """The path as the routes have it, not decoded; whether a proxy cuts api.base_path off or not."""
        path = request.rel_url.raw_path
        if self._base and (path == self._base or path.startswith(self._base + "/")):
            path = path[len(self._base) :]
        return path or "/"

    def _file(self, request: web.BaseRequest, path: str) -> Answer:
        if request.method not in {"GET", "HEAD"}:
            raise ApiError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                METHOD_NOT_ALLOWED,
                f"{request.method:.20} is not a method of this path.",
                do="Use GET.",
                headers={"Allow": "GET, HEAD"},
            )
        return self._console.answer(path.lstrip("/"), request.headers)

    def _check_open(self) -> None:
        if self.draining:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                STOPPING,
                "This process is stopping.",
                do="Ask another one, or ask again.",
                headers={"Connection": "close"},
            )

    def _slot(self, route: Route) -> Slot:
        """What waits for the log has as many places as what does not: a broker that is away leaves room to look at what is known."""
        log = route.needs == "log" or (route.needs == "history" and self._facade.shared.history is None)
        if self._open[log] >= self._settings.max_requests:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                TOO_MANY,
                f"{self._settings.max_requests} requests are worked on: api.max_requests.",
                do="Try again in a second, or raise the limit.",
            )
        self._open[log] += 1
        return Slot(partial(self._give_back, log))

    def _give_back(self, log: bool) -> None:  # noqa: FBT001 - a key
        self._open[log] -= 1

    async def _body(self, request: web.BaseRequest) -> bytes:
        """All of it, within the limits."""
        most = self._settings.max_body_bytes
        if (request.content_length or 0) > most:
            raise _too_large(most)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_S):
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    if size > most:
                        raise _too_large(most)
                    chunks.append(chunk)
        except TimeoutError:
            raise ApiError(
                HTTPStatus.REQUEST_TIMEOUT,
                BODY_TOO_SLOW,
                f"The body did not come within {BODY_S:g} s.",
                do="Send it faster, or in smaller parts.",
                headers={"Connection": "close"},
            ) from None
        except web.RequestPayloadError:
            message = "The body cannot be read as it was announced."
            raise ApiError(HTTPStatus.BAD_REQUEST, MALFORMED, message, do="Correct length and encoding.") from None
        return b"".join(chunks)

    # --- errors ----------------------------------------------------------------------------------------------------

    def _refused(
        self, request: web.BaseRequest, method: str, route: str, error: HeadraceError, *, told_already: bool = False
    ) -> web.Response:
        status = status_of(error)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not told_already:
            self._observer.http_failed(
                told_process.HttpFailed(
                    method=method, route=route, status=status, code=error.code, message=error.message
                )
            )
        return problem_response(error, request.path)

    def _tell_bug(self, method: str, route: str, error: Exception) -> None:
        self._observer.http_failed(
            told_process.HttpFailed(
                method=method,
                route=route,
                status=HTTPStatus.INTERNAL_SERVER_ERROR,
                code=BUG,
                message=place_of(error),
            )
        )


class _Counted:
    """What is known of a request while it is answered."""

    def __init__(self) -> None:
        self.route = UNKNOWN
        self.slot: Slot | None = None
        self.context_refused = False

    def release(self) -> None:
        if self.slot is not None:
            self.slot.end()


def problem_response(error: HeadraceError, path: str) -> web.Response:
    """An error as problem details."""
    answer = Answer(
        body=problem_of(error, path), status=status_of(error), headers=headers_of(error), media_type=MEDIA_TYPE
    )
    return _response(answer)


def _response(answer: Answer) -> web.Response:
    body = answer.body if isinstance(answer.body, bytes) else msgspec.json.encode(answer.body)
    headers = {**_SECURE, "Cache-Control": "no-store", **answer.headers}
    response = web.Response(status=answer.status, headers={**headers, "Content-Type": answer.media_type}, body=body)
    if headers.get("Connection") == "close":
        response.force_close()
    return response


def _too_large(most: int) -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        BODY_TOO_LARGE,
        f"The body has more than {most} bytes: api.max_body_bytes.",
        do="Send less at once, or a reference to what is large.",
        headers={"Connection": "close"},
    )
