"""`Systemd`: the receiving end of sd_notify(3): a datagram socket as systemd gives one."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Self


class Systemd:
    """`environment` is what systemd would set. Messages are read in order, each a dictionary."""

    def __init__(self, folder: Path, *, watchdog_s: float = 0.3) -> None:
        self._path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}
        self.messages: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        self._socket.bind(str(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def heard(self, name: str) -> list[str]:
        """The values of one variable so far, in order."""
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except BlockingIOError:
                break
            self.messages.append(dict(line.split("=", 1) for line in text.splitlines()))
        return [message[name] for message in self.messages if name in message]
