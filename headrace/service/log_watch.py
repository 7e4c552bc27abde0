"""Is the run log still what it must be? Looked at now and then while the service works: what somebody changes under it is an alarm, long before it is a loss.

Once an hour: partitions, retention, compaction and the like, as at the start; and that every owned partition still begins where its checkpoint needs it. One
that does not gets a new checkpoint at once: the whole state is here. Called by `service.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.observability import told_log
from headrace.service import topic_plan
from headrace.service.recovery import LogGap
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.service.owner import Owner
    from headrace.service.shared import Shared
    from headrace.service.topic_plan import TopicPlan

EVERY_S = 3_600.0


class LogWatch:
    """`owners` gives those that work now."""

    def __init__(self, shared: Shared, owners: Callable[[], Sequence[Owner]]) -> None:
        self._shared = shared
        self._owners = owners

    async def run(self, wanted: TopicPlan) -> None:
        """Look every hour, for ever. A broker that is away is asked again in an hour."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look(wanted)
            except HeadraceError:
                continue

    async def look(self, wanted: TopicPlan) -> None:
        """Tell everything that is wrong now. Raises what the log raises."""
        for problem in await topic_plan.check(self._shared.log, wanted):
            self._tell(problem.code, problem.message)
        owners = {owner.at: owner for owner in self._owners() if owner.checkpointer.open}
        for at, offsets in (await self._shared.log.offsets(list(owners))).items() if owners else ():
            checkpointer = owners[at].checkpointer
            if checkpointer.open and offsets.start > checkpointer.as_of + 1:
                self._tell(
                    LogGap.code,
                    f"{at} begins at offset {offsets.start}, its checkpoint is as of {checkpointer.as_of}: "
                    "somebody else deletes records. A new checkpoint is written now.",
                )
                self._shared.checkpoints.due(checkpointer)

    def _tell(self, code: str, message: str) -> None:
        self._shared.observer.topic_changed(told_log.TopicChanged(code=code, message=message))
