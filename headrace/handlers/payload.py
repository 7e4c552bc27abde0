"""The JSON form of what goes into a handler and comes out of it, typed by annotations.

Pure. msgspec reads and writes dataclasses, msgspec structs, plain JSON types, datetime, Decimal, UUID and enums;
pydantic does as soon as one of its models is inside an annotation, by alias in both directions: what is in the log
and in emitted events is the form that the model shows to the world. The stdlib's json is never used: it accepts what
other readers refuse.

One rule for what is encoded: decoded again, it has the types it had. So a dict in place of a model, a number as a key
of an untyped dict or a datetime in an untyped result is refused, not changed on the way; sets are refused wherever
they are.

Called by definitions (on loading an app), the guard, and whoever decodes an input.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import msgspec
import pydantic

from headrace.handlers.annotation import refused, survey
from headrace.topics.errors import DefinitionError, Rejected
from headrace.topics.json_text import NestedTooDeep, check_nesting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_ANNOTATIONS_MAX: Final = 4096  # distinct annotations kept; an app has tens
NESTING_MAX: Final = 256  # parsers recurse: what was written here must be readable on any deeper stack of ours
_PATH_AT_END: Final = re.compile(r" - at `(\$[^`]*)`$")
_QUOTED_INPUT: Final = re.compile(r" \[[^\[]*input_value=.*$")  # pydantic shows the value; we show no payload
_REASON_CHARS_MAX: Final = 500
_MISSING: Final = object()

_encode_json: Final = msgspec.json.Encoder().encode
_decode_json: Final = msgspec.json.Decoder().decode
_split_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class PayloadError(Rejected):
    """A payload does not fit. HR7001: bytes that cannot be decoded; HR7002: a value that cannot be encoded.

    `path` is the place inside (`$` is the whole), `reason` is for people and quotes no payload.
    """

    code = "HR7001"

    def __init__(self, path: str, reason: str, *, code: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", code=code)
        self.path = path
        self.reason = reason


class PayloadTooLarge(PayloadError):
    """An encoded value is larger than its limit. Both in bytes."""

    code = "HR7003"

    def __init__(self, *, actual_bytes: int, limit_bytes: int) -> None:
        super().__init__("$", f"{actual_bytes} bytes are more than the limit of {limit_bytes} bytes")
        self.actual_bytes = actual_bytes
        self.limit_bytes = limit_bytes


class PayloadType(Generic[T]):
    """One annotation's JSON form. Immutable; shared by everything with that annotation."""

    __slots__ = ("_decode", "_encode", "_faithful", "annotation", "uses_pydantic")

    def __init__(self, annotation: object, *, name: str = "payload") -> None:
        """DefinitionError (HR2031), naming `name`: something in the annotation has no faithful JSON form."""
        found = survey(annotation, name=name)
        self.annotation = annotation
        self.uses_pydantic = found.pydantic
        self._faithful = found.faithful_equality
        try:
            codec = _with_pydantic(annotation) if found.pydantic else _with_msgspec(annotation)
        except Exception as error:
            raise refused(name, annotation, _first_line(error)) from error
        self._encode: Callable[[object], bytes] = codec[0]
        self._decode: Callable[[bytes], T] = codec[1]

    def __repr__(self) -> str:
        return f"PayloadType({self.annotation!r})"

    def decode(self, raw: bytes) -> T:
        """The value. PayloadError (HR7001): malformed JSON, or JSON that does not fit the annotation."""
        try:
            return self._decode(raw)
        except Exception as error:
            raise _undecodable(error) from error

    def encode(self, value: object, *, limit_bytes: int | None = None) -> bytes:
        """JSON that decodes to the same. PayloadError (HR7002): there is none; PayloadTooLarge before further work."""
        try:
            raw = self._encode(value)
            if limit_bytes is not None and len(raw) > limit_bytes:
                raise PayloadTooLarge(actual_bytes=len(raw), limit_bytes=limit_bytes)
            check_nesting(raw, nesting_max=NESTING_MAX)
            back = self._decode(raw)
            if not (self._faithful and back == value):  # equal: no set, NaN or other type can be inside. 0.1 us
                _refuse_unfaithful(value, "$")
                _compare(value, back, "$")
        except PayloadError:
            raise
        except Exception as error:
            raise _unencodable(value, error) from error
        return raw


class ArgumentsType:
    """A handler's parameters: its arguments are one JSON array, in the order of the parameters."""

    __slots__ = ("_decode_all", "_encode_all", "_faithful", "names", "required", "types")

    def __init__(self, names: Sequence[str], types: Sequence[PayloadType[Any]], *, required: int) -> None:
        """`required` is how many have no default; fewer than all may be given."""
        self.names = tuple(names)
        self.types = tuple(types)
        self.required = required
        self._faithful = all(kind._faithful for kind in types)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        whole = required == len(self.types) and not any(kind.uses_pydantic for kind in types)
        annotations = tuple(kind.annotation for kind in types)
        self._decode_all: Callable[[bytes], tuple[object, ...]] | None = (
            msgspec.json.Decoder(cast("Any", tuple.__class_getitem__(annotations))).decode if whole else None
        )

    def encode(self, arguments: tuple[object, ...], *, limit_bytes: int | None = None) -> bytes:
        """The array. PayloadError (HR7002) names the parameter; TypeError if too few or too many are given."""
        count = len(arguments)
        if not self.required <= count <= len(self.types):
            raise TypeError(f"takes {self._counted()} ({', '.join(self.names)}), but {count} were given")
        raw = self._encode_whole(arguments) if self._decode_all is not None else self._encode_each(arguments)
        if limit_bytes is not None and len(raw) > limit_bytes:
            raise PayloadTooLarge(actual_bytes=len(raw), limit_bytes=limit_bytes)
        return raw

    def decode(self, raw: bytes) -> tuple[object, ...]:
        """Fresh values, nobody else's. PayloadError (HR7001) names the parameter."""
        try:
            if self._decode_all is not None:
                return self._decode_all(raw)
            parts = _split_array(raw)
        except Exception as error:
            raise self._named(_undecodable(error)) from error
        if not self.required <= len(parts) <= len(self.types):
            raise PayloadError("$", f"{self._counted()} are expected, {len(parts)} are there")
        return tuple(self._each(lambda kind, part: kind.decode(bytes(part)), parts))

    def _encode_whole(self, arguments: tuple[object, ...]) -> bytes:
        decode = self._decode_all
        try:
            raw = _encode_json(arguments)
            check_nesting(raw, nesting_max=NESTING_MAX)
            if decode is not None and self._faithful and decode(raw) == arguments:
                return raw
        except Exception:  # noqa: BLE001, S110 - said better below, with the parameter's name
            pass
        return self._encode_each(arguments)

    def _encode_each(self, arguments: tuple[object, ...]) -> bytes:
        return b"[" + b",".join(self._each(lambda kind, value: kind.encode(value), arguments)) + b"]"

    def _each(self, act: Callable[[PayloadType[Any], Any], Any], values: Sequence[object]) -> Iterator[Any]:
        for name, kind, value in zip(self.names, self.types, values, strict=False):  # defaults need no value
            try:
                yield act(kind, value)
            except PayloadError as error:
                raise PayloadError(f"{name}{error.path[1:]}", error.reason, code=error.code) from error

    def _named(self, error: PayloadError) -> PayloadError:
        index, bracket, rest = error.path.removeprefix("$[").partition("]")
        if not (error.path.startswith("$[") and bracket and index.isdigit()):
            return error
        return PayloadError(f"{self.names[int(index)]}{rest}", error.reason, code=error.code)

    def _counted(self) -> str:
        most = len(self.types)
        return f"{most} argument(s)" if self.required == most else f"{self.required} to {most} arguments"


def payload_type(annotation: object, *, name: str = "payload") -> PayloadType[Any]:
    """The PayloadType of an annotation, made once. DefinitionError names `name`."""
    try:
        return _cached(annotation)
    except (DefinitionError, TypeError):  # refused, or not hashable: made here, for the name in the message
        return PayloadType(annotation, name=name)


@lru_cache(maxsize=_ANNOTATIONS_MAX)
def _cached(annotation: object) -> PayloadType[Any]:
    return PayloadType(annotation)


# --- the two libraries ------------------------------------------------------------------------------------------------


def _with_msgspec(annotation: object) -> tuple[Callable[[object], bytes], Callable[[bytes], Any]]:
    return _encode_json, msgspec.json.Decoder(cast("Any", annotation)).decode


def _with_pydantic(annotation: object) -> tuple[Callable[[object], bytes], Callable[[bytes], Any]]:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(cast("Any", annotation))

    def encode(value: object) -> bytes:
        return adapter.dump_json(value, by_alias=True, warnings="error")

    def decode(raw: bytes) -> object:
        _decode_json(raw)  # pydantic's parser accepts NaN and 1e400; 0.1 us
        return adapter.validate_json(raw)

    return encode, decode


# --- what a round trip must keep: only for values that are not simply equal -------------------------------------------


def _refuse_unfaithful(value: object, path: str) -> None:
    """Raise PayloadError if a set or a float that is no number is inside."""
    if isinstance(value, collections.abc.Set):
        kind = type(cast("object", value)).__name__
        raise _bad(path, f"a {kind} has no order that is the same in every process; return a list")
    if isinstance(value, float) and not math.isfinite(value):
        raise _bad(path, f"{value} is not a number in JSON")
    for inner_path, inner in _inside(value, path):
        _refuse_unfaithful(inner, inner_path)


def _inside(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, collections.abc.Mapping):
        for key, item in cast("collections.abc.Mapping[object, object]", value).items():
            yield f"{path}.{key}", item
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("list[object]", value)):
            yield f"{path}[{index}]", item
    else:
        for name in field_names(type(value)):
            yield f"{path}.{name}", getattr(value, name, None)


def _compare(value: object, back: object, path: str) -> None:
    """Raise PayloadError where a round trip changed a type. Equal types with other contents are the model's own
    doing.
    """
    fields = field_names(type(back))
    if fields:
        if not isinstance(value, type(back)):
            raise _changed(value, back, path)
        for name in fields:
            _compare(getattr(value, name, _MISSING), getattr(back, name, _MISSING), f"{path}.{name}")
    elif isinstance(back, dict):
        _compare_mappings(value, cast("dict[object, object]", back), path)
    elif isinstance(back, (list, tuple)):
        _compare_sequences(value, cast("list[object]", back), path)
    elif not (isinstance(value, type(back)) or (type(back) is float and type(value) is int)):
        raise _changed(value, back, path)


def _compare_mappings(value: object, back: dict[object, object], path: str) -> None:
    if not isinstance(value, collections.abc.Mapping):
        raise _changed(value, back, path)
    mapping = cast("collections.abc.Mapping[object, object]", value)
    for key, item in mapping.items():
        inner = back.get(key, _MISSING)
        if inner is _MISSING and not isinstance(key, str):
            raise _bad(path, f"the key {key!r:.80} is not text")
        if inner is not _MISSING:  # a model may leave a key out
            _compare(item, inner, f"{path}.{key}")


def _compare_sequences(value: object, back: list[object], path: str) -> None:
    if not isinstance(value, (list, tuple, collections.abc.Sequence)) or isinstance(value, (str, bytes, bytearray)):
        raise _changed(value, back, path)
    items = cast("collections.abc.Sequence[object]", value)
    if len(items) != len(back):
        raise _bad(path, f"{len(items)} items became {len(back)}")
    for index, (item, inner) in enumerate(zip(items, back, strict=True)):
        _compare(item, inner, f"{path}[{index}]")


@lru_cache(maxsize=_ANNOTATIONS_MAX)
def field_names(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a struct, dataclass, named tuple or model that its JSON shows; empty for any other class."""
    if issubclass(kind, pydantic.BaseModel):
        return tuple(name for name, field in kind.model_fields.items() if not field.exclude)
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(field.name for field in cast("Any", kind).__attrs_attrs__)
    named: tuple[str, ...] = getattr(cast("Any", kind), "_fields", ())
    return named if issubclass(kind, tuple) else ()


# --- errors -----------------------------------------------------------------------------------------------------------


def _undecodable(error: Exception) -> PayloadError:
    if isinstance(error, PayloadError):
        return error
    path, reason = _place_of(error)
    return PayloadError(path, reason)


def _unencodable(value: object, error: Exception) -> PayloadError:
    """Say what is wrong with the value; a library's complaint about its JSON comes second."""
    try:
        _refuse_unfaithful(value, "$")
    except PayloadError as better:
        return better
    except Exception:  # noqa: BLE001, S110 - contains itself, or its fields cannot be read: the first error says so
        pass
    path, reason = _place_of(error)
    return _bad(path, reason)


def _place_of(error: Exception) -> tuple[str, str]:
    if isinstance(error, (RecursionError, NestedTooDeep)):
        return "$", f"it is nested too deeply (more than {NESTING_MAX}), or contains itself"
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        return f"${path}", first["msg"][:_REASON_CHARS_MAX]
    if isinstance(error, UnicodeError):
        return "$", "it contains text that is not valid Unicode"
    text = _first_line(error)
    place = _PATH_AT_END.search(text)
    if place is None:
        return "$", text
    return place[1], text[: place.start()]


def _first_line(error: Exception) -> str:
    try:
        lines = str(error).splitlines()
    except Exception:  # noqa: BLE001 - user code
        lines = []
    if isinstance(error, pydantic.errors.PydanticUserError | msgspec.MsgspecError | TypeError) or not lines:
        return (lines[0] if lines else type(error).__name__)[:_REASON_CHARS_MAX]
    shown = next((line.strip() for line in lines[1:] if line.strip()), lines[0])
    return _QUOTED_INPUT.sub("", shown)[:_REASON_CHARS_MAX]


def _changed(value: object, back: object, path: str) -> PayloadError:
    return _bad(path, f"a {type(value).__qualname__} was given, but a {type(back).__qualname__} would be read back")


def _bad(path: str, reason: str) -> PayloadError:
    return PayloadError(path, reason, code="HR7002")
