"""What an annotation contains: found out once, when an app is loaded.

Pure. It decides which library reads and writes a type (pydantic as soon as one of its models is inside, else
msgspec), and refuses what has no faithful JSON form. Called by `payload.py` only.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, cast
from uuid import UUID

import msgspec
import pydantic

from headrace.topics.errors import DefinitionError

_PLAIN: Final[frozenset[object]] = frozenset(
    {
        Any,
        object,
        NoneType,
        None,
        bool,
        int,
        float,
        str,
        bytes,
        bytearray,
        datetime,
        date,
        time,
        timedelta,
        UUID,
        Decimal,
    }
    | {list, dict, tuple, msgspec.Raw, msgspec.UnsetType, typing.Never, typing.NoReturn}
    | {collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection, collections.abc.Mapping}
    | {collections.abc.MutableMapping, typing.Annotated, typing.Union, UnionType, typing.Literal, typing.Final}
    | {typing.Required, typing.NotRequired}
)
_SETS: Final[type[Any]] = collections.abc.Set
_SECRETS: Final[tuple[type[Any], ...]] = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)


class Survey:
    """What was found: `pydantic` and `struct` exclude each other; `faithful_equality`: `==` compares every field."""

    __slots__ = ("faithful_equality", "pydantic", "seen", "struct", "unknown")

    def __init__(self) -> None:
        self.pydantic = False
        self.struct = False
        self.faithful_equality = True
        self.unknown: list[tuple[str, object]] = []
        self.seen: set[int] = set()


def survey(annotation: object, *, name: str) -> Survey:
    """Look through an annotation. DefinitionError (HR2031) names the place of what cannot be a payload."""
    found = Survey()
    _look(annotation, name, found)
    if found.pydantic and found.struct:
        raise refused(
            name, annotation, "it mixes pydantic models with msgspec structs; neither library reads the other's"
        )
    if found.unknown and not found.pydantic:  # pydantic knows many more types, and says itself what it cannot do
        place, kind = found.unknown[0]
        raise refused(place, kind, "it is not a type that JSON can carry")
    return found


def refused(place: str, kind: object, why: str) -> DefinitionError:
    """The one error of this file and of `payload.py` for an annotation."""
    return DefinitionError(
        f"{place}: {_shown(kind)} cannot be a payload: {why}.",
        code="HR2031",
        do="Use pydantic models, dataclasses, msgspec structs or plain JSON types.",
    )


def _shown(kind: object) -> str:
    return kind.__qualname__ if isinstance(kind, type) and typing.get_origin(kind) is None else repr(kind)


def _look(kind: object, place: str, found: Survey) -> None:
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return
    if origin is typing.Annotated:
        base, *notes = typing.get_args(kind)
        found.pydantic |= any(_is_pydantic_note(note) for note in notes)
        _look(base, place, found)
        return
    for inner in typing.get_args(kind) if origin is not None else ():
        if inner is not Ellipsis:
            _look(inner, place, found)
    if origin is not None:
        kind = origin
    if isinstance(kind, typing.NewType):
        _look(kind.__supertype__, place, found)
    elif isinstance(kind, typing.TypeVar):
        _look(kind.__bound__ or Any, place, found)
    elif hasattr(kind, "__value__"):  # `type Name = ...`
        _look(cast("Any", kind).__value__, place, found)
    elif isinstance(kind, type):
        _look_at_class(cast("type[Any]", kind), place, found)
    elif not (_is_hashable(kind) and kind in _PLAIN):
        found.unknown.append((place, kind))


def _look_at_class(kind: type[Any], place: str, found: Survey) -> None:
    if issubclass(kind, _SETS):
        raise refused(place, kind, "the order of a set differs between processes; use a list, sorted if order matters")
    if issubclass(kind, _SECRETS):
        raise refused(place, cast("object", kind), "pydantic writes secrets as asterisks, so the value would be lost")
    if id(kind) in found.seen or kind in _PLAIN or issubclass(kind, Enum):
        return
    found.seen.add(id(kind))
    fields = _fields(kind, found)
    if fields is None:
        found.unknown.append((place, kind))
        return
    for field, inner in fields.items():
        _look(inner, f"{place}.{field}", found)


def _fields(kind: type[Any], found: Survey) -> dict[str, object] | None:
    """Field annotations of a class with fields; None for any other class."""
    if issubclass(kind, pydantic.BaseModel):
        found.pydantic = True
        found.faithful_equality &= kind.__eq__ is pydantic.BaseModel.__eq__
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if issubclass(kind, msgspec.Struct):
        found.struct = True
        found.faithful_equality &= kind.__eq__ is msgspec.Struct.__eq__ and kind.__struct_config__.eq
        return _hints(kind)
    if dataclasses.is_dataclass(kind):
        found.pydantic |= "__pydantic_validator__" in kind.__dict__
        found.faithful_equality &= _has_generated_equality(kind)
        hints = _hints(kind)
        return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__attrs_attrs__"):
        found.faithful_equality = False
        return _hints(kind)
    if typing.is_typeddict(kind) or hasattr(kind, "_fields"):
        return _hints(kind)
    return None


def _hints(kind: type[object]) -> dict[str, object]:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - names that cannot be resolved here are reported by the library that reads the type
        return {}
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def _has_generated_equality(kind: type[Any]) -> bool:
    code = getattr(kind.__eq__, "__code__", None)
    generated = code is not None and code.co_filename == "<string>"  # what the dataclass decorator compiles
    return generated and all(field.compare for field in dataclasses.fields(kind))


def _is_pydantic_note(note: object) -> bool:
    return type(note).__module__.partition(".")[0] in {"pydantic", "pydantic_core", "annotated_types"}


def _is_hashable(kind: object) -> bool:
    try:
        hash(kind)
    except TypeError:
        return False
    return True
