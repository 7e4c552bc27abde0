"""Runs the real command line in this process: an answer is its exit code and what it printed."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.__main__ import main


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `-o json` printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Lines of data."""
        return self.out.splitlines()


Headrace = Callable[..., Answer]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without settings from outside, and without the HTTP API."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_API__ENABLED", "false")  # many run at once, and few are about it
    return tmp_path


@pytest.fixture
def headrace(here: Path, capfd: pytest.CaptureFixture[str]) -> Headrace:
    """`headrace("run", "list")` gives an `Answer`."""

    def run(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run
