"""Runs that play a program which came with their event. What each must end as is known beforehand (`tests/chaos/program.py`).

Every attempt tells the sink that it began and that it ended. A task's value follows from the event; beside it goes a
number of chance, so that the result says *which* attempt's answer the run went on with.
"""

import asyncio
import json
import os
import random
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from zlib import crc32

from headrace import EventTrigger, NonRetryable, Retry, Run, TaskFailed, current_attempt, handler, workflow

NAME = os.environ["CHAOS_NAME"]
SINK = ("127.0.0.1", int(os.environ["CHAOS_SINK"]))
SOURCE, RESULTS, TINY = f"{NAME}.in", f"{NAME}.results", f"{NAME}.tiny"

_dice = random.SystemRandom()
_threads = threading.local()
_connections: dict[asyncio.AbstractEventLoop, "Connection"] = {}


class Elsewhere:
    """No step of a run: who awaits it is parked."""

    def __await__(self) -> Generator["Elsewhere"]:
        yield self


@dataclass
class Job:
    id: str
    group: str
    program: list[list[int | str]]


class Connection:
    """To the sink, one a process, a line and its answer at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def say(self, line: bytes) -> int:
        async with self._lock:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*SINK)
            reader, writer = self._streams
            self._streams = None  # stays so if we are cancelled between line and answer
            writer.write(line)
            answer = int(await reader.readline())
            self._streams = reader, writer
            return answer


def line_of(phase: str, job: str, place: int, branch: int) -> bytes:
    attempt = current_attempt()
    told = {
        "key": attempt.idempotency_key,
        "run": attempt.run_id,
        "task": attempt.task,
        "number": attempt.number,
        "phase": phase,
        "pid": os.getpid(),
        "job": job,
        "place": place,
        "branch": branch,
        "at_ns": time.time_ns(),
    }
    return json.dumps(told).encode() + b"\n"


async def tell(phase: str, job: str, place: int, branch: int) -> int:
    """How often this task had begun before, over all processes."""
    loop = asyncio.get_running_loop()
    connection = _connections.setdefault(loop, Connection())
    return await connection.say(line_of(phase, job, place, branch))


def tell_from_thread(phase: str, job: str, place: int, branch: int) -> int:
    if not hasattr(_threads, "file"):
        _threads.file = socket.create_connection(SINK).makefile("rwb")
    _threads.file.write(line_of(phase, job, place, branch))
    _threads.file.flush()
    return int(_threads.file.readline())


def answer(job: str, place: int, branch: int) -> dict[str, int]:
    value = crc32(f"{job}/{place}/{branch}".encode()) % 1000
    return {"place": place, "branch": branch, "value": value, "chance": _dice.getrandbits(40)}


@handler(retry=Retry(attempts=5, delay="20ms"))
async def work(job: str, place: int, branch: int, ms: int, fails: int) -> dict[str, int]:
    await tell("start", job, place, branch)
    if current_attempt().number <= fails:
        raise ConnectionError("not yet")
    await asyncio.sleep(ms / 1000)
    await tell("end", job, place, branch)
    return answer(job, place, branch)


@handler
async def unwork(job: str, place: int, branch: int, ms: int, fails: int) -> None:
    await tell("undo", job, place, branch)


@handler
def grind(job: str, place: int, branch: int, ms: int) -> dict[str, int]:
    """In a thread."""
    tell_from_thread("start", job, place, branch)
    time.sleep(ms / 1000)
    tell_from_thread("end", job, place, branch)
    return answer(job, place, branch)


@handler
async def refuse(job: str, place: int) -> None:
    await tell("start", job, place, 0)
    raise NonRetryable("never")


@handler
async def linger(job: str, place: int) -> None:
    await tell("start", job, place, 0)
    await asyncio.sleep(600)


@handler(retry=Retry(attempts=5, delay="20ms"))
async def block(job: str, place: int, ms: int) -> dict[str, int]:
    """Stops the whole event loop, the first time only."""
    if not await tell("start", job, place, 0):
        time.sleep(ms / 1000)  # noqa: ASYNC251 - the misdeed
    await tell("end", job, place, 0)
    return answer(job, place, 0)


@handler(timeout="1h")
async def hang(job: str, place: int) -> None:
    await tell("start", job, place, 0)
    await asyncio.Event().wait()


async def shortly(run: Run) -> None:
    await run.sleep("15ms")


async def play(run: Run, job: Job) -> None:
    done: list[dict[str, int]] = []
    caught = 0
    for place, (verb, first, second) in enumerate(job.program):
        ms, more = int(first), int(second)
        if verb == "call":
            done.append(await run.call(work, job.id, place, 0, ms, more))
        elif verb == "undoable":
            done.append(await run.call(work, job.id, place, 0, ms, more, compensate=unwork))
        elif verb == "thread":
            done.append(await run.call(grind, job.id, place, 0, ms))
        elif verb == "nap":
            done.append(await run.call(work, job.id, place, 0, 0, 0))
            await run.sleep(f"{ms}ms")
            done.append(await run.call(work, job.id, place, 1, 0, 0))
        elif verb == "gather":
            done += await run.gather(*[run.call(work, job.id, place, branch, ms, branch % 2) for branch in range(more)])
        elif verb == "map":
            done += await run.map(
                lambda branch, at=place, ms=ms: run.call(work, job.id, at, branch, ms, 0), range(more), concurrency=2
            )
        elif verb == "race":
            await run.race(run.call(linger, job.id, place), shortly(run))
        elif verb == "unawaited":
            run.call(work, job.id, place, 0, ms, more)
        elif verb == "caught":
            try:
                await run.call(refuse, job.id, place)
            except TaskFailed:
                caught += 1
        elif verb == "throw":
            await run.call(refuse, job.id, place)
        elif verb == "block":
            done.append(await run.call(block, job.id, place, ms))
        elif verb == "hang":
            await run.call(hang, job.id, place)
        elif verb == "forbidden":
            await Elsewhere()
        elif verb == "refused":
            await run.emit("job.large", "x" * 4000, topic=TINY, key=job.group)
            await run.sleep("10m")
    result = {"id": job.id, "sum": sum(each["value"] for each in done) + caught, "done": done}
    await run.emit("job.done", result, topic=RESULTS, key=job.group)


@workflow(on=EventTrigger(SOURCE, type="job"), key=lambda job: job.id, emits=[RESULTS, TINY])
async def jobs(run: Run, job: Job) -> None:
    await play(run, job)


@workflow(on=EventTrigger(SOURCE, type="turn"), key=lambda job: job.group, on_conflict="queue", emits=[RESULTS])
async def turns(run: Run, job: Job) -> None:
    """One at a time for each group, in order."""
    await play(run, job)
