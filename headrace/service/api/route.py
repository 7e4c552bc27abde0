"""`Route`: one method of one path, as the server, the OpenAPI document and the metrics know it; and the table that finds one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import msgspec

from headrace.service.api.problem import METHOD_NOT_ALLOWED, NO_SUCH_PATH, ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp.web import BaseRequest, StreamResponse

    from headrace.service.api.facade import Facade

UNKNOWN = "(unknown)"
"""The `route` label of what no route answers."""

JSON = "application/json"


class Asked(msgspec.Struct, frozen=True):
    """A request, read: `path` has the values of the template, `query` the parameters, `body` all bytes."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    media_type: str
    request: BaseRequest
    slot: Slot

    def is_gone(self) -> bool:
        """Whether nobody is there any more to be answered."""
        transport = self.request.transport
        return transport is None or transport.is_closing()


class Slot:
    """One of the requests that are worked on at once. What only waits gives it back, and takes as long as it says itself."""

    __slots__ = ("_told", "_unlimited")

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._told: list[Callable[[], None]] = [give_back]
        self._unlimited: list[Callable[[], None]] = []

    def when_unlimited(self, tell: Callable[[], None]) -> None:
        """Call this once the time limit of the request is not to hold any more."""
        self._unlimited.append(tell)

    def unlimited(self) -> None:
        """It takes as long as it says itself, from here on."""
        told, self._unlimited = self._unlimited, []
        for tell in told:
            tell()

    def release(self) -> None:
        """Give it back, and be unlimited; a second time does nothing."""
        self.unlimited()
        told, self._told = self._told, []
        for tell in told:
            tell()

    def end(self) -> None:
        """The request is over."""
        self._unlimited.clear()
        self.release()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: bytes as they are, anything else as JSON. `context_refused`: the caller's trace context is not sound and was left out."""

    body: Any = None
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = {}
    media_type: str = JSON
    context_refused: bool = False


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of the query or a header, for people and tools."""

    name: str
    description: str
    place: Literal["query", "header"] = "query"
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})


Handler = Callable[["Facade", Asked], Awaitable["Answer | StreamResponse"]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """`template` has its variables in braces. `answers`: what the body is by status; None: not JSON.

    `consumes`: media types of the body that `body` describes. `needs`: what an answer waits for.
    """

    method: str
    template: str
    name: str
    summary: str
    handler: Handler
    answers: Mapping[int, Any]
    parameters: Sequence[Parameter] = ()
    body: Any = None
    consumes: Sequence[str] = ()
    tag: str = ""
    media_type: str = JSON
    needs: Literal["log", "history", "nothing"] = "log"

    @property
    def variables(self) -> list[str]:
        """Names of the path's variables, in order."""
        return [part[1:-1] for part in self.template.split("/") if part.startswith("{")]


class RouteTable:
    """Finds the route of a request. Paths are compared part by part, so that a part may hold what it likes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._by_length: dict[int, list[tuple[list[str], Route]]] = {}
        for route in routes:
            parts = route.template.strip("/").split("/")
            self._by_length.setdefault(len(parts), []).append((parts, route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the values of its variables; `path` is not decoded yet. ApiError: 404, 405."""
        parts = path.strip("/").split("/")
        allowed: list[str] = []
        for wanted, route in self._by_length.get(len(parts), ()):
            found = _values(wanted, parts)
            if found is None:
                continue
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                return route, found
            allowed += ["GET", "HEAD"] if route.method == "GET" else [route.method]
        if allowed:
            methods = ", ".join(sorted(set(allowed)))
            raise ApiError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                METHOD_NOT_ALLOWED,
                f"{method:.20} is not a method of this path.",
                do=f"Use {methods}.",
                headers={"Allow": methods},
            )
        raise no_such_path()


def no_such_path() -> ApiError:
    """Nothing is there."""
    return ApiError(
        HTTPStatus.NOT_FOUND,
        NO_SUCH_PATH,
        "There is nothing at this path.",
        do="See /api/openapi.json for what there is.",
    )


def _values(wanted: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for template, part in zip(wanted, parts, strict=True):
        if template.startswith("{"):
            if not part:
                return None
            values[template[1:-1]] = unquote(part)
        elif template != part:
            return None
    return values
