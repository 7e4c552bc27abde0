"""Where and with what was measured: kinds and versions, no names of hosts or folders."""

import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from benchmarks.event_loop import loop_name
from benchmarks.target import ROOT

LIBRARIES = ("headrace", "aiokafka", "msgspec", "uvloop", "cramjam", "pydantic")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`load_before`: the machine's one-minute load average before we began; above 0.3 the figures are disturbed."""

    date: str
    commit: str
    system: str
    processor: str
    cores: int
    memory_gib: float
    python: str
    loop: str
    versions: dict[str, str]
    load_before: float

    @property
    def kind(self) -> str:
        """For file names: `linux-x86_64-2cores`."""
        return f"{self.system.split()[0].lower()}-{platform.machine()}-{self.cores}cores"


def machine() -> Machine:
    """As of now."""
    return Machine(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        commit=_commit(),
        system=f"{platform.system()} {platform.release()}",
        processor=_first(Path("/proc/cpuinfo"), r"model name\s*: (.*)") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(int(_first(Path("/proc/meminfo"), r"MemTotal:\s*(\d+)") or 0) / (1 << 20), 1),
        python=platform.python_version(),
        loop=loop_name(),
        versions={**{name: _version(name) for name in LIBRARIES}, "kafka": _kafka_version()},
        load_before=round(os.getloadavg()[0], 2),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _kafka_version() -> str:
    pom = ROOT / "tests" / "kafka_broker" / "pom.xml"
    return _first(pom, r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([\d.]+)<") or "unknown"


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def _first(file: Path, pattern: str) -> str:
    try:
        found = re.search(pattern, file.read_text())
    except OSError:
        return ""
    return found.group(1).strip() if found else ""
