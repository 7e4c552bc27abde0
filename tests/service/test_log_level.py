"""The level of the log changes while a service works."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from headrace.observability.observer import TimerArmed
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
