"""The discovery document: where the metrics of all workers on this machine are, as Prometheus reads it from a file (`file_sd`) or a URL (`http_sd`).

The supervisor writes the file; every worker answers `/discovery` with it, so that one address finds them all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


def document(app: str, metrics: Mapping[int, str]) -> bytes:
    """One group of targets for each worker: its label tells them apart. `metrics`: addresses by worker index."""
    groups = [
        {"targets": [urlsplit(url).netloc], "labels": {"app": app, "worker": str(index)}}
        for index, url in sorted(metrics.items())
    ]
    return msgspec.json.format(msgspec.json.encode(groups)) + b"\n"


def write(path: Path, content: bytes) -> None:
    """Whole or not at all: whoever reads it never sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)
