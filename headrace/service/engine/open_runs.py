"""The runs of a partition that have not ended, by id, in the order of their starts. A run is kept live or as bytes; who asks for one need not know.

A start that waits, for room or for its key, may be left in the log: then only what the fold needs of it is kept, and whoever wants to wake it reads the record
at its offset again and gives it back. What only a run that was woken can do, emit and end, is folded with its whole start.

What is asked for by its id is live from then on and may be changed; the shell packs it again (`pack`, `put_away`) once nobody has a reference to it. What
`values` and `look` give is only to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator

import msgspec

from headrace.service.engine.run_bytes import RunLook, look, pack, restore, shrink, unpack
from headrace.service.engine.run_state import Phase, RunState
from headrace.topics.command import Start
from headrace.topics.event import EventMeta


class OpenRuns:
    """Equal if the same runs are in the same states, packed or not."""

    __slots__ = ("_oldest", "_runs", "left", "left_bytes", "packed_counts", "readable_from", "unpacked")

    def __init__(self, runs: Iterable[RunState] = ()) -> None:
        self._runs: dict[str, RunState | bytes] = {run.id: run for run in runs}
        self._oldest: dict[str, tuple[int, str]] = {}  # of the packed ones, by workflow; missing: not known
        self.packed_counts: Counter[tuple[str, Phase]] = Counter()
        """How many are packed, by workflow and phase."""
        self.unpacked: list[str] = []
        """Runs that somebody asked for while they were packed, since the last `put_away`."""
        self.left: dict[str, int] = {}
        """Offsets of the starts that are left in the log."""
        self.left_bytes = 0  # of their records
        self.readable_from = 0  # starts below this offset are never left: the log may not have them any more

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
        kept = _looked(found) if isinstance(found, bytes) else found
        if isinstance(found, bytes):
            self._uncount(kept)
        if self.left.pop(run, None) is not None:
            self.left_bytes -= kept.size

    def __contains__(self, run: object) -> bool:
        return run in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def values(self) -> Iterator[RunState]:
        """Every run, to look at: one that is packed stays so, and what is done to its copy is lost."""
        for found in self._runs.values():
            yield _unpacked(found) if isinstance(found, bytes) else found

    def look(self, run: str) -> RunLook | RunState | None:
        """The first fields of a run; one that is packed stays so."""
        found = self._runs.get(run)
        return _looked(found) if isinstance(found, bytes) else found

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

    def shrink(self, run: str) -> None:
        """The same for a run that will wait for long: smaller, and dearer to wake."""
        self.pack(run)
        found = self._runs.get(run)
        if isinstance(found, bytes):
            self._runs[run] = shrink(found)

    def pack_all(self) -> None:
        """Keep all of them as bytes: nobody has a reference to any."""
        unpacked, self.unpacked = self.unpacked, []
        for run in unpacked:
            self.pack(run)
        left = self.live_count
        # the rest was never packed: mostly the newest, and a replay asks again and again
        for run in reversed(self._runs):
            if not left:
                return
            found = self._runs[run]
            if not isinstance(found, bytes):
                self._runs[run] = pack(found)
                self._count(found)
                left -= 1

    def put_away(self, needed: Container[str]) -> None:
        """Pack again what was unpacked and is not needed: a record was noted on it, and it goes on waiting."""
        unpacked, self.unpacked = self.unpacked, []
        for run in unpacked:
            if run not in needed:
                self.pack(run)

    def leave(self, run: str) -> bool:
        """Leave a start in the log; False if it has to stay: something has happened to the run, it is a retry, or the log may be trimmed beyond it."""
        state = self.get(run)
        if state is None or state.left or state.offset < self.readable_from or _has_begun(state):
            return False
        state.start, state.left = _outline(state.start), True
        self.left[run] = state.offset
        self.left_bytes += state.size
        self.pack(run)
        return True

    def give_back(self, run: str, start: Start) -> None:
        """The start of a run, read again. Nothing to do if it is not left (any more)."""
        if run in self.left:
            state = self[run]
            state.start, state.left = start, False
            del self.left[run]
            self.left_bytes -= state.size

    def oldest_left(self) -> int | None:
        """The log must be kept from this offset on; None: none is left."""
        return min(self.left.values(), default=None)

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
            yield run, restore(found) if isinstance(found, bytes) else pack(found)

    def packed_of(self, run: str) -> bytes:
        """One run as bytes; it stays as it is kept. KeyError."""
        found = self._runs[run]
        return restore(found) if isinstance(found, bytes) else pack(found)

    def put_packed(self, run: str, packed: bytes) -> None:
        """Add a run as the bytes that a checkpoint had of it. They are looked into when somebody asks for it."""
        self._runs[run] = packed
        self._count(_looked(packed))

    def oldest_packed(self) -> dict[str, int]:
        """When the oldest packed run of each workflow started. Linear in runs where that one was unpacked since the last call."""
        wanted = {workflow for (workflow, _), count in self.packed_counts.items() if count} - self._oldest.keys()
        if wanted:
            for run, found in self._runs.items():
                if isinstance(found, bytes):
                    looked = _looked(found)
                    if looked.start.workflow in wanted:
                        self._oldest[looked.start.workflow] = (looked.started_at_ms, run)
                        wanted.discard(looked.start.workflow)
                        if not wanted:
                            break
        return {workflow: at_ms for workflow, (at_ms, _) in self._oldest.items()}

    def _unpack(self, run: str, packed: bytes) -> RunState:
        state = self._runs[run] = _unpacked(packed)
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


def _unpacked(packed: bytes) -> RunState:
    return unpack(restore(packed))


def _looked(packed: bytes) -> RunLook:
    return look(restore(packed))


def _equal(mine: RunState | bytes, theirs: RunState | bytes) -> bool:
    if isinstance(mine, bytes):
        mine = _unpacked(mine)
    if isinstance(theirs, bytes):
        theirs = _unpacked(theirs)
    return mine == theirs or (mine.left != theirs.left and _outlined(mine) == _outlined(theirs))


def _has_begun(run: RunState) -> bool:
    return bool(run.history or run.timers or run.tries or run.approvals or run.parked or run.retried)


def _outline(start: Start) -> Start:
    """What the fold and the gauges want to know of a start that waits."""
    event = start.event
    return Start(
        namespace=start.namespace,
        workflow=start.workflow,
        version=start.version,
        input=msgspec.Raw(b"null"),
        key=start.key,
        policy=start.policy,
        timeout_ms=start.timeout_ms,
        event=None if event is None else EventMeta("", "", "", event.topic, event.partition, event.offset),
        parent=start.parent,
    )


def _outlined(run: RunState) -> RunState:
    return run if run.left else msgspec.structs.replace(run, start=_outline(run.start), left=True)
