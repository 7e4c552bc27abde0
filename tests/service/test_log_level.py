"""The level of the log changes while a service works."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.observability.told_run import TimerArmed
from headrace.service.definitions.app import App
from headrace.service.settings import Settings
from headrace.service.telemetry import Telemetry
from tests.service.shell import until

NAP = TimerArmed(run="0.a", workflow="nap", step="/1/sleep", due_at_ms=1)
"""A line at debug."""


async def test_a_signal_has_every_line_written_and_once_more_ends_that(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[dict[str, Any]] = []

    def seen(event: str) -> int:
        lines.extend(json.loads(line) for line in capsys.readouterr().err.splitlines())
        return sum(line["event"] == event for line in lines)

    settings = Settings.model_validate({"telemetry": {"metrics_port": 0, "log_format": "json", "log_level": "warning"}})
    telemetry = Telemetry(settings, App(name="shop", root=Path(), modules=(), workflows=(), handlers=()), instance="i")
    with telemetry.open():
        telemetry.observer.timer_armed(NAP)
        assert seen("timer.armed") == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: seen("level.changed"))
        telemetry.observer.timer_armed(NAP)
        assert seen("timer.armed") == 1
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: seen("level.changed") == 2)
        telemetry.observer.timer_armed(NAP)
        assert seen("timer.armed") == 1
    assert [line["least"] for line in lines if line["event"] == "level.changed"] == ["debug", "warning"]


def test_a_signal_before_the_service_is_there_ends_nothing(tmp_path: Path) -> None:
    app = tmp_path / "early.py"
    app.write_text("import os, signal\n\nos.kill(os.getpid(), signal.SIGUSR1)\nraise ValueError('got here')\n")
    command = [sys.executable, "-m", "headrace", "dev", os.fspath(app)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 7, said
    assert "got here" in said.stderr
