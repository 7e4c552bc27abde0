"""What is kept of an exception: text for people, one line, bounded, safe to print.

Pure. It reads exceptions of user code, whose `__str__` may do anything; it never raises.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, cast

from headrace.topics.error_group import leaves

MESSAGE_BYTES_MAX: Final = 1024  # of UTF-8; a record of the run log carries one per failed attempt
NAME_BYTES_MAX: Final = 200
_CUT: Final = "…"
_LEAVES_MAX: Final = 10  # of a group; a TaskGroup has one error as a rule


def message_of(error: BaseException) -> str:
    """What the error says: at most MESSAGE_BYTES_MAX, control characters escaped. Empty if it says nothing.

    A group, such as a TaskGroup's, says what is inside, for its own text is a number.
    """
    try:
        text = str(error)
        if isinstance(error, BaseExceptionGroup):
            inside = (
                f"{name_of(leaf)}: {message_of(leaf)}"
                for leaf in islice(leaves(cast("BaseException", error)), _LEAVES_MAX)
            )
            text = f"{text}: {'; '.join(inside)}"
    except BaseException as inner:  # noqa: BLE001 - user code: SystemExit must not end the loop
        text = f"(its text cannot be made: {type(inner).__name__})"
    return one_line(text)


def name_of(error: BaseException) -> str:
    """The class: `ValueError`, `shop.errors.OutOfStock`."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return one_line(f"{module}{kind.__qualname__}", bytes_max=NAME_BYTES_MAX)


def one_line(text: str, *, bytes_max: int = MESSAGE_BYTES_MAX) -> str:
    """`text` without anything that breaks or colours a line, at most `bytes_max` bytes of UTF-8; an ellipsis marks
    the cut.
    """
    start = text[:bytes_max]
    if not start.isprintable():
        start = "".join(each if each.isprintable() else _escaped(each) for each in start)
    encoded = start.encode()
    if len(encoded) <= bytes_max and len(text) <= bytes_max:
        return start
    return encoded[: bytes_max - len(_CUT.encode())].decode(errors="ignore") + _CUT


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
