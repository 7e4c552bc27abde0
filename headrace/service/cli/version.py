"""`headrace version`, and the number behind `--version`. Imports nothing large: it must answer in a blink."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Headrace's version, as installed."""
    try:
        return installed("headrace")
    except PackageNotFoundError:  # a bare checkout on sys.path
        return "0+unknown"


def show() -> None:
    """Print the versions of Headrace, Python and the libraries that matter."""
    print(f"headrace {version()}")
    print(f"python {sys.version.split()[0]} ({sys.platform})")
    for library in ("aiokafka", "msgspec", "pydantic", "uvloop"):
        try:
            print(f"{library} {installed(library)}")
        except PackageNotFoundError:
            print(f"{library} not installed")
