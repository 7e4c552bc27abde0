"""Admission: how many runs work at once in this process, whose turn is next, and when the routers must wait.

Active is a run with an attempt running or ready, or an outcome on its way; waiting, held, parked and queued runs do not count. The runs of one workflow come in
the order of their starts, oldest first, but children that another run awaits come before all; workflows take turns, and one of them takes at most half of the
slots while others wait. Alone it leaves an eighth free: when its handlers hang, others still find room. A run that was admitted before and wakes up is
first. One that awaits children needs no slot for that: they may have them all until it gives them up.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Container
from heapq import heapify, heappop, heappush

# outcomes on their way to the log and back; past it a further run would only wait for those before it
OUTSTANDING = 1_750
_A_TURN = 50  # runs admitted in one turn of the event loop: the next turn shows what they ask for
_INTAKE_RUNS = 500  # unadmitted runs; past it routers wait: enough to keep the slots full, few megabytes
_FREE_SHARE = 7  # a workflow has at most so many slots for each one that is free: the eighth part stays for others
_KEPT_FACTOR = 16  # starts behind their keys may have so many times the bytes that starts without room may have

Begin = Callable[[str], None]
"""Called with the run whose turn has come."""

_Asked = tuple[int, int, str, int, str, Begin]
"""When its start was appended, a running number, the run, its bytes, the topic that it came from, and what to call."""


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
        self._waiting: dict[str, list[_Asked]] = {}  # heaps
        self._count = 0
        self._waking: deque[tuple[str, Begin]] = deque()
        self._needed: deque[tuple[str, Begin]] = deque()  # the same for those that need no slot
        self._pumping = False
        self._admitted = 0  # in this turn of the event loop
        self.outstanding = 0
        self._kept: dict[str, tuple[int, str]] = {}  # starts that wait for their key: bytes, topic
        self._waiting_of: Counter[str] = Counter()  # bytes by topic
        self._kept_of: Counter[str] = Counter()
        self._elsewhere: frozenset[str] = frozenset()  # topics that feed an owner elsewhere which has too much
        self._closed: dict[str, asyncio.Event] = {}  # topics whose routers wait
        self.waiting_runs = 0
        self.waiting_bytes = 0
        self.kept_bytes = 0
        self.left_bytes = 0  # of both, what lies in the log alone

    @property
    def active_runs(self) -> int:
        """Runs that work now."""
        return len(self._active)

    @property
    def slots_taken(self) -> bool:
        """Whether nobody may wake before another one waits or ends."""
        return len(self._active) >= self._max_active

    @property
    def saturated(self) -> bool:
        """Whether as many outcomes are on their way as the log takes at a time."""
        return self.outstanding >= OUTSTANDING

    # --- runs ------------------------------------------------------------------------------------------------------

    def ask(self, run: str, workflow: str, size: int, begin: Begin, *, topic: str = "", started_at_ms: int = 0) -> None:
        """Call `begin` with the run when there is room: perhaps at once."""
        self._count += 1
        asked = (started_at_ms, self._count, run, size, topic, begin)
        queue = self._waiting.get(workflow)
        if queue is None:
            self._waiting[workflow] = [asked]
        else:
            heappush(queue, asked)
        self.waiting_runs += 1
        self.waiting_bytes += size
        self._waiting_of[topic] += size
        self._pump()

    def wake(self, run: str, begin: Begin, *, needed: bool = False) -> None:
        """The same for a run that was admitted before and waited: it comes before those that were not, and takes a slot only once it works.

        `needed`: who has the slots may keep them until it has woken, so that it waits for none.
        """
        (self._needed if needed else self._waking).append((run, begin))
        self._pump()

    def active(self, run: str, workflow: str) -> None:
        """It works (again): counted even where there is no room, for it was admitted before."""
        if run not in self._active:
            self._active[run] = workflow
            self._share[workflow] += 1

    def read_back(self) -> None:
        """Some outcomes came back: there may be room."""
        if self.waiting_runs or self._waking or self._needed:
            self._pump()

    def idle(self, run: str) -> None:
        """It waits, is parked or has ended."""
        workflow = self._active.pop(run, None)
        if workflow is not None:
            self._share[workflow] -= 1
            if self.waiting_runs or self._waking:
                self._pump()

    def keep(self, run: str, size: int, topic: str = "") -> None:
        """A start waits for its key."""
        if run not in self._kept:
            self._kept[run] = (size, topic)
            self.kept_bytes += size
            self._kept_of[topic] += size

    def keep_no_more(self, run: str) -> None:
        """Its turn has come, or it is gone."""
        kept = self._kept.pop(run, None)
        if kept is not None:
            size, topic = kept
            self.kept_bytes -= size
            self._kept_of[topic] -= size
            self._reopen()

    def forget(self, runs: Container[str]) -> None:
        """A partition was given away: they neither work nor wait any more."""
        for run in [run for run in self._kept if run in runs]:
            self.keep_no_more(run)
        for workflow, queue in list(self._waiting.items()):
            kept = [asked for asked in queue if asked[2] not in runs]
            if kept:
                heapify(kept)
                self._waiting[workflow] = kept
            else:
                del self._waiting[workflow]
        self._waking = deque(entry for entry in self._waking if entry[0] not in runs)
        self._needed = deque(entry for entry in self._needed if entry[0] not in runs)
        self.waiting_runs = sum(map(len, self._waiting.values()))
        self.waiting_bytes = sum(asked[3] for queue in self._waiting.values() for asked in queue)
        self._waiting_of = Counter()
        for queue in self._waiting.values():
            for asked in queue:
                self._waiting_of[asked[4]] += asked[3]
        for run in [run for run in self._active if run in runs]:
            self._share[self._active.pop(run)] -= 1
        self._pump()
        self._reopen()

    # --- routers ---------------------------------------------------------------------------------------------------

    async def intake(self, topic: str = "") -> None:
        """Return when the topic's routers may read on: it feeds nobody who has too much."""
        while self.pauses(topic):
            closed = self._closed.get(topic)
            if closed is None:
                closed = self._closed[topic] = asyncio.Event()
            await closed.wait()

    def pauses(self, topic: str) -> bool:
        """Whether the topic feeds an owner that has too much, here or elsewhere."""
        return (
            (self.full and self._waiting_of[topic] > 0)
            or topic in self._elsewhere
            or (self._kept_of[topic] > 0 and self.kept_bytes >= _KEPT_FACTOR * self._max_queued_bytes)
        )

    @property
    def full(self) -> bool:
        """Too many starts wait for room here.

        Those of a workflow that has its share of the slots already count by their bytes alone: others are behind them in the topic.
        """
        if self.waiting_bytes >= self._max_queued_bytes:
            return True
        if self.waiting_runs < _INTAKE_RUNS or len(self._share) == 1:
            return self.waiting_runs >= _INTAKE_RUNS
        most = _FREE_SHARE * (self._max_active - len(self._active))
        return (
            sum(len(queue) for workflow, queue in self._waiting.items() if self._share[workflow] < most) >= _INTAKE_RUNS
        )

    @property
    def backlog(self) -> dict[str, int]:
        """Bytes of the starts that wait for room, by topic."""
        return {topic: size for topic, size in self._waiting_of.items() if size}

    @property
    def over_budget(self) -> bool:
        """Starts that wait, for room or for their keys, take more memory than they may: further ones stay in the log."""
        return self.waiting_bytes + self.kept_bytes - self.left_bytes > self._max_queued_bytes

    def pause_elsewhere(self, topics: frozenset[str]) -> None:
        """These topics feed owners elsewhere that have too much."""
        self._elsewhere = topics
        self._reopen()

    def _reopen(self) -> None:
        if self._closed:
            for topic in [topic for topic in self._closed if not self.pauses(topic)]:
                self._closed.pop(topic).set()

    # --- turns -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            while (self._needed and self._calm()) or ((self._waking or self.waiting_runs) and self._room()):
                if self._needed:
                    run, begin = self._needed.popleft()
                elif self._waking:
                    run, begin = self._waking.popleft()
                else:
                    workflow = self._next_workflow()
                    if workflow is None:
                        break
                    run, begin = self._take(workflow)
                    self.active(run, workflow)
                if not self._admitted:
                    asyncio.get_running_loop().call_soon(self._next_turn)
                self._admitted += 1
                begin(run)
        finally:
            self._pumping = False
        if self._closed:
            self._reopen()

    def _take(self, workflow: str) -> tuple[str, Begin]:
        queue = self._waiting[workflow]
        _, _, run, size, topic, begin = heappop(queue)
        if not queue:
            del self._waiting[workflow]
        self.waiting_runs -= 1
        self.waiting_bytes -= size
        self._waiting_of[topic] -= size
        return run, begin

    def _room(self) -> bool:
        return len(self._active) < self._max_active and self._calm()

    def _calm(self) -> bool:
        return self.outstanding < OUTSTANDING and self._admitted < _A_TURN

    def _next_turn(self) -> None:
        self._admitted = 0
        self.read_back()

    def _next_workflow(self) -> str | None:
        """Whose turn it is; None if all that wait have their share."""
        share = self._share
        most = _FREE_SHARE * (self._max_active - len(self._active))
        if len(self._waiting) == 1:
            only = next(iter(self._waiting))
            return only if share[only] < most else None
        half = max(1, self._max_active // 2)
        chosen = next((workflow for workflow in self._waiting if share[workflow] < min(half, most)), None)
        if chosen is None:
            chosen = min(self._waiting, key=share.__getitem__)
            if share[chosen] >= most:
                return None
        self._waiting[chosen] = self._waiting.pop(chosen)  # the next one's turn comes first next time
        return chosen
