"""Where the next page begins, as opaque text: no offset into a list, but the place of the last entry (keyset), so that nothing is skipped or seen twice."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http import HTTPStatus
from typing import TypeVar

import msgspec

from headrace.service.api.problem import CURSOR_INVALID, ApiError

T = TypeVar("T", bound=msgspec.Struct)
_LENGTH_MAX = 400
_NUMBER_MAX = 1 << 62


def cursor_of(place: msgspec.Struct) -> str:
    """The text of a place."""
    return urlsafe_b64encode(msgspec.json.encode(msgspec.structs.astuple(place))).decode().rstrip("=")


def place_in(cursor: str | None, kind: type[T]) -> T | None:
    """The place in a cursor; None without one. ApiError: it is none of ours."""
    if cursor is None:
        return None
    try:
        if len(cursor) > _LENGTH_MAX:
            raise ValueError(cursor)
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        values = msgspec.json.decode(raw, type=list[object])
        if any(isinstance(value, int) and abs(value) > _NUMBER_MAX for value in values):
            raise ValueError(cursor)  # no place of ours, and no database has room for it
        names = [field.name for field in msgspec.structs.fields(kind)]
        return msgspec.convert(dict(zip(names, values, strict=True)), kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            CURSOR_INVALID,
            "The cursor is not one that this list has given.",
            do="Take `next` of the page before as it is, or leave the cursor out.",
        ) from None
