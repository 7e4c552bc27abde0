"""Starts that are refused: one clear message with code and remedy, the right exit code, no traceback, nothing written."""

import socket
from pathlib import Path

import pytest

from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.instance import run
from tests.service.end_to_end.station import APPS, Station

WRONG_APPS = {
    "not async": "from headrace import Run, workflow\n@workflow()\ndef w(run: Run, n: int) -> None: ...\n",
    "syntax": "def broken(:\n",
    "import": "import no_such_module_anywhere\n",
    "nothing": "x = 1\n",
    "the clock in a workflow": "import time\nfrom headrace import Run, workflow\n@workflow()\n"
    "async def w(run: Run, n: int) -> float:\n    return time.time()\n",
    "bare number as duration": "from headrace import handler\n@handler(timeout=3)\nasync def h() -> None: ...\n",
    "same name twice": "from headrace import handler\n"
    "@handler(name='h')\nasync def a() -> None: ...\n@handler(name='h')\nasync def b() -> None: ...\n",
    "raises on import": "raise RuntimeError('bang')\n",
}


def refused(code: int, exit_code: int, stderr: str, hr: str) -> None:
    assert code == exit_code, stderr
    assert hr in stderr
    assert "Traceback" not in stderr
    assert "HR9" not in stderr
    assert "\nDo " in stderr or "\nWhy " in stderr, stderr


def start(place: Station, **settings: object) -> tuple[int, str]:
    code, out, err = place.command(*place.backend.command(str(place.app)), **settings)
    assert not out
    return code, err


async def test_the_same_app_twice_on_one_file_is_refused_with_the_pid(station: MakeStation) -> None:
    place = station(Backend("embedded"), "tasting.py")
    first = await place.spawn().ready()
    code, stderr = start(place)
    refused(code, 4, stderr, "HR5005")
    assert str(first.pid) in stderr
    assert first.probe("readyz") == 200, "the first one goes on"
    assert first.stop() == 0
    await place.spawn().ready()
    place.now.kill()
    await place.spawn().ready()  # a lock of the dead is no lock
    assert place.now.stop() == 0


def test_a_port_in_use(station: MakeStation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        place = station(Backend("embedded"), "tasting.py", telemetry__metrics_port=port)
        code, stderr = start(place)
        refused(code, 7, stderr, "HR1")
        assert str(port) in stderr


def test_an_unknown_setting_names_the_nearest_one(station: MakeStation) -> None:
    place = station(Backend("embedded"), "tasting.py")
    code, stderr = start(place, worker__max_activ_runs=3)
    refused(code, 7, stderr, "HR1")
    assert "worker.max_active_runs" in stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("worker__max_active_runs", "many"),
        ("log__partitions", 0),
        ("defaults__timeout", "soon"),
        ("log__backend", "paper"),
    ],
)
def test_a_wrong_value(station: MakeStation, setting: str, value: object) -> None:
    place = station(Backend("embedded"), "tasting.py")
    code, stderr = start(place, **{setting: value})
    refused(code, 7, stderr, "HR1")
    assert setting.replace("__", ".") in stderr


def test_missing_topics_are_named(station: MakeStation, kafka: KafkaBroker) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "tasting.py")
    code, out, stderr = place.command("serve", str(place.app))
    assert not out
    refused(code, 7, stderr, "HR1201")
    assert place.topic("in") in stderr
    assert "--create-topics" in stderr


def test_a_run_log_of_another_shape_is_refused(station: MakeStation, kafka: KafkaBroker) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "tasting.py")
    code, _, stderr = place.command("topic", "create", str(place.app))
    assert code == 0, stderr
    code, _, stderr = place.command("serve", str(place.app), log__partitions=5)
    refused(code, 7, stderr, "HR1203")
    assert "4" in stderr
    assert "5" in stderr


@pytest.mark.parametrize("mistake", WRONG_APPS)
def test_an_app_with_a_mistake(tmp_path: Path, mistake: str) -> None:
    app = tmp_path / "wrong.py"
    app.write_text(WRONG_APPS[mistake])
    code, _, stderr = run(["dev", str(app), "--metrics-port", "0"], folder=tmp_path)
    refused(code, 7, stderr, "HR2")
    assert "wrong" in stderr
    assert not (tmp_path / ".headrace").exists(), "nothing was written"


def test_an_app_that_is_not_there(tmp_path: Path) -> None:
    code, _, stderr = run(["dev", str(APPS / "nowhere.py"), "--metrics-port", "0"], folder=tmp_path)
    assert code in {3, 7}
    assert "nowhere.py" in stderr
    assert "Traceback" not in stderr


def test_a_file_that_is_no_log(station: MakeStation) -> None:
    place = station(Backend("embedded"), "tasting.py")
    (place.folder / "log.sqlite").write_bytes(b"this is not a database, and long enough to be looked at" * 100)
    code, stderr = start(place)
    assert code != 0
    assert "HR5007" in stderr
    assert "Traceback" not in stderr
    assert "HR9" not in stderr
