"""The runs of a partition that have not ended, by id, in the order of their starts. A run is kept live or as bytes; who asks for one need not know.

What is asked for by its id is live from then on and may be changed; the shell packs it again (`pack`) once nobody has a reference to it. What `values` gives
is only to look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from headrace.service.engine.run_bytes import pack, unpack
from headrace.service.engine.run_state import RunState


class OpenRuns:
    """Equal if the same runs are in the same states, packed or not."""

    __slots__ = ("_runs",)

    def __init__(self, runs: Iterable[RunState] = ()) -> None:
        self._runs: dict[str, RunState | bytes] = {run.id: run for run in runs}

    def get(self, run: str) -> RunState | None:
        """The run, live, or None."""
        found = self._runs.get(run)
        if found.__class__ is bytes:
            return self._unpack(run, found)
        return found  # pyright: ignore[reportReturnType] - bytes are out of the question; isinstance costs as much as all the rest

    def __getitem__(self, run: str) -> RunState:
        found = self.get(run)
        if found is None:
            raise KeyError(run)
        return found

    def __setitem__(self, run: str, state: RunState) -> None:
        self._runs[run] = state

    def __delitem__(self, run: str) -> None:
        del self._runs[run]

    def __contains__(self, run: object) -> bool:
        return run in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def values(self) -> Iterator[RunState]:
        """Every run, to look at: one that is packed stays so, and what is done to its copy is lost."""
        for found in self._runs.values():
            yield unpack(found) if isinstance(found, bytes) else found

    # --- as bytes --------------------------------------------------------------------------------------------------

    def pack(self, run: str) -> None:
        """Keep the run as bytes until somebody asks for it. Whoever has a reference to it must let go: its changes would be lost."""
        found = self._runs.get(run)
        if isinstance(found, RunState):
            self._runs[run] = pack(found)

    def is_packed(self, run: str) -> bool:
        """Whether it is there, as bytes."""
        return isinstance(self._runs.get(run), bytes)

    def packed(self) -> Iterator[tuple[str, bytes]]:
        """Every run as bytes, for a checkpoint. Those that are live stay so."""
        for run, found in self._runs.items():
            yield run, found if isinstance(found, bytes) else pack(found)

    def packed_of(self, run: str) -> bytes:
        """One run as bytes; it stays as it is kept. KeyError."""
        found = self._runs[run]
        return found if isinstance(found, bytes) else pack(found)

    def put_packed(self, run: str, packed: bytes) -> None:
        """Add a run as the bytes that a checkpoint had of it. They are looked into when somebody asks for it."""
        self._runs[run] = packed

    def _unpack(self, run: str, packed: Any) -> RunState:
        state = self._runs[run] = unpack(packed)
        return state

    # --- compared --------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OpenRuns):
            return NotImplemented
        mine, theirs = self._runs, other._runs
        return mine.keys() == theirs.keys() and all(_equal(state, theirs[run]) for run, state in mine.items())

    __hash__ = None  # pyright: ignore[reportAssignmentType] - it changes

    def __repr__(self) -> str:
        return f"OpenRuns({list(self.values())!r})"


def _equal(mine: RunState | bytes, theirs: RunState | bytes) -> bool:
    if isinstance(mine, bytes):
        mine = unpack(mine)
    if isinstance(theirs, bytes):
        theirs = unpack(theirs)
    return mine == theirs
