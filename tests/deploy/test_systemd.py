"""The unit file under systemd's own checker, and a real process that tells what Type=notify and WatchdogSec ask for."""

import re
import subprocess
from pathlib import Path
from shutil import which

from tests.deploy.tool import DEPLOY
from tests.requirement import missing
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation, shared_station, station
from tests.service.end_to_end.waiting import eventually_now
from tests.service.systemd import Systemd

__all__ = ["shared_station", "station"]  # fixtures

UNIT = DEPLOY / "systemd" / "headrace.service"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = which("systemd-analyze")
    if analyze is None:
        missing("systemd-analyze is not installed: apt install systemd")
    unit = tmp_path / UNIT.name  # with a program that is there
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    checked = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    about_it = [line for line in checked.stderr.splitlines() if UNIT.name in line]
    assert (checked.returncode, about_it) == (0, [])


def test_the_unit_gives_more_time_than_a_stop_takes() -> None:
    text = UNIT.read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1]) > 30 + 5  # pyright: ignore[reportOptionalSubscript]
    assert "Type=notify" in text
    assert "WatchdogSec=" in text


async def test_a_process_tells_systemd_that_it_works_lives_and_stops(station: MakeStation, tmp_path: Path) -> None:
    place = station(Backend("embedded"), Path(__file__).parent / "apps" / "watched.py")
    with Systemd(tmp_path, watchdog_s=0.3) as systemd:
        process = place.spawn(env=systemd.environment)
        await eventually_now(lambda: systemd.heard("READY"), lambda: process.stderr[-2000:])
        assert process.probe("livez") == 200
        pings = len(systemd.heard("WATCHDOG"))
        await eventually_now(lambda: len(systemd.heard("WATCHDOG")) > pings + 2, "it lives")
        assert process.stop() == 0
        assert systemd.heard("STOPPING") == ["1"]
