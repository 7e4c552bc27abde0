"""Patience of a successor with a holder who is in the group and does not release: with a silent one it ends soon, with a busy one later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SILENT_S = 2.0
"""With one who writes nothing: its loop is blocked, or it has not heard."""

BUSY_S = 10.0
"""With one who writes: what it has begun would be done twice."""


class Patience:
    """`ended` is called when it is over."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.over = False
        self._ended = ended
        self._alarm: asyncio.TimerHandle | None = None
        self._until_s = 0.0  # at most, by the loop's clock
        self._heard = False  # since the alarm was set

    def begin(self) -> bool:
        """Whether it begins now; it lasts already, or is over, if not."""
        if self._alarm is not None:
            return False
        self._until_s = asyncio.get_running_loop().time() + BUSY_S
        self._set_alarm()
        return True

    def heard(self) -> None:
        """The holder has written something."""
        self._heard = True

    def renew(self) -> None:
        """There is another holder, who may take as long."""
        self.over = False
        self.cancel()

    def cancel(self) -> None:
        """Nobody is waited for."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self) -> None:
        self._heard = False
        self._alarm = asyncio.get_running_loop().call_later(SILENT_S, self._look)

    def _look(self) -> None:
        if self._heard and asyncio.get_running_loop().time() < self._until_s:
            self._set_alarm()
            return
        self.over = True
        self._ended()
