"""One simulated process: the real service on a `SimLog`. It can be killed, stopped and asked to leave."""

import asyncio
from typing import Any

from headrace.observability.health import Health
from headrace.observability.label import LossReason
from headrace.observability.silent import Silent
from headrace.observability.told_log import CheckpointFailed, PartitionLost, PartitionStopped
from headrace.observability.traces import contexts
from headrace.service.definitions.app import App
from headrace.service.owner import Owner
from headrace.service.run_log_check import refuse_emptied, refuse_other_partitions
from headrace.service.service import Service
from headrace.service.settings import Settings
from headrace.service.shared import Shared
from tests.simulation.app import SOURCE
from tests.simulation.broker import Broker
from tests.simulation.log import SimLog
from tests.simulation.loop import Life, Place, SimLoop

_CONTEXTS = contexts({})


class Watcher(Silent):
    """Keeps what an operator would be woken for."""

    def __init__(self) -> None:
        self.stops: list[PartitionStopped] = []
        self.bugs: list[CheckpointFailed] = []  # that ended a checkpoint, and nothing else
        self.truncated: set[int] = set()  # partitions of the run log that were said to have lost records

    def partition_stopped(self, told: PartitionStopped, /) -> None:
        self.stops.append(told)

    def checkpoint_failed(self, told: CheckpointFailed, /) -> None:
        if told.code.startswith("HR9"):
            self.bugs.append(told)

    def partition_lost(self, told: PartitionLost, /) -> None:
        if told.reason is LossReason.TRUNCATED:
            self.truncated.add(told.partition)


class Instance:
    """`number` is its slot in the cluster, `life` counts its restarts."""

    def __init__(
        self,
        loop: SimLoop,
        broker: Broker,
        settings: Settings,
        partitions: int,
        number: int,
        life: int,
        code: str,
        app: App,
        *,
        checks: bool = False,
    ) -> None:
        self.number = number
        self.name = f"i{number}.{life}"
        self.place = Place(self.name)
        self.place.context.run(setattr, self.place, "instance", self)
        self.log = SimLog(broker, self.place)
        self.watcher = Watcher()
        self.service: Service | None = None
        self.error: BaseException | None = None
        self.leaving = False
        self.code = code  # "", or what is wrong with it: other_code or lacking
        self._app = app
        self._checks = checks  # whether it looks at the run log first, as a process does before its service begins
        self._loop = loop
        self._settings = settings
        self._partitions = partitions
        self._stop = asyncio.Event()
        self.task: asyncio.Task[None] = loop.create_task(self._main(), context=self.place.context)

    @property
    def running(self) -> bool:
        """Not dead, not at its end."""
        return self.place.life is not Life.DEAD and not self.task.done()

    def owner_of(self, partition: int) -> Owner | None:
        """Who reads that partition here."""
        return next((owner for owner in self.owners() if owner.at.partition == partition), None)

    def owners(self) -> list[Owner]:
        """Those of partitions that are being given away included."""
        return [] if self.service is None else list(self.service.ownership._owners.values())

    async def _main(self) -> None:
        try:
            async with self.log:
                if self._checks:
                    await refuse_other_partitions(self.log, "sim", self._partitions)
                    await refuse_emptied(self.log, "sim", [SOURCE], self._partitions)
                shared = Shared(
                    settings=self._settings,
                    app=self._app,
                    log=self.log,
                    observer=self.watcher,
                    contexts=_CONTEXTS,
                    instance=self.name,
                    partitions=self._partitions,
                    listens_to_starts=False,
                    dead_letter_bytes={},
                )
                self.service = Service(shared, Health(), self._stop)
                await self.service.run()
        except Exception as error:
            self.error = error

    # --- what happens to it ---

    def crash(self) -> None:
        """kill -9: nothing of it runs any more, nothing of it reaches the broker. What is on its way may arrive."""
        self.log.cut = True
        self.place.life = Life.DEAD

    def pause(self) -> None:
        """SIGSTOP. The dead stay dead."""
        if self.place.life is Life.RUNNING:
            self.place.life = Life.STOPPED

    def go_on(self) -> None:
        """SIGCONT."""
        if self.place.life is Life.STOPPED:
            self.place.life = Life.RUNNING
            self._loop.go_on(self.place)

    def leave(self) -> None:
        """SIGTERM."""
        self.leaving = True
        self.place.context.run(self._stop.set)

    def clear_away(self) -> None:
        """The simulation is over: let every task of it end, whatever it is doing."""
        self.log.end()
        self.place.life = Life.RUNNING
        self._loop.go_on(self.place)
        self.task.cancel()


def first_line(error: BaseException) -> str:
    """An error and those inside it, on one line."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(first_line(each) for each in error.exceptions)
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def instance_at(place: Place | None) -> Instance | None:
    """The instance whose code runs there."""
    found: Any = getattr(place, "instance", None)
    return found
