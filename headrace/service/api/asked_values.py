"""What a request says, judged: parameters of the query, bodies as typed values. Everything wrong is an ApiError."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import msgspec

from headrace.service.api.cursor import place_in
from headrace.service.api.problem import BODY_INVALID, MEDIA_TYPE_UNKNOWN, PARAMETER_INVALID, ApiError
from headrace.service.run_view.summary import STATUSES, RunFilter, RunPlace
from headrace.service.settings_quantity import duration_ms
from headrace.topics.event import parse_time
from headrace.topics.json_text import JsonRejected, check_nesting

if TYPE_CHECKING:
    from headrace.service.api.route import Asked

T = TypeVar("T")
LIMIT_MAX = 200
LIMIT = 50
BRACKETS_MAX = 100_000
"""Arrays and objects of one JSON text, counted with brackets in strings: a parser turns no loop meanwhile, and such a text takes it some 30 ms."""
_WAIT_MAX_S = 60.0
_DIGITS_MAX = 6


def limit_of(asked: Asked, default: int = LIMIT) -> int:
    """How many entries a page may have."""
    return number_of(asked, "limit", default=default, most=LIMIT_MAX)


def number_of(asked: Asked, name: str, *, default: int, most: int) -> int:
    """A whole number from 1 on."""
    text = asked.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX or not 1 <= int(text) <= most:
        raise wrong_parameter(name, f"is a whole number from 1 to {most}")
    return int(text)


def run_filter(asked: Asked) -> RunFilter:
    """Which runs are asked for, and from where on."""
    words = frozenset(word for word in asked.query.get("status", "").split(",") if word)
    if words - set(STATUSES):
        raise wrong_parameter("status", f"is one or more, with commas, of {', '.join(STATUSES)}")
    return RunFilter(
        statuses=words,
        workflow=asked.query.get("workflow") or None,
        key=asked.query.get("key"),
        since_ms=since_ms(asked.query.get("since")),
        limit=limit_of(asked),
        after=place_in(asked.query.get("cursor"), RunPlace),
    )


def since_ms(text: str | None) -> int | None:
    """A duration before now, or a time, in milliseconds since the epoch."""
    if not text:
        return None
    try:
        if text[:4].isdigit() and "T" in text.upper():
            return max(0, round(parse_time(text).timestamp() * 1000))
        return max(0, time.time_ns() // 1_000_000 - duration_ms(text))
    except (ValueError, OverflowError):
        raise wrong_parameter("since", "is a duration such as 1h30m, or an RFC 3339 time") from None


def wrong_parameter(name: str, rule: str) -> ApiError:
    """A parameter of the query does not hold its rule."""
    return ApiError(HTTPStatus.BAD_REQUEST, PARAMETER_INVALID, f"The parameter {name} {rule}.", do="Correct it.")


def body_as(asked: Asked, kind: type[T], *, nesting_max: int, empty: T | None = None) -> T:
    """The JSON body as a value. `empty`: what no body at all means."""
    if not asked.body and empty is not None:
        return empty
    if asked.media_type != "application/json":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            MEDIA_TYPE_UNKNOWN,
            "The body is not said to be JSON.",
            do="Send `Content-Type: application/json`.",
        )
    try:
        check_brackets(asked.body)
        check_nesting(asked.body, nesting_max=nesting_max)
        return msgspec.json.decode(asked.body, type=kind)
    except JsonRejected as error:
        raise invalid_body(error.message) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_body(f"{error}.") from None


def check_brackets(raw: bytes) -> None:
    """ApiError: so many arrays and objects that whoever else is served here would wait for them to be read."""
    if raw.count(b"[") + raw.count(b"{") > BRACKETS_MAX:
        raise invalid_body(f"it has more than {BRACKETS_MAX} arrays and objects.")


def invalid_body(reason: str) -> ApiError:
    """The body is not what the path takes."""
    return ApiError(
        HTTPStatus.BAD_REQUEST,
        BODY_INVALID,
        f"The body does not fit: {reason}",
        do="See /api/openapi.json for its form.",
    )


def wait_s(asked: Asked) -> float | None:
    """The seconds of `Prefer: wait=10`, at most a minute. What cannot be read is no preference, as RFC 7240 says."""
    for preference in asked.headers.get("Prefer", "").split(","):
        name, _, value = preference.partition(";")[0].strip().partition("=")
        if name.strip().lower() == "wait" and value.strip().isascii() and value.strip().isdigit():
            return min(float(value), _WAIT_MAX_S)
    return None
