"""A node's storage as Kafka's tool formats it: made once per machine and version, then copied, with ids of its own.

A JVM that only formats takes as long as half a broker's start. What the tool leaves is an identity and the features of
a new cluster; the second is the same for all.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.kafka_broker.identity import new_id
from tests.kafka_broker.jars import CACHE, jars

_TIMEOUT_S: Final = 120
_FEATURES: Final = "bootstrap.checkpoint"
_IDENTITY: Final = "meta.properties"
_CONFIGURATION: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:20000
listeners=PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20000
controller.listener.names=CONTROLLER
"""


class FormatFailed(Exception):
    """The tool did not do it. The message has what it said."""


def make(folder: Path, *, node: int, cluster_id: str, java: list[str]) -> None:
    """Format `folder`, unless it is. `java`: the command up to the class to run."""
    if (folder / _IDENTITY).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FEATURES).write_bytes(_features(java))
    identity = {"version": 1, "cluster.id": cluster_id, "node.id": node, "directory.id": new_id()}
    (folder / _IDENTITY).write_text("".join(f"{key}={value}\n" for key, value in identity.items()))


def cluster_of(folder: Path) -> str:
    """The cluster's id that it was formatted with."""
    lines = (folder / _IDENTITY).read_text().splitlines()
    return next(value for key, _, value in (line.partition("=") for line in lines) if key == "cluster.id")


def _features(java: list[str]) -> bytes:
    kept = CACHE / f"{jars().name}.{_FEATURES}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="format-") as scratch:
            log = Path(scratch) / "log"
            # names from where it runs: Java reads this file as Latin-1, and a checkout may be in a folder with any name
            (Path(scratch) / "server.properties").write_text(f"{_CONFIGURATION}log.dirs=log\n")
            command = [*java, "kafka.tools.StorageTool", "format", "-t", new_id(), "-c", "server.properties"]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
            if done.returncode != 0:
                raise FormatFailed(f"Formatting a broker's storage failed:\n{done.stdout}{done.stderr}")
            (log / _FEATURES).replace(kept)  # whoever sees it sees all of it
    return kept.read_bytes()
