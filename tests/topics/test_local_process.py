"""Whether a process is gone, told from its name."""

import os
import subprocess
import sys

import msgspec
import pytest

from headrace.topics import local_process
from headrace.topics.local_process import here, is_gone, parsed

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are told apart by /proc")


def test_a_name_says_which_process_it_is_whatever_follows() -> None:
    assert parsed(f"{here()}_3-b8cbb2a6-5e4f") == here()
    assert parsed("rdkafka-1b2c") is None
    assert parsed("") is None


def test_a_process_that_runs_is_not_gone_and_a_killed_one_is() -> None:
    assert not is_gone(here())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    it = here(process.pid)
    assert not is_gone(it)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked for its exit code
    assert is_gone(it)
    process.communicate()
    assert is_gone(it)


def test_a_pid_that_is_used_again_is_another_process() -> None:
    assert is_gone(msgspec.structs.replace(here(), began="1"))


@pytest.mark.parametrize("other", [{"boot": "ab"}, {"space": "1"}])
def test_of_another_machine_or_container_nobody_here_knows(other: dict[str, str]) -> None:
    assert not is_gone(msgspec.structs.replace(here(), began="1", **other))


def test_where_the_system_does_not_say_nobody_is_known_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_process, "_stat", lambda _pid: None)
    assert not is_gone(here())
