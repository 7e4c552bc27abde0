"""Errors that come together: what an exception group is made of, and the one by which it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterator


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside, at any depth and in order; the error itself if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[Any]", error).exceptions:
            yield from leaves(inner)
    else:
        yield error


def first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first that has a code of ours; else the first."""
    found = list(leaves(group))
    return next((leaf for leaf in found if isinstance(leaf, HeadraceError)), found[0])
