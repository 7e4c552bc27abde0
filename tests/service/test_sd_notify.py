"""What systemd hears, over a real socket."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from headrace.service.sd_notify import SdNotify
from tests.service.shell import until
from tests.service.systemd import Systemd


async def test_ready_alive_and_stopping_are_heard(tmp_path: Path) -> None:
    with Systemd(tmp_path, watchdog_s=0.03) as systemd:
        notify = SdNotify.from_environment(dict(systemd.environment))
        notify.ready("shop,\nmetrics at http://x")
        async with asyncio.TaskGroup() as tasks:
            alive = tasks.create_task(notify.keep_alive())
            await until(lambda: len(systemd.heard("WATCHDOG")) >= 3)
            alive.cancel()
        notify.stopping()
        assert systemd.heard("READY") == ["1"]
        assert systemd.heard("STATUS") == ["shop, metrics at http://x", "Stopping in good order"]
        assert systemd.heard("STOPPING") == ["1"]


def test_the_variables_are_for_this_process_alone(tmp_path: Path) -> None:
    environ = {
        "NOTIFY_SOCKET": str(tmp_path / "s"),
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "A": "b",
    }
    assert SdNotify.from_environment(environ).ping_every_s == 1.0
    assert environ == {"A": "b"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/s"},
        {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "1000000"},
        {"WATCHDOG_USEC": "1000000"},
    ],
)
async def test_nobody_is_told_that_did_not_ask(environ: dict[str, str]) -> None:
    notify = SdNotify.from_environment(environ)
    assert notify.ping_every_s is None
    await notify.keep_alive()
    notify.ready("there is no such socket")
    notify.stopping()


def test_an_abstract_socket_is_spoken_to() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        name = f"headrace-test-{os.getpid()}"
        heard.bind(f"\0{name}")
        notify = SdNotify(f"@{name}")
        notify.ready("up")
        assert heard.recv(100) == b"READY=1\nSTATUS=up"


def test_a_socket_that_is_full_or_gone_does_no_harm(tmp_path: Path) -> None:
    with Systemd(tmp_path) as systemd:
        notify = SdNotify.from_environment(dict(systemd.environment))
        for _ in range(10_000):
            notify.ready("x" * 100)
    notify.ready("nobody listens any more")
