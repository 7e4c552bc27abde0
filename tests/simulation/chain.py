"""What a retry of a failed run is given, by the judge's own reckoning: results that are copied, and what is done a second time on purpose."""

from collections.abc import Callable
from typing import Any, NamedTuple

UNDO = "/undo/"


class Finished(NamedTuple):
    """A step that was over when its run ended. `by` is the run that did it. `ended`: succeeded, emitted or failed."""

    step: str
    ended: str
    by: str


class Given(NamedTuple):
    """`copied` steps, with the run that did each, in order; `redone` steps have a key of their own."""

    copied: dict[str, str]
    redone: frozenset[str]


def given(finished: list[Finished], undone: set[str], refused: set[str], from_step: str) -> Given | None:
    """What a retry begins with. `undone` and `refused` are steps. None: `from_step` was not over."""
    copied: dict[str, str] = {}
    redone: set[str] = set()
    behind = False
    for each in finished:
        behind = behind or each.step == from_step
        if each.ended == "failed" or each.step in refused:
            continue
        if each.step in undone or behind:
            redone.add(each.step)
        else:
            copied[each.step] = each.by
    return None if from_step and not behind else Given(copied, frozenset(redone))


def check_keys(run: Any, effects: Any, violated: Callable[[str], None]) -> None:
    """I4 over retries: a task that had not finished keeps its key; one that is done again on purpose has a new one, from that retry on."""
    chain = run.chain()
    for (what, n), keys in effects.begun.get(run.id, {}).items():
        before = [index for index, of in enumerate(chain) if index and (what, n) in effects.begun.get(of.id, {})]
        if what == "lose" or not before:
            continue
        again = any(_redone(each, n, effects) for each in chain[: before[0]])
        known = [effects.begun[chain[index].id][what, n] for index in before]
        if again and any(keys & each for each in known):
            violated(f"I4 {run.id} does {what} {n} a second time on purpose, with the key of an earlier time: {keys}")
        elif not again and what == "act" and keys != known[0]:
            violated(f"I4 {run.id} goes on with {what} {n} and has another key: {keys}, before {known[0]}")


def _redone(run: Any, n: int, effects: Any) -> bool:
    """Whether this call is done a second time from this retry on."""
    by = [effects.call_of.get(f"{of.id}{step}") for of in run.chain()[1:] for step in run.redone]
    return any(each is not None and each[1] == n for each in by)
