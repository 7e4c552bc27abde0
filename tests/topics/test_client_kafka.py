"""Settings of the Kafka client: what is taken, what is refused, and with which words."""

import socket
from pathlib import Path

import pytest

from headrace.topics.client_kafka import EXTRA_NAMES, KafkaClient, KafkaClientSettings, client_arguments, resolved
from headrace.topics.errors import SettingsError
from headrace.topics.log import LogUnavailable
from headrace.topics.log_kafka import KafkaLog, client_facts

SERVERS = ("127.0.0.1:9092",)


def test_dotted_names_become_settings_and_arguments() -> None:
    settings = KafkaClientSettings(
        bootstrap_servers=SERVERS,
        extra={
            "bootstrap.servers": "a:1, b:2",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": "u",
            "sasl.password": "p",
            "security.protocol": "SASL_PLAINTEXT",
            "socket.timeout.ms": "7000",
            "metadata.max.age.ms": 60_000,
            "delivery.timeout.ms": 12_000,
            "client.rack": "r1",
        },
    )
    assert resolved(settings)[0].append_timeout_ms == 12_000
    assert resolved(settings)[0].client_rack == "r1"
    arguments = client_arguments(settings)
    assert arguments["bootstrap_servers"] == ["a:1", "b:2"]
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("u", "p")
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"
    assert (arguments["request_timeout_ms"], arguments["metadata_max_age_ms"]) == (7000, 60_000)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("sasl.user.name", "sasl.username"),
        ("socket.timeout", "socket.timeout.ms"),
        ("ssl.ca.locations", "ssl.ca.location"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        client_arguments(KafkaClientSettings(bootstrap_servers=SERVERS, extra={wrong: "x"}))
    assert wrong in caught.value.message
    assert f"Did you mean {nearest}" in caught.value.do


@pytest.mark.parametrize("value", ["soon", 0, -1, ""])
def test_a_duration_that_is_none_is_refused(value: str | int) -> None:
    with pytest.raises(SettingsError, match=r"retry\.backoff\.ms"):
        client_arguments(KafkaClientSettings(bootstrap_servers=SERVERS, extra={"retry.backoff.ms": value}))


def test_missing_certificates_are_refused(tmp_path: Path) -> None:
    settings = KafkaClientSettings(
        bootstrap_servers=SERVERS, security_protocol="SSL", ssl_ca_file=tmp_path / "none.pem"
    )
    with pytest.raises(SettingsError, match="certificates"):
        client_arguments(settings)


async def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="go together"):
        KafkaClient(KafkaClientSettings(bootstrap_servers=SERVERS, security_protocol="SASL_PLAINTEXT"))


def test_every_known_name_is_taken() -> None:
    values = {**dict.fromkeys(EXTRA_NAMES, 1000), "session.timeout.ms": 6000}
    resolved(KafkaClientSettings(bootstrap_servers=SERVERS, extra=dict(values)))


async def test_a_broker_that_is_not_there_is_said_at_once() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        log = KafkaLog(KafkaClientSettings(bootstrap_servers=(f"127.0.0.1:{taken.getsockname()[1]}",)))
        with pytest.raises(LogUnavailable, match="No Kafka broker answers at 127"):
            async with log:
                pass
        assert not log.reachable


def test_the_client_library_is_the_compiled_one() -> None:
    facts = client_facts()
    assert facts.compiled
    assert len(facts.bounded) == 4


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({"heartbeat.interval.ms": 5_000}, True),
        ({"heartbeat.interval.ms": 5_001}, False),
        ({"session.timeout.ms": 599}, False),
        ({"session.timeout.ms": "60000", "heartbeat.interval.ms": "20000"}, True),
    ],
)
def test_a_heartbeat_comes_at_least_twice_a_session(values: dict[str, str | int | float | bool], fits: bool) -> None:
    settings = KafkaClientSettings(bootstrap_servers=SERVERS, extra=values)
    if fits:
        resolved(settings)
        return
    with pytest.raises(SettingsError, match="more than half of session") as refused:
        resolved(settings)
    assert refused.value.do
