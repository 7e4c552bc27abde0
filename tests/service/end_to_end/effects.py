"""What handlers did: one line for each attempt that began, written by the app before anything else."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Effect(NamedTuple):
    """An attempt of a task that began (`phase` "start") or ended well (`phase` "end") in the process `pid`."""

    key: str
    task: str
    run: str
    number: int
    phase: str
    pid: int
    order: str
    at_ns: int


class Effects:
    """The file that all processes of a test append to.

    A line is written by one call, between line feeds of its own. A kill can still cut that call where the file's pages meet:
    such an attempt had not gone on to do anything, and its piece is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def count(self) -> int:
        """Lines so far; cheap enough to be asked often."""
        return self.path.read_bytes().count(b"}\n") if self.path.exists() else 0

    def all(self) -> list[Effect]:
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        return [Effect(**json.loads(line)) for line in lines if line.endswith("}\n")]

    def began(self) -> dict[str, list[Effect]]:
        """By idempotency key, the attempts that began."""
        found: dict[str, list[Effect]] = defaultdict(list)
        for effect in self.all():
            if effect.phase == "start":
                found[effect.key].append(effect)
        return found

    def interrupted(self, pid: int) -> int:
        """Attempts that began in a process and did not end there."""
        began = {(effect.key, effect.number) for effect in self.all() if effect.pid == pid and effect.phase == "start"}
        ended = {(effect.key, effect.number) for effect in self.all() if effect.pid == pid and effect.phase == "end"}
        return len(began - ended)


def environment(path: Path) -> dict[str, str]:
    return {"E2E_EFFECTS": os.fspath(path)}
