"""The scan sees what the Python that runs it compiles: these tests hold for each version that CI runs."""

from collections.abc import Callable

import pytest

from headrace.service.definitions.determinism_scan import FINDINGS_MAX
from headrace.topics.errors import DefinitionError
from tests.service.definitions.conftest import Load, Refusal, workflow_source

BodyRefusal = Callable[..., str]


@pytest.mark.parametrize(
    ("top", "body", "what", "instead"),
    [
        ("import time", "return time.time()", "time.time()", "run.now()"),
        ("import time as clock", "return clock.monotonic()", "clock.monotonic()", "run.now()"),
        ("from time import time", "return time()", "time()", "run.now()"),
        ("from time import sleep as pause", "pause(1)", "pause()", "await run.sleep(...)"),
        ("from datetime import datetime", "return datetime.now()", "datetime.now()", "run.now()"),
        ("import datetime as dt", "return dt.datetime.utcnow()", "dt.datetime.utcnow()", "run.now()"),
        ("from datetime import date", "return date.today()", "date.today()", "run.now().date()"),
        ("from datetime import datetime\nnow = datetime.now", "return now()", "now()", "run.now()"),
        ("from datetime import datetime\nclass Clock(datetime): ...", "return Clock.now()", "Clock.now()", "run.now()"),
        ("import random", "return random.choice([1])", "random.choice()", "run.random()"),
        ("from random import randint", "return randint(1, 2)", "randint()", "run.random()"),
        ("import random", "return random.SystemRandom().random()", "random.SystemRandom()", "random.Random(run.random())"),
        ("import uuid", "return str(uuid.uuid4())", "uuid.uuid4()", "run.uuid()"),
        ("from uuid import uuid1", "return [uuid1() for _ in order]", "uuid1()", "run.uuid()"),
        ("import secrets", "return secrets.token_hex()", "secrets.token_hex()", "run.random() or run.uuid()"),
        ("import os", "return os.urandom(4)", "os.urandom()", "run.random()"),
        ("import os", 'return os.environ["HOME"]', "os.environ", "input, or a handler"),
        ("import os", 'return os.environ.get("HOME")', "os.environ", "input, or a handler"),
        ("from os import environ", 'return environ["HOME"]', "environ", "input, or a handler"),
        ("import os", 'return os.getenv("HOME")', "os.getenv()", "input, or a handler"),
        ("import os.path", 'return os.path.exists("x")', "os.path.exists()", "handler"),
        ("from os.path import exists", 'return exists("x")', "exists()", "handler"),
        ("from pathlib import Path", "return str(Path.cwd())", "Path.cwd()", "input, or a handler"),
        ("", 'open("x")', "open()", "handler"),
        ("", 'with open("x") as file:\n    return file.read()', "open()", "handler"),
        ("", "return id(order)", "id()", "`is`"),
        ("import asyncio", "await asyncio.sleep(1)", "asyncio.sleep()", "await run.sleep(...)"),
        ("from asyncio import sleep", "await sleep(1)", "sleep()", "await run.sleep(...)"),
        ("import asyncio", "await asyncio.gather()", "asyncio.gather()", "run.gather()"),
        ("import asyncio", "await asyncio.gather(*[1])", "asyncio.gather()", "run.gather()"),
        ("import asyncio", "await asyncio.wait([])", "asyncio.wait()", "run.gather() or run.race()"),
        ("import asyncio", "async with asyncio.timeout(1):\n    pass", "asyncio.timeout()", "run.race("),
        ("import asyncio", "async with asyncio.TaskGroup() as group:\n    pass", "asyncio.TaskGroup()", "run.gather()"),
        ("import asyncio", "asyncio.create_task(None)", "asyncio.create_task()", "run.gather()"),
        ("import asyncio", "asyncio.Queue()", "asyncio.Queue()", "methods of `run`"),
        ("import threading", "threading.Thread(target=print).start()", "threading.Thread()", "run.gather()"),
        ("from threading import Lock", "Lock()", "Lock()", "run.gather()"),
        ("import subprocess", 'subprocess.run(["ls"])', "subprocess.run()", "handler"),
        ("import socket", "socket.create_connection(())", "socket.create_connection()", "handler"),
        ("import urllib.request", 'urllib.request.urlopen("x")', "urllib.request.urlopen()", "handler"),
        ("from urllib.request import urlopen", 'urlopen("x")', "urlopen()", "handler"),
        ("import sqlite3", 'sqlite3.connect("x")', "sqlite3.connect()", "handler"),
        ("import aiohttp", "aiohttp.ClientSession()", "aiohttp.ClientSession()", "handler"),
        ("", "import time\nreturn time.time()", "time.time()", "run.now()"),
        ("", "import time as t\nreturn [t.time() for _ in order]", "t.time()", "run.now()"),
        ("", "from datetime import datetime as d\nreturn (lambda: d.now())()", "d.now()", "run.now()"),
        ("", "import urllib.request as r\nr.urlopen('x')", "r.urlopen()", "handler"),
        ("", "import os.path\nreturn os.path.exists('x')", "os.path.exists()", "handler"),
        ("", "import never_installed_requests, requests\nrequests.get('x')", "requests.get()", "handler"),
        ("", "from httpx import get\nget('x')", "get()", "handler"),
        ("import time", "return max(order, key=time.time)", "time.time", "run.now()"),
        ("import time", "def inner():\n    def innermost():\n        return time.time()\n    return innermost", "time.time()", "run.now()"),
        ("import time", "class Inner:\n    at = time.time()\nreturn Inner.at", "time.time()", "run.now()"),
        ("", "return await charge(order)", "charge() directly", "await run.call(charge, ...)"),
        ("", "return await run.gather(charge(order))", "charge() directly", "await run.call(charge, ...)"),
    ],
)  # fmt: skip
def test_a_forbidden_name_is_refused_with_its_line_and_the_right_call(
    body_refusal: BodyRefusal, top: str, body: str, what: str, instead: str
) -> None:
    said = body_refusal(body, top)
    written = what.removesuffix(" directly").removesuffix("()")
    lines = body.splitlines()
    before = len(workflow_source(body, top).splitlines()) - len(lines)
    line = before + max(number for number, text in enumerate(lines, 1) if written in text)
    assert f"app.py:{line}: " in said
    assert f"uses {what}: use " in said
    assert instead in said


@pytest.mark.parametrize(
    ("top", "body"),
    [
        ("import logging", 'logging.getLogger("shop").info("started")\nprint(order)'),
        ("import datetime", "return datetime.datetime(2026, 1, 1) + datetime.timedelta(days=1)"),
        ("import time", "return time.strftime('%Y', time.gmtime(0))"),
        ("import random", "return random.Random(run.id).random()"),
        ("import uuid", "return str(uuid.UUID(run.uuid())) + str(uuid.uuid5(uuid.NAMESPACE_URL, run.id))"),
        ("import os", "return os.path.join('a', 'b') + os.sep + os.fspath('x')"),
        (
            "import asyncio",
            "try:\n    return await run.call(charge, order)\nexcept asyncio.TimeoutError:\n    return None",
        ),
        ("import aiohttp", "return isinstance(order, aiohttp.ClientError)"),
        ("import requests_like as requests", "return requests.get(order)"),
        ("import queue", "return isinstance(order, queue.Queue)"),
        ("", "id = 3\nopen = 4\nreturn id + open"),
        ("", "time = order\nreturn time.time"),
        ("from pathlib import PurePath", "return str(PurePath('a') / 'b')"),
        ("", "return await run.call(charge, order)"),
        ("import json, re, math, decimal", "return json.dumps([re.sub('a', 'b', 'c'), math.sqrt(4)])"),
    ],
)
def test_what_is_the_same_each_time_is_fine(load: Load, top: str, body: str) -> None:
    app = load(app=workflow_source(body, top), requests_like="def get(order: object) -> object: return order")
    assert [workflow.name for workflow in app.workflows] == ["fulfil"]


def test_helpers_in_other_modules_are_followed(refusal: Refusal) -> None:
    said = refusal(
        app=workflow_source("return prices.total(order)", "import prices"),
        prices="""\
            import rates
            def total(order):
                return sum(map(rates.rate, order))
            """,
        rates="""\
            import time
            def rate(item):
                return time.time() * item
            """,
    ).message
    assert "rates.py:3: rate uses time.time(): use run.now()" in said


@pytest.mark.parametrize(
    ("top", "body"),
    [
        ("def stamp(): return time.time()\nSTAMPS = {'a': stamp}", "return STAMPS['a']()"),
        ("def stamp(): return time.time()\nSTAMPS = [stamp]", "return STAMPS[0]()"),
        ("@functools.lru_cache\ndef stamp(): return time.time()", "return stamp()"),
        ("def wraps(f):\n    @functools.wraps(f)\n    def g(): return f()\n    return g\n@wraps\ndef stamp(): return time.time()", "return stamp()"),
        ("def stamp(n): return time.time()\npartly = functools.partial(stamp, 1)", "return partly()"),
        ("class Stamp:\n    @staticmethod\n    def stamp(): return time.time()", "return Stamp.stamp()"),
        ("class Stamp:\n    @classmethod\n    def stamp(cls): return time.time()", "return Stamp.stamp()"),
        ("class Stamp:\n    def __init__(self): self.stamp = time.time()", "return Stamp()"),
        ("@dataclass\nclass Stamp:\n    at: float = 0\n    def __post_init__(self): self.stamp = time.time()", "return Stamp()"),
        ("async def stamp(run, item): return time.time()", "return await run.map(lambda item: stamp(run, item), [1])"),
        ("def outer():\n    def stamp(): return time.time()\n    return stamp\ninner = outer()", "return inner()"),
    ],
)  # fmt: skip
def test_the_apps_own_code_is_followed(body_refusal: BodyRefusal, top: str, body: str) -> None:
    top = f"import functools, time\nfrom dataclasses import dataclass\n{top}"
    assert "uses time.time(): use run.now()" in body_refusal(body, top)


@pytest.mark.parametrize(
    "made",
    [
        "@dataclass\nclass Order:\n    at: datetime = field(default_factory=datetime.now)",
        "class Order(BaseModel):\n    at: datetime = Field(default_factory=datetime.now)",
        "class Order(Struct):\n    at: datetime = struct_field(default_factory=datetime.now)",
        "class Order(BaseModel):\n    at: datetime = Field(default_factory=lambda: datetime.now())",
    ],
)
def test_a_default_of_the_input_that_differs_each_time_is_refused(refusal: Refusal, made: str) -> None:
    said = refusal(
        app=f"""\
from dataclasses import dataclass, field
from datetime import datetime
from msgspec import Struct, field as struct_field
from pydantic import BaseModel, Field
from headrace import Run, workflow
{made}
@workflow()
async def fulfil(run: Run, order: Order) -> None: ...
"""
    ).message
    assert "datetime.now" in said
    assert "use run.now()" in said


def test_methods_of_the_input_are_followed(refusal: Refusal) -> None:
    said = refusal(
        app="""\
            import time
            from dataclasses import dataclass
            from headrace import Run, workflow

            @dataclass
            class Order:
                at: float
                @property
                def age(self) -> float:
                    return time.time() - self.at
                def old(self) -> bool:
                    return time.monotonic() > 3

            def helper(order: Order) -> bool:
                return order.old()

            @workflow()
            async def fulfil(run: Run, order: Order) -> float:
                helper(order)
                return order.age
            """
    ).message
    assert "age uses time.time()" in said
    assert "old uses time.monotonic()" in said


def test_all_findings_are_said_at_once_in_order(refusal: Refusal) -> None:
    body = "\n".join("time.time()" for _ in range(FINDINGS_MAX + 2)) + "\nawait charge(order)"
    error = refusal(app=workflow_source(body, "import time"))
    lines = error.message.splitlines()
    assert error.code == "HR2020"
    assert len(lines) == FINDINGS_MAX + 1
    assert lines[-1].strip() == "... and 3 more"
    numbers = [int(line.split("app.py:")[1].split(":")[0]) for line in lines[:-1]]
    assert numbers == sorted(numbers)


def test_a_handler_called_directly_has_a_code_of_its_own(refusal: Refusal) -> None:
    error: DefinitionError = refusal(app=workflow_source("return await charge(order)"))
    assert error.code == "HR2021"


def test_so_has_a_workflow_called_directly(refusal: Refusal) -> None:
    error: DefinitionError = refusal(
        app="""\
            from headrace import Run, workflow

            @workflow()
            async def pay(run: Run, order: int) -> int:
                return order

            @workflow()
            async def shop(run: Run, order: int) -> int:
                return await pay(run, order)
            """
    )
    assert error.code == "HR2021"
    assert "use await run.call_child(pay, ...)" in error.message


def test_a_workflow_may_name_other_workflows(load: Load) -> None:
    app = load(
        app="""\
            from headrace import Run, workflow

            @workflow(key=lambda order: str(order))
            async def pay(run: Run, order: int) -> int:
                return order

            @workflow()
            async def shop(run: Run, order: int) -> int:
                await run.start_child(pay, order)
                return await run.call_child(pay, order)
            """
    )
    assert {each.name for each in app.workflows} == {"pay", "shop"}


def test_handlers_themselves_are_free(load: Load) -> None:
    app = load(
        app="""\
            import asyncio, time
            from headrace import Run, handler, workflow

            @handler
            async def slow(order: int) -> float:
                await asyncio.sleep(0)
                return time.time()

            @workflow(key=lambda order: str(time.time()))
            async def fulfil(run: Run, order: int) -> float:
                return await run.call(slow, order)
            """
    )
    assert [handler.name for handler in app.handlers] == ["slow"]
