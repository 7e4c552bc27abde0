"""An app outside the checkout that imports only `headrace`, with its own modules `handlers.py` and `service.py`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.dev_process import BOUND_S, ROOT, DevProcess, environment

PLACED = "com.shop.order.placed"
ORDERS = [
    {"id": "1", "item": "lamp", "total": 50},
    {"id": "2", "item": "unicorn", "total": 50},
    {"id": "3", "item": "palace", "total": 90_000},
]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A copy outside."""
    folder = tmp_path / "shop"
    shutil.copytree(Path(__file__).parent / "external_app", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("started_in", ["app", "checkout"])
def test_it_runs_from_anywhere_with_its_own_handlers_and_service(app: Path, tmp_path: Path, started_in: str) -> None:
    folder = {"app": app, "checkout": ROOT}[started_in]
    with DevProcess(app, folder=folder, log_path=tmp_path / "log.sqlite") as dev:
        dev.publish("orders", PLACED, ORDERS, key="id")
        (event,) = dev.tail("orders.fulfilled", 1)
        assert event["data"] == {"order": "1", "tracking": "T-1"}
        assert event["key"] == "1"
        assert dev.stop() == 0


def test_its_runs_end_as_its_own_handlers_and_service_say(app: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with DevProcess(app, folder=tmp_path / "elsewhere", log_path=tmp_path / "log.sqlite") as dev:
        dev.publish("orders", PLACED, ORDERS, key="id")
        (event,) = dev.tail("orders.fulfilled", 1)
        assert event["data"] == {"order": "1", "tracking": "T-1"}
        assert event["key"] == "1"

        for order in ORDERS:
            run = next(run for run in dev.runs() if run["key"] == order["id"])
            if order["id"] == "3":  # exit code 8: it did not succeed, as it must
                with pytest.raises(AssertionError, match=r": 8\n"):
                    dev.cli("run", "watch", run["id"])
            else:
                dev.cli("run", "watch", run["id"])
        assert dev.stop() == 0
        found = {run["key"]: (run["status"], run["retries"]) for run in dev.runs()}
        assert found == {"1": ("succeeded", 1), "2": ("succeeded", 1), "3": ("compensated", 2)}
        assert len(dev.everything("orders.fulfilled")) == 1


@pytest.mark.slow
def test_it_passes_pyright_strict(app: Path) -> None:
    """Pyright cannot follow the finder of an editable install, hence the extra path; the app's own modules come first."""
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    (app / "pyrightconfig.json").write_text(json.dumps(settings))
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=app,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    said = json.loads(checked.stdout)
    assert said["generalDiagnostics"] == []
    assert said["summary"]["filesAnalyzed"] == 3
