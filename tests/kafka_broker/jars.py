"""The broker's jars: resolved by Maven from `pom.xml` into `.cache/kafka/`, once per machine and `pom.xml`.

`python -m tests.kafka_broker.jars` fetches them beforehand, and says where it cannot.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parent.parent / ".cache" / "kafka"
JAVA_VERSION_MIN: Final = 17  # Kafka 4 brokers refuse older ones
FETCH_TIMEOUT_S: Final = 600  # 46 jars, 100 MB, on a slow line


class KafkaUnavailable(Exception):
    """This machine cannot run a broker. The message says what is missing and what to type."""


def java() -> str:
    """Path of a `java` that can run the broker. Raises KafkaUnavailable if there is none."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    found: list[str] = []
    for candidate in [*candidates, "java"]:
        path = shutil.which(candidate)
        if path is None:
            continue
        version = _java_version(path)
        if version >= JAVA_VERSION_MIN:
            return path
        found.append(f"{path} is version {version or 'unknown'}")
    raise KafkaUnavailable(
        f"A Kafka broker needs Java {JAVA_VERSION_MIN} or newer ({'; '.join(found) or 'no java on PATH'}). "
        "Type: apt-get install openjdk-17-jre-headless maven",
    )


def jars() -> Path:
    """Folder with the broker's jars, fetched if need be. Raises KafkaUnavailable without Maven or network.

    Several test runs may ask at once: one fetches, the others wait for it.
    """
    wanted = hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()[:12]
    ready = CACHE / wanted
    if ready.is_dir():
        return ready
    with _locked(CACHE / "lock"):
        if not ready.is_dir():
            _fetch(ready)
    return ready


def _fetch(ready: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable("Fetching the Kafka broker needs Maven (no mvn on PATH). Type: apt-get install maven")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-") as scratch:
        target = Path(scratch) / "jars"
        command = [maven, "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise KafkaUnavailable(f"Maven did not fetch the Kafka jars within {FETCH_TIMEOUT_S} s.") from error
        if done.returncode != 0:
            raise KafkaUnavailable(f"Maven could not fetch the Kafka jars: {_tail(done.stdout + done.stderr)}")
        target.rename(ready)  # whoever sees the folder sees all of it


@cache
def _java_version(path: str) -> int:
    """Major version, 0 if it does not say."""
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    said = re.search(r'version "(\d+)', done.stdout + done.stderr)
    return int(said.group(1)) if said else 0


def _tail(text: str) -> str:
    return " | ".join(line for line in text.splitlines() if line.strip())[-1500:]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Fetch them, or say why not: the tests that need them say it again, and what to type."""
    try:
        java()
        jars()
    except KafkaUnavailable as error:
        print(error)


if __name__ == "__main__":
    main()
