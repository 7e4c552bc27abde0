"""A secret of the settings appears nowhere, topics included; what strangers put into headers and payloads, in nothing that watches.

Payloads and headers go where they go by design: with its start into the run log, with a dead letter byte for byte to its topic, and to
those who ask for a run (`run get`, `run history`) or an event (`event tail`).
"""

from __future__ import annotations

import asyncio
import http.client
import io
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import pytest

from headrace.observability.silent import Silent
from headrace.observability.told_event import EventDeadLettered
from headrace.observability.told_run import RunFinished
from headrace.service.composition import Started, serve
from headrace.service.definitions.loader import load_app
from headrace.service.log_backend import log_of
from headrace.service.settings import Settings
from headrace.service.settings_source import load
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from tests.observability.otlp_receiver import OtlpReceiver
from tests.service.cli.conftest import Headrace, headrace, here
from tests.service.first_record import first_record

__all__ = ["headrace", "here"]  # fixtures

PASSWORD, URL = "canary-password-1a", "postgresql://user:canary-url-2b@db/history"
PAYLOAD, HEADER = "canary-payload-3c", "canary-header-4d"
TOKEN = "canary-token-5e"
SECRETS: Final = (PASSWORD, "canary-url-2b", TOKEN)
APP = f"""
import logging
import pydantic
from headrace import EventTrigger, Retry, Run, TaskFailed, handler, workflow

@handler(retry=Retry(attempts=2, delay="1ms", cap="1ms"))
async def leak(order: dict) -> None:
    logging.getLogger("shop").error("cannot log in with %s", "{PASSWORD}")
    raise PermissionError("refused: {PASSWORD} at {URL}")

@workflow(on=EventTrigger("orders"))
async def leaky(run: Run, order: dict) -> None:
    try:
        await run.call(leak, order)
    except TaskFailed as error:
        raise ValueError("{URL}, canary-url-2b: " + str(error)) from error

class Order(pydantic.BaseModel):
    id: str

    @pydantic.field_validator("id")
    @classmethod
    def known(cls, id: str) -> str:
        raise ValueError("{PASSWORD} does not open {URL}")

@workflow(on=EventTrigger("judged"))
async def unwanted(run: Run, order: Order) -> None:
    pass
"""
SETTINGS = f"""
[log]
path = "log.sqlite"
partitions = 2
[kafka]
sasl_password = "{PASSWORD}"
[history]
url = "{URL}"
[api]
port = 0
[telemetry]
metrics_port = 0
log_level = "debug"
log_format = "json"
"""
WATCHING: Final = (
    *(
        ("config", "show", "--sources"),
        ("doctor", "leaky_app.py"),
        ("run", "list"),
        ("run", "count"),
        ("topic", "list"),
    ),
    *(("topic", "lag", "leaky_app.py"), ("workflow", "list", "--app", "leaky_app.py")),
)
"""Commands that look at the app and its state, and at no payload."""


class Told(Silent):
    def __init__(self) -> None:
        self.finished: asyncio.Queue[RunFinished] = asyncio.Queue()
        self.dead_lettered: asyncio.Queue[EventDeadLettered] = asyncio.Queue()

    def run_finished(self, finished: RunFinished, /) -> None:
        self.finished.put_nowait(finished)

    def event_dead_lettered(self, lettered: EventDeadLettered, /) -> None:
        self.dead_lettered.put_nowait(lettered)


class Shown(msgspec.Struct):
    """What a service showed of itself while it met the canaries."""

    pages: list[str]
    console: str
    spans: str
    letters: list[LogRecord]
    run: str
    retries: int


def asked(url: str, path: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", path)
    body = connection.getresponse().read().decode()
    connection.close()
    return body


async def served(settings: Settings, app: Path, collector: OtlpReceiver) -> Shown:
    told, console = Told(), io.StringIO()
    stop, started = asyncio.Event(), asyncio.Event()
    facts: list[Started] = []

    def ready(fact: Started) -> None:
        facts.append(fact)
        started.set()

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        serving = serve(
            settings, load_app(app), stop=stop, create_topics=True, console=console, started=ready, observers=[told]
        )
        group.create_task(serving)
        await started.wait()
        async with log_of(settings, owner=False) as log:
            headers = (("x-token", HEADER.encode()), ("traceparent", HEADER.encode()))
            sound = NewRecord(value=f'{{"id": "{PAYLOAD}"}}'.encode(), headers=headers)
            broken = NewRecord(value=f'{{"id": "{PAYLOAD}" nonsense'.encode(), headers=headers)
            await log.publish(TopicPartition("orders", 0), [sound, broken])
            await log.publish(TopicPartition("judged", 0), [sound])
            finished = await told.finished.get()
            letters = [await told.dead_lettered.get() for _ in range(2)]
            pages = [
                await asyncio.to_thread(asked, facts[0].metrics_url, path)
                for path in ("/metrics", "/readyz?verbose", "/discovery")
            ]
            kept = [await first_record(log, TopicPartition(f"{letter.topic}.dlq", 0)) for letter in letters]
        stop.set()
    spans = "".join(str(collector.requests.get()) for _ in range(collector.requests.qsize()))
    return Shown(pages, console.getvalue(), spans, kept, finished.run, finished.retries)


def test_a_canary_appears_nowhere(
    here: Path, headrace: Headrace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    app = here / "leaky_app.py"
    app.write_text(APP)
    (here / "headrace.toml").write_text(SETTINGS)
    with ExitStack() as stack:
        collector = stack.enter_context(OtlpReceiver())
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"Authorization: Bearer {TOKEN}")  # `=` is meant: it is quoted
        shown = asyncio.run(served(load(file=here / "headrace.toml").settings, app, collector))
    out, err = capfd.readouterr()
    assert shown.retries == 1
    assert "cannot log in with ***" in err  # it was there, and was masked
    assert "Header format invalid" in err  # so is this
    assert "refused: ***" in shown.spans
    assert "headrace_runs_finished_total" in shown.pages[0]
    answers = {words: headrace(*words) for words in WATCHING}
    (wrong,) = [answer for answer in answers.values() if answer.code]
    faults = [line.split()[0] for line in wrong.out.splitlines() if " fail " in line]
    assert faults == ["history"]  # doctor: nobody answers at history.url
    everything = [out, err, shown.spans, shown.console, *shown.pages]
    everything += [text for answer in answers.values() for text in (answer.out, answer.err)]
    for text in everything:
        for canary in (*SECRETS, PAYLOAD, HEADER):
            assert canary not in text

    detail = headrace("run", "history", shown.run)
    assert "refused: *** at ***" in detail.out
    errors = [dict(letter.headers)["headrace-dlq-error"].decode() for letter in shown.letters]
    assert any("*** does not open ***" in error for error in errors)
    topics = b"".join(file.read_bytes() for file in here.glob("log.sqlite*"))
    assert PAYLOAD.encode() in topics  # by design, so this is where they are
    for secret in SECRETS:
        assert secret.encode() not in topics
        assert secret not in detail.out + headrace("run", "get", shown.run).out
