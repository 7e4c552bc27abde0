"""`headrace dlq redrive|resolve`: dead letters are sent to their topics again, or put aside for good. One, some, or many by options."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec
from cyclopts import Parameter

from headrace.service.cli.client import opened
from headrace.service.cli.dlq_option import DryRun, LetterArguments, LetterOptions, Note, Yes, by
from headrace.service.cli.exit_code import ExitCode, Usage
from headrace.service.cli.option import Common, options, warn
from headrace.service.cli.output import counted, show_one
from headrace.service.letters.book import NOT_RESOLVED, OPEN_STATES, LetterState
from headrace.service.letters.letters import Letters
from headrace.service.letters.redrive import Progress, redrive_many, redrive_one
from headrace.service.letters.resolve import Resolved
from headrace.service.letters.resolve import resolve as resolved_of
from headrace.service.names import Names
from headrace.topics.log import TopicPartition

_Again = Annotated[
    bool, Parameter(negative="", help="Also what was redriven or resolved before: it starts its runs once more.")
]
_Rate = Annotated[float, Parameter(help="At most so many a second; 0: as fast as it goes.")]


async def redrive(
    *ids: LetterArguments,
    letters: LetterOptions | None = None,
    again: _Again = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    rate: _Rate = 0.0,
    note: Note = "",
    common: Common | None = None,
) -> ExitCode:
    """Send dead letters to their topics again: the original bytes, and headers that say where they come from."""
    common, wanted = options(common), letters or LetterOptions()
    if rate < 0:
        raise Usage(f"--rate {rate} is negative.", do="Use 0 for no limit.")
    _one_of_both(ids, wanted)
    settings = common.load().settings
    states = frozenset(LetterState) if again else OPEN_STATES
    async with opened(settings) as log:
        desk = Letters(log, Names(settings.app.name))
        if len(ids) == 1 and not dry_run:
            done = await redrive_one(desk, ids[0], by(note), again=again)
            show_one(msgspec.structs.asdict(done), common.output, name="id")
            return ExitCode.OK
        selected = await _selected(desk, ids, wanted, states)
        progress = Progress(selected=sum(map(len, selected.values())))
        if _goes_on(progress.selected, "redriven", sure=yes or bool(ids), dry_run=dry_run):
            async with aclosing(redrive_many(desk, selected, by(note), rate=rate, again=again)) as steps:
                async for progress in steps:
                    _tell(progress.done, progress.selected)
    show_one(msgspec.structs.asdict(progress), common.output, name="redriven")
    return _ended(progress.skipped + progress.refused)


async def resolve(
    *ids: LetterArguments,
    letters: LetterOptions | None = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    note: Note = "",
    common: Common | None = None,
) -> ExitCode:
    """Say that dead letters need nothing more: they are no longer counted, and deleted as far as everything before them is resolved, too."""
    common, wanted = options(common), letters or LetterOptions()
    _one_of_both(ids, wanted)
    settings = common.load().settings
    async with opened(settings) as log:
        desk = Letters(log, Names(settings.app.name))
        selected = await _selected(desk, ids, wanted, NOT_RESOLVED)
        progress = Resolved(selected=sum(map(len, selected.values())))
        if _goes_on(progress.selected, "resolved", sure=yes or bool(ids), dry_run=dry_run):
            async with aclosing(resolved_of(desk, selected, by(note))) as steps:
                async for progress in steps:
                    _tell(progress.resolved + progress.skipped, progress.selected)
    if progress.not_deleted:
        warn(f"They are resolved, and not deleted: {progress.not_deleted}")
    show_one(msgspec.structs.asdict(progress), common.output, name="resolved")
    return ExitCode.OK


def _one_of_both(ids: Sequence[str], wanted: LetterOptions) -> None:
    if bool(ids) == wanted.are_given:
        raise Usage(
            "Name dead letters, or choose them by options: one of both.",
            do="`headrace dlq list` names them; --topic, --stage, --code, --workflow, --since and --state choose; --state open is all.",
        )


async def _selected(
    desk: Letters, ids: Sequence[str], wanted: LetterOptions, states: frozenset[LetterState]
) -> Mapping[TopicPartition, Sequence[int]]:
    """Offsets by partition, the oldest first."""
    if not ids:
        return await desk.selected(wanted.filter(desk.names.app, states))
    return await desk.placed(ids)


def _goes_on(count: int, done: str, *, sure: bool, dry_run: bool) -> bool:
    """Whether to do it: said how many, and asked."""
    letters = counted(count, "dead letter")
    if dry_run or not count:
        warn(f"{letters} would be {done}." if count else "No dead letter is meant.")
        return False
    if sure:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Usage(f"{letters} would be {done}, and nobody can be asked.", do="Give --yes; --dry-run only counts.")
    print(f"{letters} will be {done}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _tell(done: int, of: int) -> None:
    """Where people watch, how far it is."""
    if of > 1 and sys.stderr.isatty():
        print(f"\r{done} of {of}", end="\n" if done >= of else "", file=sys.stderr, flush=True)


def _ended(left: int) -> ExitCode:
    return ExitCode.CONFLICT if left else ExitCode.OK
