"""`PostgresServer`: one real PostgreSQL on loopback. Its data and port outlive stop and start, in a temporary folder.

A client sees what it would see in real life.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.kafka_broker.broker import free_port

_INSTALLED = "/usr/lib/postgresql"
_USER = "postgres"  # the server refuses to run as root
_WAIT_S = "60"


class PostgresUnavailable(Exception):
    """No server programs on this machine; says what to type."""


def programs() -> Path:
    """The folder of `initdb` and `pg_ctl`, the newest there is."""
    found = sorted(Path(_INSTALLED).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    if path is None:
        raise PostgresUnavailable("PostgreSQL is not installed: apt-get install postgresql")
    return Path(path).parent


class PostgresServer:
    """`start`, `database`, then `stop` and `start` again at will; `remove` at the end."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        self._data = self._folder / "data"
        self._numbers = itertools.count()
        if os.getuid() == 0:
            shutil.chown(self._folder, _USER)
        self._run("initdb", "-D", self._data, "-U", _USER, "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync")

    def start(self) -> None:
        """Return when it answers."""
        # nobody else is ever in a database that a new one is copied from: that would refuse the copy
        quiet = "-c fsync=off -c autovacuum=off"
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= {quiet}"
        log = self._folder / "log"
        self._run("pg_ctl", "-D", self._data, "-w", "-t", _WAIT_S, "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """At once: clients lose their connections."""
        self._run("pg_ctl", "-D", self._data, "-w", "-t", _WAIT_S, "-m", "immediate", "stop")

    def database(self) -> str:
        """The URL of a new, empty one."""
        name = f"history{next(self._numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", _USER, "-T", "template0", name)
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        """Stop it, and delete everything."""
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command: Sequence[str | Path] = (programs() / program, *arguments)
        user = _USER if os.getuid() == 0 else None
        done = subprocess.run(
            command,
            user=user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,  # a server keeps it open
            stderr=subprocess.STDOUT if program != "pg_ctl" else subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            log = self._folder / "log"
            said = (done.stdout or b"").decode(errors="replace") + (log.read_text() if log.exists() else "")
            raise RuntimeError(f"{program} failed: {said[-2000:]}")
