"""The repository as the tests of `tests/project` see it: its root and the files that git tracks."""

import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("handlers", "observability", "service", "topics")


def tracked_files() -> list[Path]:
    """Files in the index that exist, links excluded. Skips outside a checkout (tests run from an sdist)."""
    if not (ROOT / ".git").exists():
        pytest.skip("Not a git checkout: there is no list of tracked files.")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    return [file for file in files if file.is_file() and not file.is_symlink()]


def python_files(folder: str) -> list[Path]:
    """Python files below a folder of the root, caches excluded."""
    return sorted(file for file in (ROOT / folder).rglob("*.py") if "__pycache__" not in file.parts)
