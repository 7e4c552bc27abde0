"""Pages of lists that are made whole: the page behind an entry, wherever it stands by now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from headrace.service.api.cursor import cursor_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Entry(Protocol):
    """What a list holds."""

    @property
    def id(self) -> str:
        """Its name."""
        ...


E = TypeVar("E", bound=Entry)


class Behind(msgspec.Struct, frozen=True):
    """The last entry of a page: when it was, by which the list is sorted (newest first), its id, and how many were seen up to it."""

    at: str
    id: str
    seen: int


def page_of(
    entries: Sequence[E], times: Sequence[str], behind: Behind | None, limit: int
) -> tuple[tuple[E, ...], str | None]:
    """The page behind a place, and the cursor of the next one. An entry that is gone leaves its time as a place."""
    first = 0
    if behind is not None:
        known = next((n for n, entry in enumerate(entries) if entry.id == behind.id), None)
        older = next((n for n, at in enumerate(times) if at < behind.at), len(entries))
        first = older if known is None else known + 1
    page = tuple(entries[first : first + limit])
    if first + limit >= len(entries) or not page:
        return page, None
    seen = (0 if behind is None else behind.seen) + len(page)
    return page, cursor_of(Behind(times[first + limit - 1], page[-1].id, seen))
