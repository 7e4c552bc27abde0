"""A secret in settings, and what strangers put into headers and payloads, appear in nothing that watches."""

from __future__ import annotations

import asyncio
import http.client
import io
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.observability.observer import EventDeadLettered, RunFinished
from headrace.observability.silent import Silent
from headrace.service.composition import Started, serve
from headrace.service.definitions.loader import load_app
from headrace.service.log_backend import log_of
from headrace.service.settings import Settings
from headrace.topics.log import NewRecord, TopicPartition
from tests.observability.otlp_receiver import OtlpReceiver

PASSWORD, URL = "canary-password-1a", "postgresql://user:canary-url-2b@db/history"
PAYLOAD, HEADER = "canary-payload-3c", "canary-header-4d"
APP = f"""
import logging
from headrace import EventTrigger, NonRetryable, Retry, Run, handler, workflow

@handler(retry=Retry(attempts=2, delay="1ms", cap="1ms"))
async def leak(order: dict) -> None:
    logging.getLogger("shop").error("cannot log in with %s", "{PASSWORD}")
    raise PermissionError("refused: {PASSWORD} at {URL}")

@workflow(on=EventTrigger("orders"))
async def leaky(run: Run, order: dict) -> None:
    await run.call(leak, order)
"""


class Told(Silent):
    def __init__(self) -> None:
        self.finished: asyncio.Queue[RunFinished] = asyncio.Queue()
        self.dead_lettered: asyncio.Queue[EventDeadLettered] = asyncio.Queue()

    def run_finished(self, finished: RunFinished, /) -> None:
        self.finished.put_nowait(finished)

    def event_dead_lettered(self, lettered: EventDeadLettered, /) -> None:
        self.dead_lettered.put_nowait(lettered)


def asked(url: str, path: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", path)
    body = connection.getresponse().read().decode()
    connection.close()
    return body


async def test_a_canary_appears_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "leaky_app.py").write_text(APP)
    settings = Settings.model_validate(
        {
            "log": {"path": tmp_path / "log.sqlite", "partitions": 2},
            "kafka": {"sasl_password": PASSWORD},
            "history": {"url": URL},
            "telemetry": {"metrics_port": 0, "log_level": "debug", "log_format": "json"},
        }
    )
    told, console = Told(), io.StringIO()
    stop, started = asyncio.Event(), asyncio.Event()
    facts: list[Started] = []

    def ready(fact: Started) -> None:
        facts.append(fact)
        started.set()

    with OtlpReceiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            group.create_task(
                serve(
                    settings,
                    load_app(tmp_path / "leaky_app.py"),
                    stop=stop,
                    create_topics=True,
                    console=console,
                    started=ready,
                    observers=[told],
                )
            )
            await started.wait()
            async with log_of(settings, owner=False) as log:
                headers = (("x-token", HEADER.encode()), ("traceparent", HEADER.encode()))
                sound = NewRecord(value=f'{{"id": "{PAYLOAD}"}}'.encode(), headers=headers)
                broken = NewRecord(value=f'{{"id": "{PAYLOAD}" nonsense'.encode(), headers=headers)
                await log.publish(TopicPartition("orders", 0), [sound, broken])
            finished = await told.finished.get()
            await told.dead_lettered.get()
            pages = [
                await asyncio.to_thread(asked, facts[0].metrics_url, path) for path in ("/metrics", "/readyz?verbose")
            ]
            stop.set()
        spans = "".join(str(collector.requests.get()) for _ in range(collector.requests.qsize()))
    out, err = capfd.readouterr()
    assert finished.retries == 1
    assert "cannot log in with ***" in err  # it was there, and was masked
    assert "refused: ***" in spans
    assert "headrace_runs_finished_total" in pages[0]
    for shown in (out, err, spans, console.getvalue(), *pages):
        for canary in (PASSWORD, "canary-url-2b", PAYLOAD, HEADER):
            assert canary not in shown
