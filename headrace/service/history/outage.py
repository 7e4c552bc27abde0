"""What is told while the database is away, and how long is waited between two tries."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.observability import told_process
from headrace.observability.label import Dependency
from headrace.topics.back_off import BackOff

if TYPE_CHECKING:
    from headrace.observability.observer import Observer
    from headrace.topics.errors import Transient

_BACK_OFF_S = (0.2, 10.0)


class Outage:
    """The database is away, from the first failure to the next success: said once at each end."""

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer = observer
        self._name = name
        self._back_off = BackOff(_BACK_OFF_S)
        self._began: float | None = None

    @property
    def on(self) -> bool:
        """Whether it is away."""
        return self._began is not None

    async def wait(self, error: Transient) -> None:
        """A try failed."""
        wait_s = self._back_off.next_s()
        if self._began is None:
            self._began = perf_counter()
            self._observer.outage_began(
                told_process.OutageBegan(
                    dependency=Dependency.HISTORY,
                    name=self._name,
                    message=f"{error.code} {error.message}",
                    retry_after_ms=wait_s * 1000,
                )
            )
        await asyncio.sleep(wait_s)

    def over(self) -> None:
        """A try went well."""
        self._back_off.reset()
        if self._began is not None:
            duration_ms = (perf_counter() - self._began) * 1000
            self._began = None
            self._observer.outage_ended(
                told_process.OutageEnded(dependency=Dependency.HISTORY, name=self._name, duration_ms=duration_ms)
            )
