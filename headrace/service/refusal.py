"""A refusal to start: everything that is wrong, said at once, so that one run of a command is enough to mend it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Refusal(SettingsError):
    """Several problems in one error (exit code 7). `code` is the first one's; `report()` shows each with why and do."""

    def __init__(self, problems: Sequence[SettingsError]) -> None:
        first = problems[0]
        super().__init__(
            "; ".join(problem.message for problem in problems), code=first.code, why=first.why, do=first.do
        )
        self.problems = tuple(problems)

    def report(self) -> str:
        """All problems, one after the other."""
        return "\n\n".join(problem.report() for problem in self.problems)


def refuse(problems: Sequence[SettingsError]) -> None:
    """Raise what there is to raise: nothing, the one problem, or a `Refusal` of all."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Refusal(problems)
