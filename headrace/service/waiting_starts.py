"""Starts of one partition that wait: for room, or for the open run of their key to end. They are kept as bytes; past a limit, in the log alone.

A start that lies in the log alone is read again when its turn has come, and a little before, in log order. Called by `awake_runs.py`.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.engine.run_bytes import RunLook
    from headrace.service.engine.run_state import RunState
    from headrace.service.engine.state import PartitionState
    from headrace.service.shared import Shared
    from headrace.topics.command import Start
    from headrace.topics.errors import HeadraceError

_UNPACKED_MAX = 1_000  # starts without room that this process keeps unpacked: in a burst routers stop long before
_READ_AHEAD = 200  # starts that are read again before their turn, so that it is not waited for


class Asked(NamedTuple):
    """A run that waits for room."""

    workflow: str
    topic: str = ""  # that its start came from
    size: int = 0  # bytes of its start


class WaitingStarts:
    """`asked`: runs that wait for room to begin. `begin` is called with a run whose turn has come, `lost` if the log does not have what the state knows."""

    def __init__(
        self,
        shared: Shared,
        state: PartitionState,
        begin: Callable[[str], None],
        lost: Callable[[HeadraceError], None],
    ) -> None:
        self.at = TopicPartition(shared.names.runs, state.partition)
        self.asked: dict[str, Asked] = {}
        self._shared = shared
        self._state = state
        self._begin = begin
        self._lost = lost
        self._room = self._has_room  # one bound method for all runs
        self._awaited: set[str] = set()  # their turn has come, and their start is being read
        self._left_bytes = 0  # as admission knows it

    def ask(self, run: RunState | RunLook) -> None:
        """Begin the run when there is room: perhaps at once."""
        admission = self._shared.admission
        start = run.start
        topic = start.event.topic if start.event is not None else ""
        asked = self.asked[run.id] = Asked(start.workflow, topic, run.size)
        if run.id in self._state.parents:  # it has begun under another token, and its children may have all slots
            admission.wake(run.id, self._room, needed=True)
            return
        # a run that has begun waits for it: it comes before all that have not
        since_ms = 0 if start.parent is not None and start.parent.awaited else run.started_at_ms
        admission.ask(run.id, start.workflow, run.size, self._room, topic=topic, started_at_ms=since_ms)
        # its turn may have come at once, and it waits for its trial now: that is woken as it is
        if admission.waiting_runs > _UNPACKED_MAX and self.asked.get(run.id) is asked:
            self._store(run.id)

    def keep(self, run: RunState | RunLook) -> None:
        """Its key is taken, perhaps for long."""
        event = run.start.event
        self._shared.admission.keep(run.id, run.size, event.topic if event is not None else "")
        self._store(run.id)

    def backlog(self) -> dict[str, int]:
        """Bytes of the starts that wait for room, by source topic."""
        found: dict[str, int] = {}
        for asked in self.asked.values():
            found[asked.topic] = found.get(asked.topic, 0) + asked.size
        return found

    def forget(self, run: str) -> None:
        """It has ended."""
        self.asked.pop(run, None)
        self._awaited.discard(run)
        self._tell_left()

    def forget_all(self) -> None:
        """None of them is ours."""
        self._shared.start_reader.forget(self)
        self._shared.admission.left_bytes -= self._left_bytes
        self._left_bytes = 0
        self.asked.clear()
        self._awaited.clear()

    # --- turns -----------------------------------------------------------------------------------------------------

    def _has_room(self, run: str) -> None:
        left = self._state.runs.left
        if left:
            if run in left:
                self._awaited.add(run)
                self._shared.start_reader.want(self, run, left[run])
            self._read_ahead()
            if run in left:
                return  # `back` goes on
        self.asked.pop(run, None)
        self._begin(run)

    def _read_ahead(self) -> None:
        if not self._shared.admission.over_budget:
            for run, offset in islice(self._state.runs.left.items(), _READ_AHEAD):
                if run in self.asked:
                    self._shared.start_reader.want(self, run, offset)

    def back(self, run: str, start: Start) -> None:
        """A start was read again."""
        self._state.runs.give_back(run, start)
        self._tell_left()
        if run in self._awaited:
            self._awaited.discard(run)
            self.asked.pop(run, None)
            self._begin(run)
        else:
            self._state.runs.pack(run)

    def gone(self, error: HeadraceError) -> None:
        """The log does not have a start that the state knows."""
        self._lost(error)

    # --- bytes -----------------------------------------------------------------------------------------------------

    def _store(self, run: str) -> None:
        """Keep it as bytes, or, if there are too many of them, in the log alone."""
        if self._shared.admission.over_budget and self._state.runs.leave(run):
            self._tell_left()
        else:
            self._state.runs.pack(run)

    def _tell_left(self) -> None:
        left_bytes = self._state.runs.left_bytes
        if left_bytes != self._left_bytes:
            self._shared.admission.left_bytes += left_bytes - self._left_bytes
            self._left_bytes = left_bytes
