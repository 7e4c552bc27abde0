"""`python -m benchmarks.hostile`: what strangers can do to what watches and to the HTTP API, and how long the event loop stands still for it.

One service on the embedded log in this process, with `--names` workflows and a steady trickle of events to some of them; one case after the
other. For each: how late a 2 ms tick of the loop came, without waits for a core (longest, and 99 of 100), the longest garbage collection,
how memory grew, and what was counted. The machine's own pauses are in the first line: nothing is done there but the trickle.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from headrace.observability.scrape import samples_of
from headrace.service import composition
from headrace.service.composition import Started, serve
from headrace.service.definitions.loader import load_app
from headrace.service.log_backend import log_of
from headrace.service.service import Service
from headrace.service.settings import Settings
from headrace.topics.log import NewRecord, TopicPartition
from tests.observability.otlp_receiver import OtlpReceiver

TICK_S: Final = 0.002
BUSY: Final = 50
"""Workflows that get events."""
RATE: Final = 100
APP: Final = """
from headrace import EventTrigger, Retry, Run, handler, workflow

@handler(retry=Retry(attempts=2, delay="1ms", cap="1ms"))
async def work(order: dict) -> None:
    if order["id"] % 10 == 0:
        raise type('Strange "name"\\nwith lines %d' % order["id"], (Exception,), {{}})("a\\nb\\x1b[31m")

def made(number):
    @workflow(on=EventTrigger("orders", type="t%d" % number), name="shop.of-%d" % number)
    async def flow(run: Run, order: dict) -> None:
        await run.call(work, order)
    return flow

for _number in range({names}):
    globals()["flow_%d" % _number] = made(_number)
"""
BAD_CONTEXTS: Final = (
    (("traceparent", b"00-" + b"a" * 597),),
    (("traceparent", b"\xff\x00\n"),),
    (
        ("traceparent", b"00-" + b"a1" * 16 + b"-" + b"b2" * 8 + b"-01"),
        ("tracestate", ",".join(f"k{number}=v" for number in range(100)).encode()),
    ),
)


class Line(NamedTuple):
    """A case's figures."""

    case: str
    longest_ms: float
    p99_ms: float
    collection_ms: float
    grown_mib: float
    counted: str


class Place:
    """The service under test, its log, and what happens to it."""

    def __init__(self, settings: Settings, started: Started, service: Service) -> None:
        self.settings = settings
        self.url = started.metrics_url
        self.api_url = started.api_url
        self.service = service
        self.headers: tuple[tuple[tuple[str, bytes], ...], ...] = ((),)
        self._sent = 0

    async def trickle(self, log: Any, until: float) -> None:
        """`RATE` events a second, ten at a time."""
        while time.monotonic() < until:
            records = [self._event() for _ in range(10)]
            await log.publish(TopicPartition("orders", 0), records)
            await asyncio.sleep(10 / RATE)

    def _event(self) -> NewRecord:
        self._sent += 1
        number = self._sent
        ce = (("ce_specversion", b"1.0"), ("ce_id", b"%d" % number), ("ce_source", b"bench"))
        type_ = ("ce_type", b"t%d" % (number % BUSY))
        return NewRecord(value=b'{"id": %d}' % number, headers=(*ce, type_, *self.headers[number % len(self.headers)]))

    def count(self, name: str, **labels: str) -> float:
        """A counter's sum now, from a scrape."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            samples = samples_of(answer.read().decode())
        return sum(value for of, value in samples.get(name, ()) if labels.items() <= of.items())


async def ticks(until: float) -> list[float]:
    """How late each tick came, in milliseconds, without what this thread waited for a core: strangers and others need one, too."""
    late: list[float] = []
    waited = for_a_core()
    while (due := time.monotonic() + TICK_S) < until:
        await asyncio.sleep(TICK_S)
        before, waited = waited, for_a_core()
        late.append(max(0.0, (time.monotonic() - due - (waited - before)) * 1000))
    return sorted(late)


def for_a_core() -> float:
    """Seconds that this thread was ready to run and did not, as Linux tells; 0 elsewhere."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


@contextmanager
def collections() -> Iterator[list[float]]:
    """How long Python's garbage collections took: nothing turns meanwhile, whoever made the garbage."""
    found: list[float] = []
    began = [0.0]

    def see(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            began[0] = time.monotonic()
        else:
            found.append((time.monotonic() - began[0]) * 1000)

    gc.callbacks.append(see)
    try:
        yield found
    finally:
        gc.callbacks.remove(see)


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@contextmanager
def scraping(url: str, threads: int) -> Iterator[None]:
    """Scrapers that ask again at once, in both formats."""
    over = threading.Event()

    def scrape(accept: str) -> None:
        while not over.is_set():
            asked = urllib.request.Request(f"{url}/metrics", headers={"Accept": accept})
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    answer.read()
            except OSError:  # it was cut off: the port keeps 16 connections, each for 10 s
                pass

    formats = ("text/plain", "application/openmetrics-text")
    started = [threading.Thread(target=scrape, args=(formats[index % 2],), daemon=True) for index in range(threads)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in started:
            thread.join()


@contextmanager
def never_reading(url: str, connections: int) -> Iterator[None]:
    """Scrapers that ask and never read, with buffers as small as they get."""
    with ExitStack() as stack:
        for _ in range(connections):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.connect((urlsplit(url).hostname, urlsplit(url).port))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        yield


@contextmanager
def bad_contexts(place: Place) -> Iterator[None]:
    place.headers = BAD_CONTEXTS
    try:
        yield
    finally:
        place.headers = ((),)


@contextmanager
def fenced(place: Place) -> Iterator[None]:
    """Partitions are taken again and again, as after a stall, while somebody scrapes."""
    loop, over = asyncio.get_running_loop(), threading.Event()

    def again() -> None:
        while not over.wait(0.5):
            loop.call_soon_threadsafe(place.service.fence, 6.0)

    thread = threading.Thread(target=again, daemon=True)
    with scraping(place.url, 1):
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def stranger(place: Place, case: str, seconds: float) -> Iterator[None]:
    """`benchmarks/hostile_client.py`, for as long as the case lasts."""
    command = [sys.executable, "-m", "benchmarks.hostile_client", case, place.api_url, str(seconds)]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


async def measured(
    place: Place, log: Any, case: str, doing: Any, seconds: float, counted: tuple[str, dict[str, str]]
) -> Line:
    name, labels = counted
    before_mib, before = resident_mib(), await asyncio.to_thread(place.count, name, **labels)
    await asyncio.sleep(1)  # that scrape is none of the case's
    with doing, collections() as pauses_ms:
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(place.trickle(log, until))
            late = await ticks(until)
    after = await asyncio.to_thread(place.count, name, **labels)
    return Line(
        case,
        late[-1],
        late[int(len(late) * 0.99)],
        max(pauses_ms, default=0.0),
        resident_mib() - before_mib,
        f"{name} {labels or ''} +{after - before:.0f}",
    )


async def one_service(
    given: argparse.Namespace, folder: Path, cases: Callable[[Place], list[Any]], *, api: bool = False
) -> None:
    """Start a service, with the API and a history if the cases are about them, and print a line for each case."""
    app = folder / "names_app.py"
    app.write_text(APP.format(names=given.names))
    settings = Settings.model_validate(
        {
            "log": {"path": folder / "log.sqlite", "partitions": 8},
            "api": {"enabled": api, "port": 0},
            "history": {"url": f"sqlite:///{folder}/history.sqlite" if api else "none"},
            "telemetry": {"metrics_port": 0, "log_level": "error", "log_format": "json"},
        }
    )
    stop, started = asyncio.Event(), asyncio.Event()
    facts: list[Started] = []
    services: list[Service] = []
    watch = composition.Telemetry.watch

    def watching(self: composition.Telemetry, service: Service) -> None:
        services.append(service)
        watch(self, service)

    composition.Telemetry.watch = watching
    began = time.monotonic()
    loaded = load_app(app)
    print(f"{given.names} workflows loaded in {time.monotonic() - began:.1f} s", flush=True)

    def ready(fact: Started) -> None:
        facts.append(fact)
        started.set()

    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(serve(settings, loaded, stop=stop, create_topics=True, started=ready))
            await started.wait()
            async with log_of(settings, owner=False) as log:
                place = Place(settings, facts[0], services[0])
                gc.collect()
                gc.freeze()
                gc.set_threshold(50_000, 20, 20)  # as a service process does
                await place.trickle(log, time.monotonic() + 3)
                for case, doing, counted in cases(place):
                    line = await measured(place, log, case, doing, given.seconds, counted)
                    print(
                        f"{line.case:<44} {line.longest_ms:7.1f} {line.p99_ms:7.1f} {line.collection_ms:7.1f} {line.grown_mib:+8.1f}  {line.counted}",
                        flush=True,
                    )
            stop.set()
            await serving
    finally:
        composition.Telemetry.watch = watch


@contextmanager
def nothing() -> Iterator[None]:
    yield


def at_the_port(place: Place) -> list[Any]:
    finished = ("headrace_runs_finished_total", {})
    return [
        ("nothing but the trickle", nothing(), finished),
        ("one scraper, without a pause", scraping(place.url, 1), finished),
        ("ten scrapers, without a pause", scraping(place.url, 10), finished),
        (
            "100 scrapers that never read",
            never_reading(place.url, 100),
            ("headrace_metrics_port_errors_total", {"reason": "crowded"}),
        ),
        ("malformed and endless trace contexts", bad_contexts(place), ("headrace_trace_contexts_refused_total", {})),
        ("a scraper during take-overs", fenced(place), ("headrace_event_loop_fenced_total", {})),
    ]


def at_the_api(place: Place, seconds: float) -> list[Any]:
    def case(title: str, name: str, counted: str = "headrace_http_requests_total", **labels: str) -> Any:
        return title, stranger(place, name, seconds), (counted, labels)

    refused = "headrace_trace_contexts_refused_total"
    return [
        ("nothing but the trickle, with API and history", nothing(), ("headrace_runs_finished_total", {})),
        case("all lists, eight clients without a pause", "lists", code="200"),
        case("starts and events, 32 at once", "starts"),
        case("bodies of 4 MiB: deep, wide, endless", "bodies", code="400"),
        case("batches of 10 000 events", "batches", route="/api/v1/events"),
        case("forged cursors, ids, numbers", "forgeries", code="404"),
        case("starts with bad trace contexts", "contexts", refused),
        case("shapes that smuggle requests", "smuggling", code="404"),
        case("20 clients that ask on and never read", "pipelining"),
        case("300 connections that dribble headers", "dribbling"),
        case("100 live streams that never read", "never-reading", code="503"),
    ]


def at_the_collector(word: str) -> Callable[[Place], list[Any]]:
    def cases(_: Place) -> list[Any]:
        spans = "headrace_trace_spans_total"
        return [
            (f"every run sampled, {word}: made", nothing(), (spans, {"result": "made"})),
            (f"every run sampled, {word}: failed", nothing(), (spans, {"result": "failed"})),
        ]

    return cases


async def main(given: argparse.Namespace) -> int:
    print(
        f"{'':<44} {'longest':>7} {'p99':>7} {'gc':>7} {'memory':>8}  counted\n{'':<44} {'ms':>7} {'ms':>7} {'ms':>7} {'MiB':>8}"
    )
    if not given.api_only:
        with tempfile.TemporaryDirectory() as folder:
            await one_service(given, Path(folder), at_the_port)
    with tempfile.TemporaryDirectory() as folder:
        await one_service(given, Path(folder), lambda place: at_the_api(place, given.seconds), api=True)
    if given.api_only:
        return 0
    with OtlpReceiver() as receiver:
        gone = receiver.endpoint
    for word, hangs in (("a collector that hangs", True), ("no collector", False)):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            address = stack.enter_context(OtlpReceiver(hangs=True)).endpoint if hangs else gone
            os.environ.update(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_EXPORTER_OTLP_TIMEOUT="2")
            await one_service(given, Path(folder), at_the_collector(word))
    return 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--names", type=int, default=10_000, help="workflows (default: 10000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case (default: 10)")
    parser.add_argument("--api-only", action="store_true", help="only what is about the HTTP API")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options())))
