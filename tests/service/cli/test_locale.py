"""A locale that knows ASCII only: answers come all the same, and JSON is JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.repository import ROOT
from tests.service.cli.recorded import Recording

KEY = "É☃\U0001f600"
pytestmark = pytest.mark.skipif(
    not str(ROOT).isascii(), reason="in this locale Python itself finds nothing below a folder whose name is not ASCII"
)


def in_c_locale(*arguments: str) -> bytes:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    command = [sys.executable, "-m", "headrace", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.fixture
async def run(here: Path) -> str:
    async with Recording() as log:
        partition = await log.partition()
        return await partition.start(0, key=KEY)


async def test_a_table_shows_what_it_cannot_write_by_number(run: str) -> None:
    assert rb"\xc9\u2603\U0001f600" in in_c_locale("run", "list")


async def test_json_and_yaml_are_escaped_by_their_own_rules(run: str) -> None:
    for format_ in ("json", "jsonl"):
        text = in_c_locale("run", "list", "-o", format_)
        assert text.isascii()
        found = json.loads(text)
        assert (found[0] if format_ == "json" else found)["key"] == KEY
    assert rb"\xC9\u2603\U0001F600" in in_c_locale("run", "list", "-o", "yaml")
