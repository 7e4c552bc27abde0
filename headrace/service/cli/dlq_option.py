"""The options by which `headrace dlq` chooses dead letters."""

import getpass
import time
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from headrace.service.cli.exit_code import Usage
from headrace.service.cli.option import seconds
from headrace.service.letters.book import OPEN_STATES, STATE_WORDS, LetterState
from headrace.service.letters.redrive import By
from headrace.service.letters.view import LetterFilter
from headrace.topics.dead_letter import Stage

LetterArgument = Annotated[str, Parameter(help="The dead letter, as TOPIC.dlq/PARTITION/OFFSET.")]
LetterArguments = Annotated[
    str, Parameter(help="Dead letters, as TOPIC.dlq/PARTITION/OFFSET; or choose many by options.")
]
Yes = Annotated[bool, Parameter(name=("--yes", "-y"), negative="", help="Do not ask.")]
DryRun = Annotated[bool, Parameter(name="--dry-run", negative="", help="Say how many; change nothing.")]
Note = Annotated[str, Parameter(help="Why, for those who look later.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LetterOptions:
    """Which dead letters. What is left out may be anything."""

    topic: Annotated[str | None, Parameter(help="Of this source topic, or in this dead-letter topic.")] = None
    stage: Annotated[str | None, Parameter(name=("--stage", "--reason"), help="decode, match, start or emit.")] = None
    code: Annotated[str | None, Parameter(help="Of this error code, such as HR3030.")] = None
    workflow: Annotated[str | None, Parameter(help="Refused by this workflow.")] = None
    since: Annotated[str | None, Parameter(help="Of the last 2h, say.")] = None
    state: Annotated[str | None, Parameter(help="open, redriven, resolved or all.", show_default=False)] = None

    @property
    def are_given(self) -> bool:
        """Whether anything was said."""
        return self != LetterOptions()

    def filter(self, app: str, default: frozenset[LetterState] = OPEN_STATES) -> LetterFilter:
        """What is wanted. `default`: states, if none is named. Raises `Usage`."""
        if self.stage is not None and self.stage not in set(Stage):
            raise Usage(f"--stage {self.stage} is unknown.", do=f"Use one of {', '.join(Stage)}.")
        if self.state is not None and self.state not in STATE_WORDS:
            raise Usage(f"--state {self.state} is unknown.", do=f"Use one of {', '.join(STATE_WORDS)}.")
        within_s = seconds(self.since, "--since")
        return LetterFilter(
            app=app,
            topic=self.topic,
            stage=self.stage,
            code=self.code,
            workflow=self.workflow,
            since_ms=None if within_s is None else round((time.time() - within_s) * 1000),
            states=default if self.state is None else STATE_WORDS[self.state],
        )


def by(note: str) -> By:
    """Who types this."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, in a container
        name = "unknown"
    return By(name, note)
