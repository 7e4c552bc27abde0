"""Branches: the coroutines of a run, each with its own numbers, so that references do not depend on interleaving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace.service.engine.step import Settled, Step
from headrace.topics.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from headrace.service.engine.interpreter import Interpreter

T_co = TypeVar("T_co", covariant=True)

_THROWS_MAX = 100  # a body that swallows Cancelled this often is left behind
_PRUNE_FIRST = 64  # steps noted before the settled ones are looked for


class Branch(Step[T_co]):
    """The body (prefix and depth: "" and 0), or a coroutine given to a group."""

    __slots__ = ("_count", "_prune_at", "awaits", "coroutine", "depth", "interrupted", "owned", "prefix", "queued")

    def __init__(
        self,
        interpreter: Interpreter,
        prefix: str,
        depth: int = 0,
        coroutine: Coroutine[Any, Any, T_co] | None = None,
    ) -> None:
        super().__init__(interpreter, prefix or "/")
        self.prefix = prefix
        self.depth = depth
        self.coroutine = coroutine
        self.awaits: Step[Any] | None = None
        self.queued = False  # its turn comes
        self.interrupted = False  # and then `Cancelled` is thrown into it
        self.owned: list[Step[Any]] = []  # leaves and groups issued here and perhaps still open
        self._count = 0
        self._prune_at = _PRUNE_FIRST

    def reference(self) -> str:
        """The next step's place: its number follows the prefix, from 1."""
        self._count += 1
        return f"{self.prefix}/{self._count}"

    def own(self, step: Step[Any]) -> None:
        """Note a step issued here; forget settled ones now and then."""
        self.owned.append(step)
        if len(self.owned) >= self._prune_at:
            self.owned = [owned for owned in self.owned if owned.state is Settled.PENDING]
            self._prune_at = max(_PRUNE_FIRST, 2 * len(self.owned))

    def on_settled(self, step: Step[Any]) -> None:
        """The step that the coroutine awaits has settled: go on. Any other is one that it awaited before it was interrupted."""
        if step is self.awaits:
            self._interpreter.ready(self)

    def drop(self) -> None:
        """Unwind the coroutine with `Cancelled`; what it asks for meanwhile is ignored."""
        coroutine, self.coroutine = self.coroutine, None
        if coroutine is None:
            return
        for _ in range(_THROWS_MAX):
            try:
                coroutine.throw(Cancelled("the run is ending"))
            except BaseException:  # noqa: BLE001 - user code on its way out
                return
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001 - as above
            return

    def let_go(self) -> None:
        """Nothing will settle any more: steps that are still pending refer back to who waits for them."""
        for step in (self, *self.owned):
            step._watchers = None  # noqa: SLF001 - as in `Step`
        self.awaits = None
        self.owned.clear()

    def _give_up(self) -> Sequence[Step[Any]]:
        self.interrupted = True
        self._interpreter.ready(self)
        return self.owned
