"""The judge's part about child runs, by a reckoning of its own: each begins once, its end is its parent's result once, and who is given up is cancelled.

I16  a child that the log has begun is there, is begun once, and by nobody else; what it gives its parent is what it ended with
     a child that nobody waits for any more is told so, after its start; nobody else is
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from headrace.topics.command import ChildEnded, Start
from headrace.topics.identity import Coordinates, run_id
from headrace.topics.outcome import ChildStarted
from headrace.topics.partition_hash import partition_of
from tests.simulation.chain import Finished
from tests.simulation.program import Program

if TYPE_CHECKING:
    from tests.simulation.judge import Run

RUNS = "sim.runs"
_Identity = tuple[int, int, str]
"""Of a message between runs: partition and offset of the record that made it, and its index among those."""


class _Child(NamedTuple):
    parent: str
    step: str
    started: ChildStarted


class Family:
    """`outbox` are the judge's entries that have not left. `violated` as the judge's."""

    def __init__(self, partitions: int, outbox: dict[str, str], violated: Callable[[str], None]) -> None:
        self.began = self.told = self.given_up = 0
        self._count = partitions
        self._outbox = outbox
        self._violated = violated
        self._children: dict[str, _Child] = {}
        self._doomed: set[str] = set()  # nobody waits for them
        self._messages: dict[str, _Identity] = {}  # by outbox entry

    def starts(self, partition: int, offset: int, run: "Run", started: ChildStarted) -> None:
        """A run that is open begins a child, by a record that counts."""
        step = started.step
        if step in run.settled or step in run.children:
            return
        self.began += 1
        place = started.key or f"{run.id}{step}"
        identity = Coordinates(0, RUNS, partition, offset, "0", 0)
        child = run_id(partition_of(place.encode(), self._count), identity)
        self._children[child] = _Child(run.id, step, started)
        self._put(partition, f"{run.id}{step}", offset, 0)
        if started.awaited:
            run.children[step] = child
        else:
            run.settled[step] = offset
            run.finished.append(Finished(step, "succeeded", run.id))

    def gives_up(self, partition: int, offset: int, run: "Run", steps: Iterable[str], first: int = 0) -> None:
        """A run waits for these steps no more."""
        for index, step in enumerate([step for step in dict.fromkeys(steps) if step in run.children], first):
            self._doomed.add(run.children.pop(step))
            self.given_up += 1
            self._put(partition, f"child.cancel/{run.id}{step}", offset, index)

    def ends(self, partition: int, offset: int, run: "Run") -> None:
        """A run has ended."""
        parent = run.start.parent
        awaited = parent is not None and parent.awaited and run.of is None
        if parent is not None and awaited:
            self._put(partition, f"child.ended/{parent.run}{parent.step}", offset, 0)
        self.gives_up(partition, offset, run, sorted(run.children), first=int(awaited))

    def opens(self, where: str, run: str, start: Start) -> None:
        """The start of a child counts."""
        parent, child = start.parent, self._children.get(run)
        if child is None or parent is None or (child.parent, child.step) != (parent.run, parent.step):
            self._violated(f"I16 {where} starts {run} as a child, which nobody has begun: {parent}")
        elif (start.workflow, bytes(start.input)) != (child.started.workflow, bytes(child.started.input)):
            self._violated(f"I16 {where} starts {run} as another workflow than {child.parent}{child.step} asked for")

    def cancels(self, where: str, run: str, *, there: bool) -> None:
        """A run is cancelled by another one."""
        if run not in self._doomed:
            self._violated(f"I16 {where} cancels {run}, and its parent waits for it")
        elif not there:
            self._violated(f"I16 {where} cancels {run} before it begins")

    def result(self, where: str, offset: int, parent: "Run | None", child: "Run | None", told: ChildEnded) -> None:
        """A child says how it ended. It counts if its parent waits for it."""
        end = None if child is None else child.ended
        if end is None or (end.status, bytes(end.result)) != (told.status, bytes(told.result)):
            self._violated(f"I16 {where} says that {told.child} ended {told.status}, and by the log: {end}")
        if parent is None or parent.ended is not None or parent.children.pop(told.step, None) is None:
            return
        self.told += 1
        parent.settled[told.step] = offset
        succeeded = told.status == "succeeded"
        parent.finished.append(Finished(told.step, "succeeded" if succeeded else "failed", parent.id))

    def left(self, where: str, entry: str, has: Callable[[tuple[int, str, int, int, str]], bool]) -> None:
        """A message is said to be where it goes. `has`: whether a partition has accepted a command of this identity."""
        partition, offset, n = self._messages[entry]
        if not has((0, RUNS, partition, offset, n)):
            self._violated(f"P1 {where}: {entry} is said to be sent and is not there")

    def program_of(self, run: str) -> Program | None:
        """What a child was asked for; None: it is none."""
        child = self._children.get(run)
        return None if child is None else msgspec.json.decode(bytes(child.started.input), type=Program)

    def at_the_end(self, runs: dict[str, "Run"]) -> None:
        """Whether all that were begun are there."""
        for run, child in self._children.items():
            if run not in runs:
                self._violated(f"I16 {child.parent}{child.step} began {run}, which is not there")

    def _put(self, partition: int, entry: str, offset: int, index: int) -> None:
        self._outbox[f"{partition}/{entry}"] = "message"
        self._messages[f"{partition}/{entry}"] = (partition, offset, str(index))
