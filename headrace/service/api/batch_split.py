"""The items of a JSON array, each as its own text: found in turns with the loop, however many there are.

A parser would give them at once, and take a fifth of a second for a body of small ones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from headrace.service.loop_turn import LARGE_BYTES, LoopTurn

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)
_SKIP = msgspec.json.Decoder(msgspec.Raw)
_STEP = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class NotAnArray(ValueError):
    """The text is no JSON array."""


class TooManyItems(ValueError):
    """It has more items than are taken."""


async def items_of(text: bytes, most: int) -> list[bytes]:
    """The items, in order. What is inside one is well-formed; whether it is UTF-8 is for who reads it. Raises NotAnArray, TooManyItems."""
    turn = LoopTurn()
    if len(text) > LARGE_BYTES:
        await turn.taken()
    try:
        _SKIP.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotAnArray from None
    if not text.lstrip(b" \t\r\n").startswith(b"["):
        raise NotAnArray
    items: list[bytes] = []
    for begin, end in _spans(text):
        if turn.due:
            await turn.taken()
        if begin < 0:
            continue
        if item := text[begin:end].strip(b" \t\r\n"):
            items.append(item)
        if len(items) > most:
            raise TooManyItems
    return items


def _spans(text: bytes) -> Iterator[tuple[int, int]]:
    """Where each item lies; (-1, -1) for every other piece of the text's structure, so that nobody waits long for the next item."""
    depth, begin, quoted = 0, 0, False
    for found in _PIECE.finditer(text):
        piece = found[0]
        if piece == b'"':
            quoted = not quoted
        elif not quoted and piece == b"," and depth == 1:
            yield begin, found.start()
            begin = found.end()
        elif not quoted and piece in _STEP:
            depth += _STEP[piece]
            if depth == 1 and not begin:
                begin = found.end()
            elif not depth:
                yield begin, found.start()
                return
        yield -1, -1
