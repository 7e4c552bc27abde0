"""The data of an event, and what is refused: `EventLimits`, `EventRejected`, and media types.

Data is JSON (`application/json`, `*/json`, `*+json`, or no media type at all) and is kept byte for byte; or it is
`text/*` in UTF-8 and becomes a JSON string. Other media types are refused for now. Used by `cloudevents.py` on the way
in and `new_event.py` on the way out.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from headrace.topics.dead_letter import Stage
from headrace.topics.errors import Rejected
from headrace.topics.json_text import JsonRejected, parse_json

STRUCTURED = "application/cloudevents+json"

NULL_VALUE = "HR3001"
EMPTY_KEY = "HR3002"
KEY_NOT_TEXT = "HR3003"
VALUE_TOO_LARGE = "HR3004"
HEADERS_TOO_LARGE = "HR3005"  # HR3006 and HR3007 are in json_text.py
ATTRIBUTE_MISSING = "HR3010"
ATTRIBUTE_INVALID = "HR3011"
ATTRIBUTE_NAME_INVALID = "HR3012"
ATTRIBUTE_TWICE = "HR3013"
SPECVERSION_UNKNOWN = "HR3014"
BATCH_REFUSED = "HR3015"
FORMAT_UNKNOWN = "HR3016"
BODY_NOT_AN_OBJECT = "HR3017"
DATA_TWICE = "HR3018"
MEDIA_TYPE_REFUSED = "HR3019"
DATA_INVALID = "HR3020"

_TOKEN = r"[!#$%&'*+.^_`|~0-9a-z\-]+"  # noqa: S105 - RFC 9110's word for it
_MEDIA_TYPE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*((?:;[^;\x00-\x1f\x7f-\x9f]*)*)", re.ASCII)
_CHARSET = re.compile(r"""charset\s*=\s*"?([^";\s]*)"?""", re.ASCII)
_READABLE_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


class EventLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one record may be, in uncompressed bytes: `payload` is the value alone, `headers` all names and values.

    `nesting` is the depth of the data.
    """

    payload_bytes_max: int = 900 * 1024
    headers_bytes_max: int = 64 * 1024
    nesting_max: int = 64


DEFAULT_LIMITS = EventLimits()


class EventRejected(Rejected):
    """A record that is no event for us: dead-letter it with `stage` and `code`.

    `attribute` is the CloudEvents attribute at fault, `None` if it is the record as a whole. The message names
    attributes, limits and positions and quotes no value, which may be secret.
    """

    stage = Stage.DECODE

    def __init__(self, code: str, reason: str, attribute: str | None = None) -> None:
        super().__init__(reason if attribute is None else f"CloudEvents attribute {attribute}: {reason}", code=code)
        self.reason = reason
        self.attribute = attribute


class DataForm(StrEnum):
    """What a media type means for the value."""

    JSON = "json"
    TEXT = "text"
    STRUCTURED = "structured"
    BATCH = "batch"
    UNKNOWN_FORMAT = "unknown-format"
    REFUSED = "refused"


@lru_cache(maxsize=256)  # topics use few media types; the bound is for those of strangers
def data_form(content_type: bytes | str) -> DataForm:
    """What to do with a value of this media type.

    Case and parameters do not matter, except a charset that is neither UTF-8 nor ASCII: such data is refused.
    """
    text = content_type.decode("utf-8", "replace") if isinstance(content_type, bytes) else content_type
    match = _MEDIA_TYPE.fullmatch(text.lower())
    if match is None:
        return DataForm.REFUSED
    media_type, parameters = match.groups()
    charset = _CHARSET.search(parameters)
    if charset is not None and charset[1] not in _READABLE_CHARSETS:
        return DataForm.REFUSED
    if media_type == STRUCTURED:
        return DataForm.STRUCTURED
    if media_type.startswith("application/cloudevents"):
        return DataForm.BATCH if media_type.startswith("application/cloudevents-batch") else DataForm.UNKNOWN_FORMAT
    if media_type.endswith(("/json", "+json")):
        return DataForm.JSON
    return DataForm.TEXT if media_type.startswith("text/") else DataForm.REFUSED


def read_data(value: bytes, form: DataForm, limits: EventLimits) -> msgspec.Raw:
    """The data as JSON text, checked in full. Raises `EventRejected`."""
    if form is DataForm.JSON:
        read_json(value, limits.nesting_max)
        return msgspec.Raw(value)
    if form is DataForm.TEXT:
        try:
            return msgspec.Raw(msgspec.json.encode(value.decode()))
        except UnicodeDecodeError:
            raise EventRejected(DATA_INVALID, "the text is not UTF-8.", "data") from None
    raise EventRejected(MEDIA_TYPE_REFUSED, "data can be JSON or text/* in UTF-8, nothing else.", "datacontenttype")


def read_json(value: bytes, nesting_max: int) -> Any:
    """Plain JSON types, or `EventRejected` with the code of `json_text.py`."""
    try:
        return parse_json(value, nesting_max=nesting_max)
    except JsonRejected as error:
        raise EventRejected(error.code, error.message) from None
