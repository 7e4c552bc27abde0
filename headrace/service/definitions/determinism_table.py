"""What a workflow may not call, and what it calls instead: the one table of both nets.

Names are those that people write: `time.time`, `datetime.datetime.now`. Printing and logging are allowed; they are repeated on a replay.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NOW = "run.now()"
_SLEEP = "await run.sleep(...)"
_RANDOM = "run.random()"
_UUID = "run.uuid()"
_INPUT = "the run's input, or a handler"
_HANDLER = "await run.call(...) of a handler that does it"
_TASKS = "run.gather() or run.map(); a step begins without being awaited"
_LIMIT = "run.race(step, run.sleep(...))"
_LOCK = "nothing: a run's code is never interrupted between two steps; for several runs, the workflow's key"

# --- for the scan: names and whole modules ----------------------------------------------------------------------------

_CLOCKS = _words("""
    time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns
    thread_time thread_time_ns clock_gettime clock_gettime_ns
""")
_CHANCES = _words("""
    seed random uniform triangular randint choice randrange sample shuffle choices normalvariate
    lognormvariate expovariate vonmisesvariate gammavariate gauss betavariate binomialvariate
    paretovariate weibullvariate getrandbits randbytes getstate setstate
""")
_UUIDS = _words("uuid1 uuid4 uuid6 uuid7 uuid8 getnode")
_SECRETS = _words("choice randbelow randbits token_bytes token_hex token_urlsafe")
_PATH_LOOKS = _words("""
    exists lexists isfile isdir islink ismount getsize getmtime getatime getctime realpath abspath
    expanduser expandvars samefile
""")

FORBIDDEN: Final[dict[str, str]] = {
    **{f"time.{name}": _NOW for name in _CLOCKS},
    "time.sleep": _SLEEP,
    "datetime.datetime.now": _NOW,
    "datetime.datetime.utcnow": _NOW,
    "datetime.datetime.today": _NOW,
    "datetime.date.today": f"{_NOW}.date()",
    **{f"random.{name}": _RANDOM for name in _CHANCES},
    "random.SystemRandom": "random.Random(run.random())",
    **{f"uuid.{name}": _UUID for name in _UUIDS},
    **{f"secrets.{name}": f"{_RANDOM} or {_UUID}" for name in _SECRETS},
    "os.urandom": _RANDOM,
    "os.getrandom": _RANDOM,
    "os.environ": _INPUT,
    "os.environb": _INPUT,
    "os.getenv": _INPUT,
    **{f"os.path.{name}": _HANDLER for name in _PATH_LOOKS},
    "pathlib.Path.cwd": _INPUT,
    "pathlib.Path.home": _INPUT,
    "asyncio.sleep": _SLEEP,
    "asyncio.gather": "run.gather()",
    "asyncio.wait": "run.gather() or run.race()",
    "asyncio.as_completed": "run.race() or run.map()",
    "asyncio.wait_for": _LIMIT,
    "asyncio.timeout": _LIMIT,
    "asyncio.timeout_at": _LIMIT,
    "asyncio.create_task": _TASKS,
    "asyncio.ensure_future": _TASKS,
    "asyncio.TaskGroup": _TASKS,
    "asyncio.to_thread": "await run.call(...) of a handler: a plain `def` runs in a thread",
    "asyncio.Lock": _LOCK,
    "asyncio.Semaphore": "run.map(..., concurrency=n), or a handler's Pool",
    "asyncio.BoundedSemaphore": "run.map(..., concurrency=n), or a handler's Pool",
    "builtins.open": _HANDLER,
    "builtins.input": _INPUT,
    "builtins.id": "`is` to compare objects; addresses differ between processes",
}
"""Exact names."""

FORBIDDEN_MODULES: Final[dict[str, str]] = {
    **dict.fromkeys(("asyncio", "anyio", "trio", "curio", "uvloop"), "the methods of `run`, or a handler"),
    **dict.fromkeys(("threading", "_thread", "multiprocessing", "concurrent.futures", "sched", "queue"), _TASKS),
    **dict.fromkeys(("os", "shutil", "tempfile", "glob", "fileinput", "subprocess", "signal", "pty", "mmap"), _HANDLER),
    **dict.fromkeys(("platform", "getpass"), _INPUT),
    **dict.fromkeys(("socket", "ssl", "select", "selectors", "http.client", "http.server", "urllib.request"), _HANDLER),
    **dict.fromkeys(("ftplib", "smtplib", "imaplib", "poplib", "telnetlib", "xmlrpc", "socketserver"), _HANDLER),
    **dict.fromkeys(
        ("requests", "httpx", "aiohttp", "urllib3", "httpcore", "websockets", "grpc", "paramiko"), _HANDLER
    ),
    **dict.fromkeys(("aiokafka", "kafka", "confluent_kafka", "pika", "aio_pika", "nats", "stomp"), _HANDLER),
    **dict.fromkeys(("sqlite3", "psycopg", "psycopg2", "asyncpg", "aiosqlite", "pymysql", "aiomysql"), _HANDLER),
    **dict.fromkeys(("pymongo", "motor", "redis", "boto3", "botocore", "aiobotocore", "aioboto3"), _HANDLER),
    **dict.fromkeys(("numpy.random",), "random.Random(run.random()), or a handler"),
}
"""Modules with all that is in them: functions by their mere name, classes when they are called. Exception classes and `HARMLESS` are fine."""

HARMLESS: Final = frozenset(
    {
        f"os.path.{name}"
        for name in ("join", "basename", "dirname", "split", "splitext", "splitdrive", "normpath", "isabs")
    }
    | {f"os.path.{name}" for name in ("commonpath", "commonprefix", "normcase", "relpath")}
    | {"os.fspath", "os.fsencode", "os.fsdecode", "os.strerror", "asyncio.iscoroutine", "asyncio.iscoroutinefunction"}
    | {"socket.inet_aton", "socket.inet_ntoa", "socket.inet_pton", "socket.inet_ntop", "glob.escape"}
)
"""Functions of those modules that answer the same everywhere."""

SAME_MODULE: Final[dict[str, str]] = {
    "posix": "os",
    "nt": "os",
    "posixpath": "os.path",
    "ntpath": "os.path",
    "genericpath": "os.path",
    "_io": "builtins",
    "io": "builtins",
    "_socket": "socket",
    "_ssl": "ssl",
    "_sqlite3": "sqlite3",
    "_asyncio": "asyncio",
    "_queue": "queue",
    "_signal": "signal",
    "_datetime": "datetime",
    "_uuid": "uuid",
    "pathlib._local": "pathlib",
}
"""Where a function says it is from, and where people know it from."""

# --- for the guard: attributes to patch, audit events to refuse -------------------------------------------------------

Harmless = Callable[[tuple[Any, ...], dict[str, Any]], bool]


class Patch(NamedTuple):
    """An attribute to patch. `harmless` says which calls are fine; `None`: none is. `bare`: a function without parameters."""

    owner: Any
    name: str
    module: str
    qualname: str
    what: str
    instead: str
    harmless: Harmless | None = None
    bare: bool = False


def _of_module(
    module: Any, names: tuple[str, ...], instead: str, harmless: Harmless | None = None
) -> tuple[Patch, ...]:
    title = module.__name__
    return tuple(Patch(module, name, title, name, f"{title}.{name}()", instead, harmless) for name in names)


def _of_class(kind: type, name: str, what: str, instead: str, harmless: Harmless | None = None) -> Patch:
    return Patch(kind, name, kind.__module__, f"{kind.__qualname__}.{name}", what, instead, harmless)


def _is_given(position: int, keyword: str) -> Harmless:
    """A call that says which time, or which seed."""
    return lambda args, kwargs: (args[position] if len(args) > position else kwargs.get(keyword)) is not None


PATCHES: Final[tuple[Patch, ...]] = (
    *(patch._replace(bare=not patch.name.startswith("clock_")) for patch in _of_module(time, _CLOCKS, _NOW)),
    *_of_module(time, ("localtime", "gmtime", "ctime", "asctime"), _NOW, _is_given(0, "seconds")),
    *_of_module(time, ("strftime",), f"{_NOW}.strftime(...)", _is_given(1, "t")),
    *_of_module(time, ("sleep",), _SLEEP),
    *_of_module(random, _CHANCES, _RANDOM),
    *_of_module(random, ("_urandom",), _RANDOM),  # SystemRandom, and so secrets
    _of_class(
        random.Random, "seed", "random.Random() without a seed", "random.Random(run.random())", _is_given(1, "a")
    ),
    *_of_module(uuid, _UUIDS, _UUID),
    *_of_module(secrets, _SECRETS, f"{_RANDOM} or {_UUID}"),
    *_of_module(os, ("urandom", "getrandom"), _RANDOM),
    *_of_module(os, ("getenv", "getpid", "getcwd"), _INPUT),
    _of_class(type(os.environ), "__getitem__", "os.environ", _INPUT),
    _of_class(type(os.environ), "__iter__", "os.environ", _INPUT),
    _of_class(threading.Thread, "start", "threading.Thread.start()", _TASKS),
    _of_class(threading.Condition, "wait", "waiting for another thread", _HANDLER),
)

_FILES = _words("""
    open os.chdir os.chmod os.chown os.link os.listdir os.mkdir os.remove os.rename os.rmdir os.scandir
    os.symlink os.truncate os.utime os.walk os.lockf fcntl.flock fcntl.lockf mmap.__new__
    shutil.copyfile shutil.copytree shutil.move shutil.rmtree tempfile.mkdtemp tempfile.mkstemp
    glob.glob pathlib.Path.glob sqlite3.connect
""")
_PROCESSES = _words("""
    os.exec os.fork os.forkpty os.kill os.killpg os.posix_spawn os.spawn os.system os.startfile
    pty.spawn subprocess.Popen signal.pthread_kill
""")
_NETWORK = _words("""
    socket.__new__ socket.bind socket.connect socket.getaddrinfo socket.gethostbyname socket.gethostname
    socket.sendmsg socket.sendto urllib.Request http.client.connect ftplib.connect imaplib.open
    poplib.connect smtplib.connect webbrowser.open
""")
_THREADS = _words("_thread.start_new_thread _thread.start_joinable_thread")

AUDITED: Final[dict[str, tuple[str, str]]] = {
    **{event: (f"files or databases ({event})", _HANDLER) for event in _FILES},
    **{event: (f"another process ({event})", _HANDLER) for event in _PROCESSES},
    **{event: (f"the network ({event})", _HANDLER) for event in _NETWORK},
    **{event: (f"a thread ({event})", _TASKS) for event in _THREADS},
    **dict.fromkeys(("os.putenv", "os.unsetenv"), ("the process's environment", _INPUT)),
    "builtins.input": ("input()", _INPUT),
    "time.sleep": ("time.sleep()", _SLEEP),
}
"""Audit events, with what to say. https://docs.python.org/3/library/audit_events.html"""
