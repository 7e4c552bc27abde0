"""What an answer out of the run log may lack, in sentences for people: for the notes of the API, and the command line's stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.topics.event import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.topics.errors import Fatal


def unread(problems: Sequence[Fatal]) -> tuple[str, ...]:
    """Partitions were not read to their end: what stopped each."""
    return tuple(f"{problem.code}: {problem.message} What follows is incomplete." for problem in problems)


def trimmed(what: str, at_ms: int) -> str:
    """The run log begins later than that: `what` says which entries went with its first records, such as "Runs that ended"."""
    return f"{what} before {format_time(at_ms)} may be missing: the run log was trimmed."
