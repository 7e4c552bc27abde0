"""What `headrace doctor` says of the API's port."""

import socket
import threading

import pytest
from pydantic import SecretStr

from headrace.service.cli import doctor_api
from headrace.service.cli.doctor_api import api_check
from headrace.service.cli.doctor_check import Check, State
from headrace.service.settings import ApiSettings
from tests.service.api.client import PATIENCE_S, Client


def checked(**settings: object) -> Check:
    check = api_check(ApiSettings.model_validate({"port": 0, **settings}))
    assert check is not None
    return check


def _hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_a_free_port_is_fine() -> None:
    assert checked() == Check("api port", State.OK, "127.0.0.1:0 is free")


def test_a_headrace_that_answers_there_is_fine(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_api, "_TIMEOUT_S", PATIENCE_S)
    assert checked(host=api.host, port=api.port).found == f"a Headrace answers at {api.host}:{api.port}"
    secret = checked(host=api.host, port=api.port, auth="token", token=SecretStr("another"))
    assert secret.state is State.OK


def test_somebody_elses_port_is_told_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        hangs_up = threading.Thread(target=_hang_up, args=(other,), daemon=True)
        hangs_up.start()
        check = checked(port=port)
        hangs_up.join()
    assert (check.state, check.code) == (State.WARN, "HR1305")
    assert str(port) in check.found
    assert "--api-port" in check.fix


def test_what_a_start_would_refuse_is_told() -> None:
    refused = [
        checked(host="0.0.0.0"),  # everybody could do everything
        checked(auth="token"),
        checked(host="203.0.113.1", allow_anonymous=True),
    ]
    assert [check.code for check in refused] == ["HR1307", "HR1308", "HR1306"]
    assert all(check.state is State.FAIL and check.fix for check in refused)


def test_without_an_api_there_is_nothing_to_say() -> None:
    assert api_check(ApiSettings(enabled=False)) is None
