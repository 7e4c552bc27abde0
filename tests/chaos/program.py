"""Random programs for runs, and the oracle: what a run that plays one must end as, computed without any engine."""

import random
from typing import Literal
from zlib import crc32

import msgspec

Status = Literal["succeeded", "compensated", "failed", "parked", "hanging", "cancelled"]
Operation = tuple[str, int, int]
"""Verb and two numbers; what they mean is in `apps/programs.py`."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """An input. `turn`: one at a time for each group, in order."""

    id: str
    group: str
    program: tuple[Operation, ...]
    turn: bool = False


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What must be: the ending, the sum of the result, the tasks by place and branch, and what is undone, in order.

    `optional`: tasks that a race or a failure may give up before they have begun.
    """

    status: Status
    sum: int
    tasks: frozenset[tuple[int, int]]
    optional: frozenset[tuple[int, int]]
    undone: tuple[int, ...]
    retried: frozenset[tuple[int, int, int]]
    """Place, branch and number of the attempt that succeeds, of tasks that fail first."""


def value(job: str, place: int, branch: int) -> int:
    """What a task answers."""
    return crc32(f"{job}/{place}/{branch}".encode()) % 1000


def expected(job: Job) -> Expected:
    """Walk the program as a reader would."""
    total, undoable = 0, list[int]()
    tasks, optional, retried = set[tuple[int, int]](), set[tuple[int, int]](), set[tuple[int, int, int]]()
    status: Status = "succeeded"
    fails_later = any(verb in _ENDS for verb, _, _ in job.program)
    for place, (verb, _, more) in enumerate(job.program):
        match verb:
            case "call" | "undoable" | "thread" | "block":
                counted = branches = 1
            case "nap":
                counted = branches = 2
            case "gather" | "map":
                counted = branches = more
            case "caught":
                counted, branches, total = 0, 1, total + 1
            case "forbidden" | "refused":
                counted = branches = 0
            case _:  # race, unawaited, throw, hang: a task whose answer is in no sum
                counted, branches = 0, 1
        given_up = verb == "race" or (verb == "unawaited" and fails_later)
        (optional if given_up else tasks).update((place, branch) for branch in range(branches))
        if verb in {"call", "undoable"}:
            retried.add((place, 0, more + 1))
        elif verb == "gather":
            retried |= {(place, branch, branch % 2 + 1) for branch in range(branches)}
        total += sum(value(job.id, place, branch) for branch in range(counted))
        if verb == "undoable":
            undoable.insert(0, place)
        if verb == "hang" and job.program[place + 1 :] and job.program[place + 1][0] == "cancelled":
            status = "cancelled"  # by somebody, while it hangs
            break
        if verb in _ENDS:
            status = _ENDS[verb] if verb != "throw" or undoable else "failed"
            break
    undone = tuple(undoable) if status == "compensated" else ()
    return Expected(
        status=status,
        sum=total,
        tasks=frozenset(tasks),
        optional=frozenset(optional),
        undone=undone,
        retried=frozenset(retried),
    )


_ENDS: dict[str, Status] = {"throw": "compensated", "forbidden": "parked", "refused": "failed", "hang": "hanging"}


def random_job(rng: random.Random, number: int, *, groups: int = 12) -> Job:
    """Every kind of step; one in nine fails on purpose and is undone."""
    turn = number % 4 == 3
    program: list[Operation] = [_operation(rng) for _ in range(rng.randrange(1, 3 if turn else 5))]
    if number % 9 == 5:
        program += [("undoable", rng.randrange(4), 0), ("undoable", 1, rng.randrange(2)), ("throw", 0, 0)]
    return Job(id=f"j{number}", group=f"g{rng.randrange(groups)}", program=tuple(program), turn=turn)


def _operation(rng: random.Random) -> Operation:
    match rng.choice(
        ("call", "call", "call", "undoable", "thread", "nap", "gather", "map", "race", "unawaited", "caught")
    ):
        case ("call" | "undoable" | "unawaited") as verb:
            return verb, rng.randrange(12), rng.choice((0, 0, 0, 1, 2))
        case "nap":
            return "nap", rng.randrange(1, 60), 0
        case ("gather" | "map") as verb:
            return verb, rng.randrange(8), rng.randrange(2, 4)
        case verb:
            return verb, rng.randrange(6), 0
