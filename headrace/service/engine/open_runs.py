"""The runs of a partition that have not ended, by id, in the order of their starts. A run is kept live or as bytes; who asks for one need not know.

What is asked for by its id is live from then on and may be changed; the shell packs it again (`pack`, `put_away`) once nobody has a reference to it. What
`values` and `look` give is only to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator

from headrace.service.engine.run_bytes import RunLook, look, pack, unpack
from headrace.service.engine.run_state import Phase, RunState


class OpenRuns:
    """Equal if the same runs are in the same states, packed or not."""

    __slots__ = ("_oldest", "_runs", "packed_counts", "unpacked")

    def __init__(self, runs: Iterable[RunState] = ()) -> None:
        self._runs: dict[str, RunState | bytes] = {run.id: run for run in runs}
        self._oldest: dict[str, tuple[int, str]] = {}  # of the packed ones, by workflow; missing: not known
        self.packed_counts: Counter[tuple[str, Phase]] = Counter()
        """How many are packed, by workflow and phase."""
        self.unpacked: list[str] = []
        """Runs that somebody asked for while they were packed, since the last `put_away`."""

    def get(self, run: str) -> RunState | None:
        """The run, live, or None."""
        found = self._runs.get(run)
        return self._unpack(run, found) if isinstance(found, bytes) else found

    def __getitem__(self, run: str) -> RunState:
        found = self.get(run)
        if found is None:
            raise KeyError(run)
        return found

    def __setitem__(self, run: str, state: RunState) -> None:
        self._runs[run] = state

    def __delitem__(self, run: str) -> None:
        found = self._runs.pop(run)
        if isinstance(found, bytes):
            self._uncount(look(found))

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

    def look(self, run: str) -> RunLook | RunState | None:
        """The first fields of a run; one that is packed stays so."""
        found = self._runs.get(run)
        return look(found) if isinstance(found, bytes) else found

    def live(self) -> Iterator[RunState]:
        """The runs that are not packed."""
        for found in self._runs.values():
            if not isinstance(found, bytes):
                yield found

    # --- as bytes --------------------------------------------------------------------------------------------------

    def pack(self, run: str) -> None:
        """Keep the run as bytes until somebody asks for it. Whoever has a reference to it must let go: its changes would be lost."""
        found = self._runs.get(run)
        if isinstance(found, RunState):
            self._runs[run] = pack(found)
            self._count(found)

    def pack_all(self) -> None:
        """Keep all of them as bytes: nobody has a reference to any."""
        for run, found in self._runs.items():
            if not isinstance(found, bytes):
                self._runs[run] = pack(found)
                self._count(found)
        self.unpacked.clear()

    def put_away(self, needed: Container[str]) -> None:
        """Pack again what was unpacked and is not needed: a record was noted on it, and it goes on waiting."""
        unpacked, self.unpacked = self.unpacked, []
        for run in unpacked:
            if run not in needed:
                self.pack(run)

    @property
    def live_count(self) -> int:
        """How many are not packed."""
        return len(self._runs) - self.packed_counts.total()

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
        self._count(look(packed))

    def oldest_packed(self) -> dict[str, int]:
        """When the oldest packed run of each workflow started. Linear in runs where that one was unpacked since the last call."""
        wanted = {workflow for (workflow, _), count in self.packed_counts.items() if count} - self._oldest.keys()
        if wanted:
            for run, found in self._runs.items():
                if isinstance(found, bytes):
                    looked = look(found)
                    if looked.start.workflow in wanted:
                        self._oldest[looked.start.workflow] = (looked.started_at_ms, run)
                        wanted.discard(looked.start.workflow)
                        if not wanted:
                            break
        return {workflow: at_ms for workflow, (at_ms, _) in self._oldest.items()}

    def _unpack(self, run: str, packed: bytes) -> RunState:
        state = self._runs[run] = unpack(packed)
        self._uncount(state)
        self.unpacked.append(run)
        return state

    def _count(self, run: RunState | RunLook) -> None:
        workflow = run.start.workflow
        kind = (workflow, run.phase)
        oldest = self._oldest.get(workflow)
        if oldest is None:
            if not any(count and of == workflow for (of, _), count in self.packed_counts.items()):
                self._oldest[workflow] = (run.started_at_ms, run.id)
        elif run.started_at_ms < oldest[0]:
            self._oldest[workflow] = (run.started_at_ms, run.id)
        self.packed_counts[kind] += 1

    def _uncount(self, run: RunState | RunLook) -> None:
        workflow = run.start.workflow
        self.packed_counts[workflow, run.phase] -= 1
        oldest = self._oldest.get(workflow)
        if oldest is not None and oldest[1] == run.id:
            del self._oldest[workflow]

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
