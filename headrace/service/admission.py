"""Admission: how many runs work at once in this process, whose turn is next, and when the routers must wait.

Active is a run with an attempt running or ready, or an outcome on its way; waiting, held, parked and queued runs do not count. The runs of one workflow come in
the order in which they asked, which is the log's; workflows take turns, and one of them takes at most half of the slots while others wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

OUTSTANDING = (
    1_750  # outcomes on their way to the log and back; past it a further run would only wait for those before it
)
_A_TURN = 50  # runs admitted in one turn of the event loop: the next turn shows what they ask for
Begin = Callable[[str], None]
"""Called with the run whose turn has come."""

_INTAKE_RUNS = 500  # unadmitted runs; past it routers wait: enough to keep the slots full, few megabytes


class Admission:
    """`max_active` slots. What is admitted is a plain function: it begins the run.

    Runs that wait for nothing but the log do not gain from company: while many outcomes are on their way (`outstanding`), nobody new is
    admitted, and never many at once. That keeps a burst's memory and latency small and costs no throughput.
    """

    def __init__(self, max_active: int, max_queued_bytes: int) -> None:
        self._max_active = max_active
        self._max_queued_bytes = max_queued_bytes
        self._active: dict[str, str] = {}  # run: workflow
        self._share: Counter[str] = Counter()
        self._waiting: dict[str, deque[tuple[str, int, Begin]]] = {}
        self._waking: deque[tuple[str, Begin]] = deque()
        self._pumping = False
        self._admitted = 0  # in this turn of the event loop
        self.outstanding = 0
        self._open = asyncio.Event()
        self._open.set()
        self._kept: dict[str, int] = {}  # bytes of starts that wait for their key
        self._kept_bytes = 0
        self.waiting_runs = 0
        self.waiting_bytes = 0

    @property
    def active_runs(self) -> int:
        """Runs that work now."""
        return len(self._active)

    async def intake(self) -> None:
        """Return when routers may read on: few enough unadmitted runs."""
        await self._open.wait()

    def ask(self, run: str, workflow: str, size: int, begin: Begin) -> None:
        """Call `begin` with the run when there is room: perhaps at once."""
        queue = self._waiting.setdefault(workflow, deque())
        queue.append((run, size, begin))
        self.waiting_runs += 1
        self.waiting_bytes += size
        self._pump()
        self._set_intake()

    def wake(self, run: str, begin: Begin) -> None:
        """The same for a run that was admitted before and waited: it comes before those that were not, and takes a slot only once it works."""
        self._waking.append((run, begin))
        self._pump()

    def active(self, run: str, workflow: str) -> None:
        """It works (again): counted even where there is no room, for it was admitted before."""
        if run not in self._active:
            self._active[run] = workflow
            self._share[workflow] += 1

    def read_back(self) -> None:
        """Some outcomes came back: there may be room."""
        if self.waiting_runs or self._waking:
            self._pump()
            self._set_intake()

    def idle(self, run: str) -> None:
        """It waits, is parked or has ended."""
        workflow = self._active.pop(run, None)
        if workflow is not None:
            self._share[workflow] -= 1
            if self.waiting_runs or self._waking:
                self._pump()
                self._set_intake()

    def keep(self, run: str, size: int) -> None:
        """A start waits for its key, and its bytes with it: they count against what routers may read ahead."""
        if run not in self._kept:
            self._kept[run] = size
            self._kept_bytes += size
            self._set_intake()

    def keep_no_more(self, run: str) -> None:
        """Its turn has come, or it is gone."""
        size = self._kept.pop(run, None)
        if size is not None:
            self._kept_bytes -= size
            self._set_intake()

    def forget(self, runs: set[str]) -> None:
        """A partition was given away: they neither work nor wait any more."""
        for run in runs & self._kept.keys():
            self.keep_no_more(run)
        for workflow, queue in list(self._waiting.items()):
            kept = deque(entry for entry in queue if entry[0] not in runs)
            if kept:
                self._waiting[workflow] = kept
            else:
                del self._waiting[workflow]
        self._waking = deque(entry for entry in self._waking if entry[0] not in runs)
        self.waiting_runs = sum(map(len, self._waiting.values()))
        self.waiting_bytes = sum(size for queue in self._waiting.values() for _, size, _ in queue)
        for run in runs:
            workflow = self._active.pop(run, None)
            if workflow is not None:
                self._share[workflow] -= 1
        self._pump()
        self._set_intake()

    def _set_intake(self) -> None:
        if self.waiting_runs < _INTAKE_RUNS and self.waiting_bytes + self._kept_bytes < self._max_queued_bytes:
            self._open.set()
        else:
            self._open.clear()

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            while (self._waking or self.waiting_runs) and self._room():
                self._admitted += 1
                if self._waking:
                    run, begin = self._waking.popleft()
                    begin(run)
                    continue
                workflow = self._next_workflow()
                run, size, begin = self._waiting[workflow].popleft()
                if not self._waiting[workflow]:
                    del self._waiting[workflow]
                self.waiting_runs -= 1
                self.waiting_bytes -= size
                self.active(run, workflow)
                begin(run)
        finally:
            self._pumping = False

    def _room(self) -> bool:
        if self.outstanding >= OUTSTANDING or len(self._active) >= self._max_active:
            return False
        if self._admitted == 0:
            asyncio.get_running_loop().call_soon(self._next_turn)
        return self._admitted < _A_TURN

    def _next_turn(self) -> None:
        self._admitted = 0
        self.read_back()

    def _next_workflow(self) -> str:
        if len(self._waiting) == 1:
            return next(iter(self._waiting))
        half = max(1, self._max_active // 2)
        share = self._share
        chosen = next((workflow for workflow in self._waiting if share[workflow] < half), None)
        if chosen is None:
            chosen = min(self._waiting, key=share.__getitem__)
        self._waiting[chosen] = self._waiting.pop(chosen)  # the next one's turn comes first next time
        return chosen
