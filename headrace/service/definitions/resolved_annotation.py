"""What the annotations of a user's function say, resolved when an app is loaded: by then every forward reference has its target.

Only the annotations that Headrace needs are looked at: `run: Run` may be a name that exists for type checkers alone.
"""

from __future__ import annotations

import typing
from types import FunctionType, SimpleNamespace
from typing import Any

from headrace.service.definitions.definition_code import ANNOTATION_INVALID
from headrace.service.definitions.place import place_of
from headrace.topics.errors import DefinitionError


def resolved_annotation(function: FunctionType, name: str) -> object:
    """The annotation of a parameter, or of the result (`name` is "return"); `Any` if there is none. DefinitionError (HR2012) if it cannot be resolved."""
    annotation: object = function.__annotations__.get(name, Any)
    holder = SimpleNamespace(__annotations__={name: annotation})
    try:
        hints = typing.get_type_hints(
            holder, globalns=function.__globals__, localns=closure_of(function), include_extras=True
        )
    except Exception as error:
        shown = "the result" if name == "return" else f"the parameter {name!r}"
        raise DefinitionError(
            f"{place_of(function)}: the annotation {annotation!r} of {shown} of {function.__name__} cannot be resolved.",
            code=ANNOTATION_INVALID,
            why=f"{type(error).__name__}: {error}",
            do="Import the type at the top of the module, outside of `if TYPE_CHECKING:`.",
        ) from error
    return hints[name]


def closure_of(function: FunctionType) -> dict[str, Any]:
    """The variables of enclosing functions that this one uses, as far as they have a value."""
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    return found
