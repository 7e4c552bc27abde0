# ruff: noqa: PLW0108, PTH123, PTH208, SIM115, PLW1510, TID251, ASYNC100, N801 - forbidden calls, each written as users write it
"""The guard is installed for the whole test process, as it is in production; nothing may notice it outside of `stepping`."""

import asyncio
import contextlib
import gc
import inspect
import io
import logging
import os
import pickle
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from pathlib import Path
from time import sleep as sleep_of_before
from typing import Any

import pytest

from headrace.service.definitions.determinism_guard import install, stepping, unhooked
from headrace.topics.errors import NotDeterministic


@pytest.fixture(autouse=True)
def guard() -> None:
    install()


def drive(body: Callable[[], Any]) -> tuple[object, NotDeterministic | None]:
    """Run `body` as a workflow's coroutine is run; what it returned or raised, and what the guard saw."""

    async def workflow() -> object:
        return body()

    coroutine = workflow()
    with stepping("1.abc") as step:
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value, step.violation
        except BaseException as error:
            return error, step.violation
    raise AssertionError("it waits")


FORBIDDEN: list[tuple[Callable[[], object], str, str]] = [
    (lambda: time.time(), "time.time()", "run.now()"),
    (lambda: time.monotonic(), "time.monotonic()", "run.now()"),
    (lambda: time.perf_counter_ns(), "time.perf_counter_ns()", "run.now()"),
    (lambda: time.localtime(), "time.localtime()", "run.now()"),
    (lambda: time.strftime("%Y"), "time.strftime()", "run.now().strftime(...)"),
    (lambda: time.sleep(0), "time.sleep()", "await run.sleep(...)"),
    (lambda: random.random(), "random.random()", "run.random()"),
    (lambda: random.shuffle([1, 2]), "random.shuffle()", "run.random()"),
    (lambda: random.Random(), "random.Random() without a seed", "random.Random(run.random())"),
    (lambda: random.SystemRandom().random(), "random._urandom()", "run.random()"),
    (lambda: secrets.token_hex(), "secrets.token_hex()", "run.random() or run.uuid()"),
    (lambda: uuid.uuid4(), "uuid.uuid4()", "run.uuid()"),
    (lambda: uuid.uuid1(), "uuid.uuid1()", "run.uuid()"),
    (lambda: os.urandom(1), "os.urandom()", "run.random()"),
    (lambda: os.environ["PATH"], "os.environ", "the run's input, or a handler"),
    (lambda: os.environ.get("PATH"), "os.environ", "the run's input, or a handler"),
    (lambda: list(os.environ), "os.environ", "the run's input, or a handler"),
    (lambda: os.getenv("PATH"), "os.getenv()", "the run's input, or a handler"),
    (lambda: os.getpid(), "os.getpid()", "the run's input, or a handler"),
    (lambda: threading.Thread(target=print).start(), "threading.Thread.start()", "run.gather()"),
    (lambda: threading.Event().wait(1), "waiting for another thread", "handler"),
    (lambda: open(__file__), "files or databases (open)", "handler"),
    (lambda: Path(__file__).read_text(), "files or databases (open)", "handler"),
    (lambda: os.listdir("."), "files or databases (os.listdir)", "handler"),
    (lambda: subprocess.run([sys.executable, "-V"]), "another process", "handler"),
    (lambda: socket.socket(), "the network (socket.__new__)", "handler"),
    (lambda: socket.getaddrinfo("127.0.0.1", 80), "the network (socket.getaddrinfo)", "handler"),
]


@pytest.mark.parametrize(("call", "what", "instead"), FORBIDDEN)
def test_a_forbidden_call_is_refused_while_stepping(call: Callable[[], object], what: str, instead: str) -> None:
    raised, violation = drive(call)
    assert isinstance(raised, NotDeterministic)
    assert raised is violation
    assert what in raised.what
    assert instead in raised.instead


@pytest.mark.skipif(sys.version_info < (3, 13), reason="time.sleep raises an audit event since 3.13")
def test_a_sleep_that_was_imported_before_the_guard_is_seen_by_its_audit_event() -> None:
    raised, _ = drive(lambda: sleep_of_before(0))
    assert isinstance(raised, NotDeterministic)


def test_the_same_calls_work_before_and_after() -> None:
    for _ in range(2):
        assert time.time() > 1e9
        assert time.localtime().tm_year > 2000
        assert 0 <= random.random() < 1
        assert len(os.urandom(3)) == 3
        assert os.environ["PATH"]
        assert uuid.uuid4() != uuid.uuid4()
        assert random.Random().random() != random.Random().random()
        drive(lambda: time.time())


def test_swallowing_a_violation_does_not_hide_it() -> None:
    def swallow() -> str:
        for call in (time.time, random.random):
            try:
                call()
            except BaseException:
                continue
        return "as if nothing had happened"

    value, violation = drive(swallow)
    assert value == "as if nothing had happened"
    assert violation is not None
    assert violation.what == "time.time()"


@pytest.mark.parametrize(
    "call",
    [
        lambda: random.Random(3).random(),
        lambda: time.gmtime(0),
        lambda: time.strftime("%Y", time.gmtime(0)),
        lambda: uuid.UUID(int=3),
        lambda: uuid.uuid5(uuid.NAMESPACE_URL, "x"),
        lambda: print("said twice on a replay", file=io.StringIO()),
        lambda: warnings.warn_explicit("odd", UserWarning, __file__, 3, registry={}),
        lambda: __import__("this_is_not_installed_anywhere"),
        lambda: __import__("zoneinfo").ZoneInfo.no_cache("Europe/Berlin").key,
    ],
)
def test_what_is_harmless_or_not_the_workflows_doing_is_allowed(call: Callable[[], object]) -> None:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        raised, violation = drive(call)
    assert violation is None
    assert not isinstance(raised, NotDeterministic)


def test_logging_is_allowed_with_times_threads_and_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(threadName)s %(message)s"))
    logger = logging.getLogger("headrace.tests.guard")
    logger.addHandler(handler)
    logger.propagate = False

    def log() -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logger.exception("broken")

    async def in_a_loop() -> NotDeterministic | None:
        return drive(log)[1]

    assert drive(log)[1] is None
    assert asyncio.run(in_a_loop()) is None
    logger.removeHandler(handler)
    assert stream.getvalue().count("ZeroDivisionError") == 2


def test_a_module_that_is_imported_while_stepping_may_do_what_it_likes(tmp_path: Path) -> None:
    (tmp_path / "imported_late.py").write_text("import time, os\nAT = time.time()\nHOME = os.environ.get('PATH')\n")
    sys.path.append(str(tmp_path))
    try:
        value, violation = drive(lambda: __import__("imported_late").AT)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("imported_late", None)
    assert violation is None
    assert isinstance(value, float)


def test_a_finaliser_that_happens_to_run_now_is_not_the_workflows_doing() -> None:
    seen: list[float] = []

    class Resource:
        def __del__(self) -> None:
            seen.append(time.time())

    def drop() -> None:
        resource = Resource()
        del resource

    assert drive(drop)[1] is None
    assert seen


def test_other_threads_are_free() -> None:
    seen: list[float] = []
    stepping_now, asked = threading.Event(), threading.Event()

    def other() -> None:
        stepping_now.wait(10)
        seen.append(time.time())
        open(__file__).close()
        asked.set()

    thread = threading.Thread(target=other)
    thread.start()
    with stepping("1.abc") as step:
        stepping_now.set()
        while not asked.is_set():
            pass
    thread.join()
    assert seen
    assert step.violation is None


@pytest.mark.parametrize(
    ("make", "what", "instead"),
    [
        (lambda: asyncio.sleep(1), "asyncio.sleep()", "await run.sleep(...)"),
        (lambda: create_task(), "asyncio.create_task()", "run.gather()"),
        (lambda: gather(), "asyncio.gather()", "run.gather()"),
        (lambda: limited(), "asyncio.timeout()", "run.race"),
        (lambda: asyncio.wait_for(nothing_done(), 1), "asyncio.wait_for()", "run.race"),
        (lambda: asyncio.to_thread(print), "asyncio.to_thread()", "plain `def`"),
        (lambda: clock(), "asyncio (time of the running loop)", "run.now()"),
        (lambda: other_loop_method(), "asyncio (call_exception_handler of the running loop)", "methods of `run`"),
    ],
)
async def test_asyncio_finds_a_loop_that_refuses(
    make: Callable[[], Coroutine[Any, Any, Any]], what: str, instead: str
) -> None:
    loop = asyncio.get_running_loop()
    coroutine = make()
    with stepping("1.abc") as step, pytest.raises(NotDeterministic) as caught:
        coroutine.send(None)
    assert caught.value.what == what
    assert instead in caught.value.instead
    assert step.violation is caught.value
    assert asyncio.get_running_loop() is loop
    await asyncio.sleep(0)


async def nothing() -> None: ...


class nothing_done:
    """Awaitable, and nobody warns that it was not."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield


async def create_task() -> None:
    inner = nothing()
    try:
        await asyncio.create_task(inner)
    finally:
        inner.close()


async def gather() -> None:
    inner = nothing()
    try:
        await asyncio.gather(inner)
    finally:
        inner.close()


async def limited() -> None:
    async with asyncio.timeout(1):
        pass


async def clock() -> None:
    asyncio.get_running_loop().time()


async def other_loop_method() -> None:
    asyncio.get_running_loop().call_exception_handler({})


def test_without_a_loop_there_is_none_afterwards() -> None:
    drive(lambda: None)
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


async def test_the_loop_is_back_when_a_step_raises() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="theirs"), stepping("1.abc"):
        raise ValueError("theirs")
    assert asyncio.get_running_loop() is loop
    assert time.time() > 0


def test_a_step_has_no_violation_of_the_step_before() -> None:
    assert drive(lambda: time.time())[1] is not None
    assert drive(lambda: None)[1] is None


def test_patched_functions_look_as_they_did() -> None:
    assert time.time.__name__ == "time"
    assert time.time.__doc__
    assert pickle.loads(pickle.dumps(time.time)) is time.time
    assert pickle.loads(pickle.dumps(random.choice)) is random.choice
    assert pickle.loads(pickle.dumps(uuid.uuid4)) is uuid.uuid4
    assert str(inspect.signature(uuid.uuid4)) == "()"
    assert list(inspect.signature(threading.Thread.start).parameters) == ["self"]
    random.seed(3)
    first = random.random()
    random.seed(3)
    assert random.random() == first == random.Random(3).random()


def test_installing_again_changes_nothing() -> None:
    before = time.time
    install()
    assert time.time is before


@pytest.mark.parametrize("around", [contextlib.nullcontext, unhooked])
async def test_the_event_loop_does_not_finish_a_workflows_generators(around: Callable[[], Any]) -> None:
    """asyncio would run the rest of a dropped generator in a task of its own, later."""
    said: list[str] = []

    async def numbers() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            said.append("closed")

    async def workflow() -> int:
        async for number in numbers():
            return number
        return 0

    before = sys.get_asyncgen_hooks()
    coroutine = workflow()
    with around(), stepping("1.abc"), pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == 1
    assert said == ["closed"]
    assert sys.get_asyncgen_hooks() == before


def test_a_garbage_collection_may_look_at_the_clock_in_the_middle_of_a_workflow() -> None:
    def took(phase: str, info: dict[str, int]) -> None:
        time.perf_counter()

    gc.callbacks.append(took)
    try:
        assert drive(gc.collect)[1] is None
    finally:
        gc.callbacks.remove(took)
