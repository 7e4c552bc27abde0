"""The one error that a group of tasks is told by: ours before others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterator


def first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first that has a code of ours, at any depth; else the first."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, HeadraceError)), leaves[0])


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[Any]", error))
        else:
            yield error
