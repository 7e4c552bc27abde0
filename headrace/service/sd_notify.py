"""Telling systemd: ready, stopping, still alive. The protocol of sd_notify(3), with the standard library; nothing without a socket.

One per process that systemd started: the variables are taken out of the environment, so that workers and whatever handlers start do not
speak for us. Sending never blocks and never raises: a full or vanished socket is systemd's matter.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_SOCKET: Final = "NOTIFY_SOCKET"
_USEC: Final = "WATCHDOG_USEC"
_PID: Final = "WATCHDOG_PID"
_PINGS: Final = 3
"""Within one watchdog time: one may come late."""


class SdNotify:
    """`address` is a path, or begins with @ for an abstract socket; "" for none. `watchdog_s`: None if none is asked for."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> SdNotify:
        """What systemd asked of this process; takes the variables away."""
        environ = os.environ if environ is None else environ
        address, usec, pid = (environ.pop(name, "") for name in (_SOCKET, _USEC, _PID))
        ours = not pid or pid == str(os.getpid())
        watchdog_s = int(usec) / 1e6 if ours and usec.isdecimal() and int(usec) > 0 else None
        return cls(address if address.startswith(("/", "@")) else "", watchdog_s)

    @property
    def ping_every_s(self) -> float | None:
        """How often `alive` must be sent; None: never."""
        return None if self._watchdog_s is None or not self._address else self._watchdog_s / _PINGS

    def ready(self, status: str) -> None:
        """Start-up is over."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def stopping(self) -> None:
        """The stop began."""
        self._send("STOPPING=1\nSTATUS=Stopping in good order")

    async def keep_alive(self) -> None:
        """Say that the event loop turns, until cancelled. Returns at once if nobody asks."""
        every_s = self.ping_every_s
        while every_s is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(every_s)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.settimeout(0)
                to.sendto(text.encode(), self._address)
        except OSError:
            return


def _line(text: str) -> str:
    return " ".join(text.split())
