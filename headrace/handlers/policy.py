"""What policies have in common: the name that shares one, and how `Retry`, `Breaker`, `Pool` and `RateLimit` refuse what was written.

Pure. Called when a user's app is imported: each error is a `DefinitionError` that names the field.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from headrace.topics.errors import DefinitionError

Errors = tuple[type[Exception], ...]

SHARED_INVALID: Final = "HR2036"
"""A policy that is shared by name has a field that cannot be used."""
_SHARED_TWICE: Final = "HR2037"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Field:
    """A field of a policy as it was written, for messages. `policy` is its class, `name` the policy's own; None: it has none."""

    def __init__(
        self, policy: str, field: str, given: object, *, name: str | None = None, code: str = SHARED_INVALID
    ) -> None:
        self._policy = policy
        self._field = field
        self._given = given
        self._name = name
        self._code = code

    def refused(self, why: str) -> DefinitionError:
        """The error to raise. `why` says what the field is."""
        of = self._policy if self._name is None else f"{self._policy} {self._name!r}"
        return DefinitionError(
            f"{of}: {self._field}={self._given!r} is refused: {why}.",
            code=self._code,
            do=f"Change {self._field} in {self._policy}(...).",
        )

    def count(self, maximum: int | None = None) -> int:
        """What was given, if it is a whole number from 1 to `maximum` (None: without end)."""
        given = self._given
        if type(given) is not int or given < 1 or (maximum is not None and given > maximum):
            raise self.refused(f"it is a whole number from 1{'' if maximum is None else f' to {maximum}'}")
        return given

    def errors(self) -> Errors:
        """What was given, if it is a tuple of Exception classes."""
        given = self._given
        if not isinstance(given, tuple):
            raise self.refused("it is a tuple of exception classes, such as (ConnectionError,)")
        for kind in cast("tuple[object, ...]", given):
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise self.refused(f"{kind!r} is not a subclass of Exception")
        return cast("Errors", given)


def checked_name(policy: str, name: Any) -> str:
    """`name`, if it follows the one charset rule. DefinitionError (HR2036)."""
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        message = f"{name!r:.160} is not a name for a {policy}."
        raise DefinitionError(message, code=SHARED_INVALID, do="Use 1 to 128 of A-Z a-z 0-9 _ . -")
    return name


def check_same(what: str, known: object, given: object, *, name: str) -> None:
    """DefinitionError (HR2037) if the name is taken by a policy with other settings. `what` is the policy in words: "pool"."""
    if known != given:
        raise DefinitionError(
            f"Two {what}s are called {name}: {known!r} and {given!r}.",
            code=_SHARED_TWICE,
            why=f"A {what} is shared by name, so its settings can be given only once.",
            do="Define it once and import it, or choose another name.",
        )
