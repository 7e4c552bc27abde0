"""Which process on which machine: enough to know later, from its name alone, whether it is gone.

A pid is used again and means nothing on another machine or in another container. With the boot, the pid namespace and the time when the process began it is one
process for ever. Used in the names of group members, so that a known death need not wait for a session timeout.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import msgspec

_UNKNOWN = "0"
_NAME = re.compile(r"^(?P<host>[A-Za-z0-9.-]*)_(?P<boot>[0-9a-f]+)_(?P<space>\d+)_(?P<pid>\d+)_(?P<began>\d+)")
_STATE_FIELD, _BEGAN_FIELD = 0, 19  # of /proc/PID/stat, behind the name in brackets
_ENDED = frozenset("ZXx")


class LocalProcess(msgspec.Struct, frozen=True):
    """`boot` names the machine's last start, `space` the pid namespace, `began` the clock ticks from boot to the process; "0": this system does not say."""

    host: str
    boot: str
    space: str
    pid: int
    began: str

    def __str__(self) -> str:
        """As text that `parsed` reads at the beginning of another."""
        return f"{self.host}_{self.boot}_{self.space}_{self.pid}_{self.began}"


def here(pid: int | None = None) -> LocalProcess:
    """A process of this machine, this one by default."""
    pid = os.getpid() if pid is None else pid
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    found = _stat(pid)
    return LocalProcess(host, _boot(), _space(), pid, _UNKNOWN if found is None else found[_BEGAN_FIELD])


def parsed(text: str) -> LocalProcess | None:
    """What `str` made, whatever follows it; None for anything else."""
    found = _NAME.match(text)
    if found is None:
        return None
    return LocalProcess(found["host"], found["boot"], found["space"], int(found["pid"]), found["began"])


def is_gone(process: LocalProcess) -> bool:
    """Whether it certainly does not run any more. False where nobody here can know."""
    if _UNKNOWN in {process.boot, process.space, process.began}:
        return False
    if (process.boot, process.space) != (_boot(), _space()):
        return False  # another machine or container; or this machine before it started anew, which the session timeout sorts out
    found = _stat(process.pid)
    return found is None or found[_BEGAN_FIELD] != process.began or found[_STATE_FIELD] in _ENDED


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "") or _UNKNOWN
    except OSError:
        return _UNKNOWN


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return _UNKNOWN
