"""Errors as the API says them: problem details (RFC 9457), with the code, the why and the do of docs/errors.md."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from headrace.service.request_error import Conflict, NotAllowed, NotFound, TimedOut
from headrace.topics.errors import HeadraceError, Rejected, Transient
from headrace.topics.log import AppendForbidden, TopicForbidden, TopicMissing

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

NO_SUCH_PATH = "HR6001"
METHOD_NOT_ALLOWED = "HR6002"
MALFORMED = "HR6003"
BODY_TOO_LARGE = "HR6004"
BODY_INVALID = "HR6005"
MEDIA_TYPE_UNKNOWN = "HR6006"
PARAMETER_INVALID = "HR6007"
CURSOR_INVALID = "HR6008"
TOO_MANY = "HR6009"
STOPPING = "HR6010"
TOOK_TOO_LONG = "HR6011"
BODY_TOO_SLOW = "HR6012"
NOT_AUTHORISED = "HR6013"
HOST_REFUSED = "HR6014"
CROSS_SITE = "HR6015"
NO_SUCH_WORKFLOW = "HR6016"
INPUT_REFUSED = "HR6017"
KEY_REFUSED = "HR6018"
KEY_HELD = "HR6019"
TOPIC_REFUSED = "HR6020"
HEADERS_TOO_LARGE = "HR6021"
BUG = "HR9001"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Problem details. `code` is a line of docs/errors.md, `why` and `do` may be empty; `instance` is the path that was asked for."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    why: str = ""
    do: str = ""
    instance: str = ""


class ApiError(HeadraceError):
    """An answer that is an error. `headers` go with it."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        why: str = "",
        do: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, why=why, do=do)
        self.status = status
        self.headers = dict(headers or {})


def status_of(error: HeadraceError) -> HTTPStatus:
    """Which status an error of ours has."""
    match error:
        case ApiError():
            return error.status
        case NotFound() | TopicMissing():
            return HTTPStatus.NOT_FOUND
        case Conflict():
            return HTTPStatus.CONFLICT
        case NotAllowed() | AppendForbidden() | TopicForbidden():
            return HTTPStatus.FORBIDDEN
        case TimedOut():
            return HTTPStatus.GATEWAY_TIMEOUT
        case Transient():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case Rejected():
            return HTTPStatus.UNPROCESSABLE_ENTITY
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: HeadraceError, path: str) -> Problem:
    """The body that tells of an error."""
    status = status_of(error)
    return Problem(
        type=f"urn:headrace:{error.code}",
        title=status.phrase,
        status=status,
        detail=error.message,
        code=error.code,
        why=error.why,
        do=error.do,
        instance=path,
    )


def headers_of(error: HeadraceError) -> dict[str, str]:
    """What goes with it: when to try again, say."""
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if status_of(error) in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}:
        wait_ms = error.retry_after_ms if isinstance(error, Transient) else None
        headers.setdefault("Retry-After", str(max(RETRY_AFTER_S, round((wait_ms or 0) / 1000))))
    return headers


def place_of(error: BaseException) -> str:
    """An unforeseen error's class and line, without its text, which may quote a payload."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = type(error).__name__
    return name if frame is None else f"{name} at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def bug(error: BaseException) -> ApiError:
    """Something that we did not foresee. Its text may quote a payload and stays out of the answer."""
    return ApiError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        BUG,
        f"This is a bug in Headrace: {type(error).__name__}.",
        do="Report it with the log line http.failed of this moment.",
    )
