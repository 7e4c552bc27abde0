"""Text that may be printed: no control characters, no secrets, no end without end.

What comes from events, errors and libraries is data of strangers: a line break would forge a line, an escape sequence
would repaint the reader's terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

TEXT_LENGTH_MAX: Final = 2000
"""Of one field; an exception's message may be a megabyte."""
SECRET_LENGTH_MIN: Final = 4
"""Shorter texts are not masked: they would blot out words."""
MASK: Final = "***"


_HINT_LENGTH = 24


def one_line(text: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    """The text with everything unprintable (control characters, line and direction marks, lone surrogates) as visible
    escapes, cut to `length_max`.
    """
    left_out = len(text) - length_max
    if left_out > _HINT_LENGTH:  # what is cut must be longer than what says so
        text = f"{text[:length_max]}… ({left_out} more characters)"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


class Secret:
    """A value that no log, error or `repr` shows. `reveal` is for the one place that needs it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Secrets:
    """Known secrets of this process. The longest is masked first, as one may contain another."""

    def __init__(self, values: Iterable[str | Secret] = ()) -> None:
        self._values: tuple[str, ...] = ()
        for value in values:
            self.add(value)

    def add(self, value: str | Secret) -> None:
        """Mask this from now on."""
        text = value.reveal() if isinstance(value, Secret) else value
        if len(text) >= SECRET_LENGTH_MIN:
            self._values = tuple(sorted({*self._values, text}, key=len, reverse=True))

    def mask(self, text: str) -> str:
        """The text, with `***` for each secret in it."""
        for value in self._values:
            if value in text:
                text = text.replace(value, MASK)
        return text


def passwords_in(address: str) -> Iterator[str]:
    """The password of a URL, as it is written and as it is meant; nothing if it has none, or is no URL."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
