"""A bulkhead: at most so many attempts at once.

Pure. Slots only; who waits for them, and in which order, is `dispatch.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from headrace.handlers.policy import Field, check_same, checked_name
from headrace.topics.errors import Fatal


@dataclass(frozen=True, slots=True, init=False)
class Pool:
    """At most `size` attempts at once in this process, over all handlers that name it.

    Other attempts are held, in order; that uses none of a task's attempts.
    """

    name: str
    size: int

    def __init__(self, name: str, *, size: int) -> None:
        """DefinitionError (HR2036): the name or the size must be changed."""
        object.__setattr__(self, "name", checked_name("Pool", name))
        object.__setattr__(self, "size", Field("Pool", "size", size, name=name).count())


class PoolStatistics(msgspec.Struct, frozen=True):
    """A moment's counts, in attempts."""

    name: str
    size: int
    in_use: int


class PoolSlots:
    """The slots of one pool in this process."""

    __slots__ = ("in_use", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.in_use = 0

    def try_acquire(self) -> bool:
        """Take a slot if one is free."""
        if self.is_full():
            return False
        self.in_use += 1
        return True

    def is_full(self) -> bool:
        """Whether a slot must come back first."""
        return self.in_use >= self.pool.size

    def release(self) -> None:
        """Give one back. Fatal (HR9010) if none is taken: the count would be wrong from then on."""
        if self.in_use == 0:
            raise Fatal(f"Pool {self.pool.name}: a slot was given back that nobody had.", code="HR9010")
        self.in_use -= 1

    def statistics(self) -> PoolStatistics:
        """A frozen snapshot."""
        return PoolStatistics(name=self.pool.name, size=self.pool.size, in_use=self.in_use)


class PoolRegistry:
    """The pools of this process, by name."""

    def __init__(self) -> None:
        self._slots: dict[str, PoolSlots] = {}

    def slots(self, pool: Pool) -> PoolSlots:
        """The pool's slots. DefinitionError (HR2037): the name is taken by a pool of another size."""
        known = self._slots.setdefault(pool.name, PoolSlots(pool))
        check_same("pool", known.pool, pool, name=pool.name)
        return known

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """All pools, in the order of their first use."""
        return tuple(slots.statistics() for slots in self._slots.values())
