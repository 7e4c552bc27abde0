"""The metrics port over real sockets: pages, formats, health, and peers that behave badly."""

import gzip
import json
import socket
import struct
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from headrace.observability import exposition
from headrace.observability.exposition import CONNECTIONS_MAX, Exposition, PortErrors
from headrace.observability.health import Condition, Health
from headrace.observability.label import PortError
from headrace.observability.prometheus import PrometheusObserver, registry
from headrace.topics.errors import SettingsError
from tests.observability.workload import tell_all


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def port(health: Health) -> Iterator[int]:
    observer = PrometheusObserver()
    tell_all(observer)
    with Exposition(registry(observer), health, port=0) as served:
        yield served.port


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_metrics_are_prometheus_text_unless_openmetrics_is_asked_for(port: int) -> None:
    response, body = get(port, "/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    names = {metric.name for metric in parse_text(body.decode())}
    response, body = get(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert "headrace_runs_started" in names & {metric.name for metric in parse_openmetrics(body.decode())}


def test_metrics_are_compressed_for_those_who_take_it(port: int) -> None:
    response, body = get(port, "/metrics", Accept_Encoding="gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"headrace_runs_started_total" in gzip.decompress(body)


def test_ready_means_started_and_every_condition(port: int, health: Health) -> None:
    def statuses() -> list[int]:
        return [get(port, path)[0].status for path in ("/livez", "/startupz", "/readyz")]

    assert statuses() == [200, 503, 503]
    health.start()
    assert statuses() == [200, 200, 503]
    for condition in Condition:
        health.set(condition, ok=True)
    assert statuses() == [200, 200, 200]
    health.set(Condition.BROKER, ok=False, detail="no broker answers")
    assert statuses() == [200, 200, 503]
    health.set(Condition.BROKER, ok=True)
    health.drain("SIGTERM")
    assert statuses() == [200, 200, 503]


def test_verbose_says_why(port: int, health: Health) -> None:
    health.start()
    for condition in Condition:
        health.set(condition, ok=True)
    health.note("orders.fulfilled", "topic is missing")
    response, body = get(port, "/readyz?verbose")
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    report = json.loads(body)
    assert (report["status"], report["notes"]) == ("degraded", {"orders.fulfilled": "topic is missing"})
    health.drain("SIGTERM")
    response, body = get(port, "/readyz?verbose")
    assert response.status == 503
    assert json.loads(body)["conditions"]["draining"] == {"ok": False, "detail": "SIGTERM"}


def test_a_loop_that_stands_still_is_not_alive(port: int, health: Health) -> None:
    health.watch(lambda: exposition.CONNECTION_S * 1000)
    assert get(port, "/livez")[0].status == 503


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/metrics", 501), ("HEAD", "/metrics", 200)],
)
def test_other_requests(port: int, method: str, path: str, status: int) -> None:
    assert get(port, path, method)[0].status == status


def test_a_target_that_is_none_is_the_askers_fault(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(b"GET http://[ HTTP/1.0\r\n\r\n")
        assert peer.makefile("rb").readline().split()[1] == b"400"


@pytest.mark.parametrize("asked", ["host-7:9464", "10.1.2.3:9464", "[fd00::7]:9464", "host-7"])
@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])
def test_a_worker_that_listens_on_all_addresses_is_listed_under_the_one_that_was_asked(
    health: Health, everywhere: str, asked: str
) -> None:
    listed = json.dumps([{"targets": [f"{everywhere}:9465"]}, {"targets": ["127.0.0.1:9466"]}]).encode()
    with Exposition(CollectorRegistry(), health, port=0, discovery=lambda: listed) as served:
        groups = json.loads(get(served.port, "/discovery", Host=asked)[1])
    name = asked.removesuffix(":9464")
    assert [group["targets"] for group in groups] == [[f"{name}:9465"], ["127.0.0.1:9466"]]


@pytest.mark.parametrize("asked", ["", 'x"]', "a b", "host/path", ":9464", "host:port"])
def test_who_asks_for_no_host_changes_nothing_in_the_list(health: Health, asked: str) -> None:
    listed = b'[{"targets": ["0.0.0.0:9465"]}]'
    with Exposition(CollectorRegistry(), health, port=0, discovery=lambda: listed) as served:
        assert get(served.port, "/discovery", Host=asked)[1] == listed


def test_a_taken_port_is_refused_with_code_and_fix() -> None:
    with Exposition(CollectorRegistry(), Health(), port=0) as first:
        with pytest.raises(SettingsError) as refused, Exposition(CollectorRegistry(), Health(), port=first.port):
            pass
        assert refused.value.code == "HR1301"
        assert str(first.port) in refused.value.message
        assert "--metrics-port" in refused.value.do


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError) as refused, Exposition(CollectorRegistry(), Health(), host="192.0.2.1", port=0):
        pass
    assert refused.value.code == "HR1302"
    assert "metrics_host" in refused.value.do


def test_the_port_is_free_again_afterwards() -> None:
    with Exposition(CollectorRegistry(), Health(), port=0) as first:
        port = first.port
        get(port, "/livez")
    with Exposition(CollectorRegistry(), Health(), port=port) as second:
        assert get(second.port, "/livez")[0].status == 200


class Large(Collector):
    """More text than the sockets of both sides can hold."""

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("large", "Large.", labels=["text"])
        for number in range(400):
            family.add_metric([f"{number}" + "x" * 50_000], 1)
        yield family


def test_peers_that_never_read_or_never_ask_do_not_keep_others_out() -> None:
    large = CollectorRegistry()
    large.register(Large())
    with Exposition(large, Health(), port=0) as served:
        address = ("127.0.0.1", served.port)
        silent = [socket.create_connection(address, timeout=20) for _ in range(CONNECTIONS_MAX * 2)]
        deaf = [socket.create_connection(address, timeout=20) for _ in range(3)]
        for connection in deaf:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert get(served.port, "/livez")[0].status == 200
        # The oldest were ended to make room.
        assert silent[0].recv(1) == b""
        for connection in [*silent, *deaf]:
            connection.close()


def reset(connection: socket.socket) -> None:
    """Close it so that the other side hears of it at once, whatever is still on its way."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def until_counted(errors: PortErrors, reason: PortError, count: int) -> None:
    """Return when so many are counted for this reason, or fail."""
    patience = threading.Event()
    for _ in range(2000):
        if errors()[reason] >= count:
            break
        patience.wait(0.01)
    assert errors() == {**dict.fromkeys(PortError, 0), reason: count}


def asking(port: int) -> socket.socket:
    """A scraper that asks for the metrics and has begun to get them."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert connection.recv(8) == b"HTTP/1.0"
    return connection


@pytest.fixture
def large() -> Iterator[Exposition]:
    registry = CollectorRegistry()
    registry.register(Large())
    with Exposition(registry, Health(), port=0) as served:
        yield served


def test_a_scraper_that_goes_away_in_the_middle_of_its_answer_is_counted(large: Exposition) -> None:
    reset(asking(large.port))
    until_counted(large.errors, PortError.GONE, 1)


def test_a_scraper_that_is_ended_to_make_room_is_counted_once(large: Exposition) -> None:
    deaf = asking(large.port)
    others = [socket.create_connection(("127.0.0.1", large.port), timeout=20) for _ in range(CONNECTIONS_MAX)]
    until_counted(large.errors, PortError.CROWDED, 1)
    while deaf.recv(1 << 20):  # what was on its way, and then the end
        pass
    for connection in (deaf, *others):  # they end in good order: none has asked for anything
        connection.close()
    until_counted(large.errors, PortError.CROWDED, 1)


def test_a_scraper_that_never_reads_is_counted_when_its_time_is_over(
    large: Exposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = asking(large.port)
    monkeypatch.setattr(exposition, "CONNECTION_S", 0.0)
    until_counted(large.errors, PortError.TIMED_OUT, 1)
    deaf.close()


def test_an_answer_that_was_had_is_no_error(port: int) -> None:
    observer, errors = PrometheusObserver(), PortErrors()
    observer.show_port_errors(errors)
    with Exposition(registry(observer), Health(), port=0) as served:
        for path in ("/metrics", "/livez", "/readyz", "/nothing"):
            get(served.port, path)
        socket.create_connection(("127.0.0.1", served.port), timeout=20).close()  # a probe that only knocks
        _, body = get(served.port, "/metrics")
        assert not any(served.errors().values())
    for reason in PortError:
        assert f'headrace_metrics_port_errors_total{{reason="{reason}"}} 0.0' in body.decode()


def test_connections_end_with_the_port() -> None:
    with Exposition(CollectorRegistry(), Health(), port=0) as served:
        silent = socket.create_connection(("127.0.0.1", served.port), timeout=20)
        get(served.port, "/livez")
    assert silent.recv(1) == b""
    silent.close()


class Failing(Collector):
    def __init__(self) -> None:
        self.fails = threading.Event()

    def collect(self) -> Iterator[Metric]:
        if self.fails.is_set():
            raise RuntimeError("secret detail")
        yield GaugeMetricFamily("fine", "Fine.", value=1)


def test_a_collector_that_raises_answers_500_without_detail_and_recovers() -> None:
    failing, made = Failing(), CollectorRegistry()
    made.register(failing)
    with Exposition(made, Health(), port=0) as served:
        failing.fails.set()
        response, body = get(served.port, "/metrics")
        assert (response.status, body) == (500, b"Cannot read the metrics: RuntimeError\n")
        assert served.errors() == {**dict.fromkeys(PortError, 0), PortError.FAILED: 1}
        failing.fails.clear()
        assert get(served.port, "/metrics")[0].status == 200
