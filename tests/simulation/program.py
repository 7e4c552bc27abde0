"""Random workflow programs with a known answer: what a run does, as data, and what must come of it whatever happens in between.

A program is a list of operations. Every call has a number of its own within the program; its result is `answer(number)`. Only operations whose outcome does not
depend on timing are drawn: a race has one member that can win, a failure for good happens where nothing else is open.
"""

from collections.abc import Collection, Iterator, Sequence
from random import Random
from typing import NamedTuple

import msgspec

ATTEMPTS_MAX = 5  # as the handlers of `app.py` declare


class Call(msgspec.Struct, tag="call"):
    """Call a task: `fails` attempts raise before one succeeds after `ms`. `fatal`: it never does. `hangs`: the first attempt runs into its timeout.

    `kills`: every attempt ends its process, until an operator has seen to it.
    """

    n: int
    fails: int = 0
    ms: int = 0
    fatal: bool = False
    hangs: bool = False
    undo: bool = False
    kills: bool = False
    kind: str = "act"  # act, hanging, pooled, guarded, paced: which handler


class Sleep(msgspec.Struct, tag="sleep"):
    ms: int


class Emit(msgspec.Struct, tag="emit"):
    """`refused`: the topic will never take it."""

    n: int
    refused: bool = False


class Gather(msgspec.Struct, tag="gather"):
    """Branches side by side."""

    branches: list[list["Op"]]


class Race(msgspec.Struct, tag="race"):
    """The operations of `winner` against a task `loser` that takes for ever."""

    winner: list["Op"]
    loser: int


class Map(msgspec.Struct, tag="map"):
    calls: list[Call]
    concurrency: int


class Attempt(msgspec.Struct, tag="try"):
    """A call that fails for good, and is caught."""

    call: Call


class Raise(msgspec.Struct, tag="raise"):
    """The program fails."""


class Die(msgspec.Struct, tag="die"):
    """The workflow's own code ends its process here, whenever it comes by, until an operator has seen to it."""


class Flip(msgspec.Struct, tag="flip"):
    """A call that code of another day does not make, if the log has it already: that code does not fit the log."""

    call: Call


class Sub(msgspec.Struct, tag="sub"):
    """A child run of another program, of the workflow `kind`. One that is not `awaited` is let go; one that `fails` is caught."""

    n: int
    program: "Program"
    kind: str = "free"
    awaited: bool = True
    fails: bool = False


class Forsake(msgspec.Struct, tag="forsake"):
    """The operations of `winner` against a child run that takes for ever."""

    winner: list["Op"]
    program: "Program"


class Forever(msgspec.Struct, tag="forever"):
    """What a child that is given up does to the end: a task, which has its slot, or it `sleeps`."""

    n: int
    sleeps: bool


class Ask(msgspec.Struct, tag="ask"):
    """Ask people, who must decide within `ms` (None: at any time) and have the role ("": none is wanted). What they say does not matter to the program."""

    n: int
    ms: int | None = None
    role: str = ""


class Outrun(msgspec.Struct, tag="outrun"):
    """The operations of `winner` against an approval that nobody decides."""

    n: int
    winner: list["Op"]


Op = Ask | Outrun | Sub | Forsake | Forever | Call | Sleep | Emit | Gather | Race | Map | Attempt | Raise | Die | Flip


class Taste(msgspec.Struct, kw_only=True):
    """What the programs of one plan are like. Chances: `hang`, `refused` per operation; the others per program, `ending` is a failure."""

    size: int
    hang: float = 0.0
    refused: float = 0.0
    poison: float = 0.0
    flip: float = 0.0
    deadly: float = 0.0
    ending: float = 0.08


class Program(msgspec.Struct):
    """What an input asks for. `id` is the input's; `key` is the business key of workflows that have one. `deadly`: who asks for its key dies."""

    id: str
    key: str
    ops: list[Op]
    deadly: bool = False

    @property
    def is_poison(self) -> bool:
        """Whether its runs end their process."""
        return any(isinstance(op, Die) or (isinstance(op, Call) and op.kills) for op in self.ops)


class Answer(NamedTuple):
    """What a program must come to. `values` is the result of one that succeeds; `undone` are calls whose compensation must have run."""

    status: str  # succeeded, failed or compensated
    values: list[int]
    calls: dict[int, Call]  # that must have had an effect
    losers: frozenset[int]  # that may have
    emits: frozenset[int]  # those that are refused included
    undone: frozenset[int]


def answer(number: int) -> int:
    """The result of a call."""
    return number * 7 + 1


class _Counter:
    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> int:
        self.n += 1
        return self.n


def drawn(random: Random, id_: str, key: str, taste: Taste) -> Program:
    """A program of about `taste.size` operations."""
    number = _Counter()
    ops = _ops(random, number, taste.size, taste, depth=0)
    if random.random() < taste.flip:
        ops.insert(random.randint(0, len(ops)), Flip(_call(random, number, 0.0)))
        ops.append(_call(random, number, 0.0))  # it lives on, so that other code may meet it
    if random.random() < taste.poison:
        poison = Die() if random.random() < 0.5 else Call(number(), ms=random.choice((0, 10, 1_500)), kills=True)
        ops.insert(random.randint(0, len(ops)), poison)
    ending = random.random() * 0.08 / taste.ending
    if ending < 0.08:
        ops.append(Raise())
    elif ending < 0.16:
        ops.append(Call(number(), fails=random.randint(0, 2), fatal=True))
    if random.random() < 0.8:
        ops.insert(random.randint(0, len(ops)) if ending >= 0.16 else 0, _emit(random, number, taste))
    return Program(id_, key, ops)


def with_children(random: Random, program: Program, *, calm: bool) -> None:
    """Put some child runs into a program. Where no process dies of a run (`calm`), some of them work for ever: else such a one is on trial for as long."""
    number = _Counter()
    number.n = 1_000  # no call of the program has it
    ops = [_child(random, number, program.id, deep=True, calm=calm) for _ in range(random.choice((1, 1, 2, 3)))]
    if len(ops) > 1 and random.random() < 0.5:
        ops = [Gather([[op] for op in ops])]
    for op in ops:
        program.ops.insert(random.randint(0, max(0, len(program.ops) - 1)), op)


def _child(random: Random, number: _Counter, parent: str, *, deep: bool, calm: bool) -> Op:
    n = number()
    queue = not deep and random.random() < 0.5  # who holds a key waits for nobody that might want it
    child = drawn(random, f"{parent}.{n}", f"c{random.randrange(3)}", Taste(size=2, ending=1e-9))
    chance = random.random()
    if chance < 0.2:
        winner: list[Op] = [_call(random, number, 0.0)] if random.random() < 0.5 else [Sleep(random.choice((1, 300)))]
        child.ops.append(Forever(number(), sleeps=not calm or random.random() < 0.5))
        return Forsake(winner, child)
    if deep and chance < 0.4:
        child.ops.append(_child(random, number, child.id, deep=False, calm=calm))
    if fails := chance > 0.85:
        child.ops.append(Raise())
    awaited = fails or random.random() < 0.75
    return Sub(n, child, kind="queue" if queue else "free", awaited=awaited, fails=fails)


def _ops(random: Random, number: _Counter, size: int, taste: Taste, depth: int) -> list[Op]:
    return [_op(random, number, taste, depth) for _ in range(random.randint(1, max(1, size)))]


def _op(random: Random, number: _Counter, taste: Taste, depth: int) -> Op:
    chance = random.random()
    hang = taste.hang
    if chance < 0.5 or depth >= 2:
        return _call(random, number, hang)
    if chance < 0.65:
        return Sleep(random.choice((1, 20, 300, 2_000, 30_000)))
    if chance < 0.74:
        return _emit(random, number, taste)
    if chance < 0.83:
        return Gather([_ops(random, number, 2, taste, depth + 1) for _ in range(random.randint(1, 3))])
    if chance < 0.89:
        return Race(_ops(random, number, 1, taste, depth + 1), number())
    if chance < 0.96 or depth:
        calls = [_call(random, number, hang) for _ in range(random.randint(1, 4))]
        return Map(calls, random.randint(1, 3))
    return Attempt(Call(number(), fatal=True, fails=random.randint(0, 2)))


def _emit(random: Random, number: _Counter, taste: Taste) -> Emit:
    return Emit(number(), refused=random.random() < taste.refused)


def _call(random: Random, number: _Counter, hang: float) -> Call:
    hangs = random.random() < hang
    return Call(
        number(),
        fails=random.choice((0, 0, 1)) if hangs else random.choice((0, 0, 0, 0, 1, 2, ATTEMPTS_MAX - 1)),
        ms=random.choice((0, 0, 1, 10, 100, 1_500)),
        hangs=hangs,
        undo=random.random() < 0.4,
        kind="hanging" if hangs else random.choice(("act", "act", "act", "pooled", "guarded", "paced")),
    )


def expected(program: Program, *, cured: bool = False, over: Collection[int] = ()) -> Answer:
    """Walk the program. `cured`: what made it fail does so no more. `over`: calls whose result a retry has from before."""
    values: list[int] = []
    calls: dict[int, Call] = {}
    losers: set[int] = set()
    emits: set[int] = set()
    status = "succeeded"
    for op in program.ops:
        if not cured and (isinstance(op, Raise) or (isinstance(op, Call) and op.fatal and op.n not in over)):
            status = "failed"
            if isinstance(op, Call):
                calls[op.n] = op
            break
        mended = msgspec.structs.replace(op, fatal=False) if isinstance(op, Call) else op
        values += _walk([mended], calls, losers, emits)
    done = {n for n, call in calls.items() if call.undo and not call.fatal}
    undone = frozenset(done) if status == "failed" else frozenset[int]()
    if undone:
        status = "compensated"
    return Answer(status, values, calls, frozenset(losers), frozenset(emits), undone)


def _walk(ops: Sequence[Op], calls: dict[int, Call], losers: set[int], emits: set[int]) -> Iterator[int]:
    for op in ops:
        match op:
            case Call() | Flip(call=Call()):
                call = op if isinstance(op, Call) else op.call
                calls[call.n] = call
                yield answer(call.n)
            case Emit(n=n):
                emits.add(n)
            case Gather(branches=branches):
                for branch in branches:
                    yield from _walk(branch, calls, losers, emits)
            case Race(winner=winner, loser=loser):
                losers.add(loser)
                yield from _walk(winner, calls, losers, emits)
            case Map(calls=mapped):
                yield from _walk(mapped, calls, losers, emits)
            case Attempt(call=call):
                calls[call.n] = call
                yield -call.n
            case Sub(n=n, program=program, awaited=awaited):
                if op.fails:
                    yield -n
                elif awaited:
                    yield from expected(program).values
            case Forsake(winner=winner):
                yield from _walk(winner, calls, losers, emits)
            case Ask(n=n):
                yield answer(n)
            case Outrun(winner=winner):
                yield from _walk(winner, calls, losers, emits)
            case Sleep() | Raise() | Die() | Forever():
                pass


_ASKS_FROM = 5_000  # their numbers are far from all others


def ask(random: Random, program: Program) -> None:
    """Let a program ask people, here and there; some of its children, too."""
    for child in program.ops:
        if isinstance(child, Sub) and random.random() < 0.4:
            ask(random, child.program)
    number = _Counter()
    number.n = _ASKS_FROM
    for _ in range(random.choice((1, 1, 2, 4))):
        op: Op = _ask(random, number)
        chance = random.random()
        if chance < 0.2:
            op = Gather([[op], [_ask(random, number), Sleep(random.choice((1, 300)))]])
        elif chance < 0.35:
            op = Outrun(number(), [Sleep(random.choice((1, 300, 6_000))), op])
        program.ops.insert(random.randint(0, len(program.ops)), op)


def _ask(random: Random, number: _Counter) -> Ask:
    return Ask(number(), random.choice((None, 300, 5_000, 30_000)), random.choice(("", "boss")))


def needs(program: Program) -> dict[int, frozenset[int]]:
    """For each call of the program's own sequence (and of what it forks): the calls that are over, by the log, before it may begin."""
    found: dict[int, frozenset[int]] = {}
    before: set[int] = set()
    for op in program.ops:
        inside: dict[int, Call] = {}
        losers: set[int] = set()
        _exhaust(_walk([op], inside, losers, set()))
        if isinstance(op, Call):
            inside[op.n] = op
        found |= dict.fromkeys((*inside, *losers), frozenset(before))
        before |= set(inside)
    return found


def _exhaust(values: Iterator[int]) -> None:
    for _ in values:
        pass
