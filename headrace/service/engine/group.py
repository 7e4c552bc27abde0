"""Groups: several steps as one. They settle with their members, in log order, and give up what is not needed any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace.service.engine.step import Settled, Step
from headrace.topics.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headrace.service.engine.interpreter import Interpreter

T_co = TypeVar("T_co", covariant=True)
U_co = TypeVar("U_co", covariant=True)


class Group(Step[T_co]):
    """Several steps as one. Once it has settled, no member's end changes it."""

    __slots__ = ("_left", "members")

    def __init__(self, interpreter: Interpreter, ref: str) -> None:
        super().__init__(interpreter, ref)
        self.members: list[Step[Any]] = []
        self._left = 0

    def _give_up(self) -> Sequence[Step[Any]]:
        return self.members

    def _cancel_members(self) -> None:
        for member in self.members:
            member.cancel()

    def _watch(self, members: Sequence[Step[Any]]) -> None:
        self.members = list(members)
        self._left = len(self.members)
        for member in self.members:
            member.watch(self)

    def on_settled(self, step: Step[Any]) -> None:
        """One of them has settled."""
        self._left -= 1
        if self._settled is Settled.PENDING:
            self._judge(step)

    def _judge(self, step: Step[Any]) -> None:
        raise NotImplementedError


class Gather(Group[tuple[U_co, ...]]):
    """All of them, results in argument order. The first failure in log order is the group's; the others are given up."""

    __slots__ = ()

    def join(self, members: Sequence[Step[Any]]) -> None:
        """Wait for these."""
        if members:
            self._watch(members)
        else:
            self.succeed(())

    def _judge(self, step: Step[Any]) -> None:
        if step.error is not None:
            self.fail(step.error)
            self._cancel_members()
        elif self._left == 0:
            self.succeed(tuple([member.value for member in self.members]))


class Race(Group[T_co]):
    """The first success; the others are given up. All failed: the last error."""

    __slots__ = ()

    def join(self, members: Sequence[Step[Any]]) -> None:
        """Wait for one of these (at least one)."""
        self._watch(members)

    def _judge(self, step: Step[Any]) -> None:
        if step.error is None:
            self.succeed(step.value)
            self._cancel_members()
        elif self._left == 0:
            self.fail(step.error)


class Map(Group[Any]):
    """One branch an item, at most `concurrency` at once, results in item order. Failure as of a gather: no further item begins."""

    __slots__ = ("_concurrency", "_depth", "_each", "_items", "_open")

    def begin(
        self, each: Callable[[Any], Awaitable[Any]], items: Sequence[Any], concurrency: int, *, depth: int
    ) -> None:
        """Start the first ones, as branches of `depth`."""
        self._each = each
        self._items = items
        self._concurrency = concurrency
        self._depth = depth
        self._left = len(items)
        self._open = 0
        if items:
            self._fill()
        else:
            self.succeed([])

    def _judge(self, step: Step[Any]) -> None:
        self._open -= 1
        if step.error is not None:
            self.fail(step.error)
            self._cancel_members()
        elif self._left == 0:
            self.succeed([member.value for member in self.members])
        elif not self._cancelling:
            self._fill()
        elif self._open == 0:  # what had begun has succeeded; the rest never begins
            self.fail(Cancelled(f"{self.ref} was cancelled"))

    def _fill(self) -> None:
        while self._open < self._concurrency and len(self.members) < len(self._items):
            index = len(self.members)
            member = self._interpreter.fork(f"{self.ref}/{index}", self._depth, _item(self._each, self._items[index]))
            self.members.append(member)
            self._open += 1
            member.watch(self)


async def _item(each: Callable[[Any], Awaitable[Any]], item: object) -> Any:
    """`each` is called within the branch, so that its steps are numbered there."""
    return await each(item)
