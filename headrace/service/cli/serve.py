"""`headrace dev`, `serve` and `demo`: run an app in this process until a signal, or until a demo is over."""

import importlib.util
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headrace.service.cli.app_option import loaded_app
from headrace.service.cli.exit_code import ExitCode, NotFound, Usage
from headrace.service.cli.option import Common, options, warn
from headrace.service.cli.serving import Feed, Serving
from headrace.service.history.url import history_url, sqlite_path
from headrace.service.settings import Backend, Settings
from headrace.service.settings_source import VALUE_INVALID, Loaded
from headrace.service.worker_link import link
from headrace.topics.errors import SettingsError

AppArgument = Annotated[str, Parameter(help="The app: a module, a file or a folder.")]
SEED_VARIABLE = "HEADRACE_DEMO_SEED"  # the examples' handlers read it
_DEFAULT_SEED = 7
_ORDERS = "orders"
_LAST_PORT = 65_535


def dev(
    app: AppArgument,
    /,
    *,
    feed: Annotated[bool, Parameter(help="Publish what the app's `feed` yields.", negative="")] = False,
    limit: Annotated[int | None, Parameter(help="With --feed: stop after this many events and their runs.")] = None,
    seed: Annotated[int | None, Parameter(help="With --feed: makes it repeatable.")] = None,
    reset: Annotated[
        bool, Parameter(help="Delete the embedded log first: everything is forgotten.", negative="")
    ] = False,
    create_topics: Annotated[bool, Parameter(help="Make missing topics (the default here).")] = True,
    common: Common | None = None,
) -> ExitCode:
    """Run an app on the embedded log, without a broker, until Ctrl-C."""
    common = options(common)
    if not feed and (limit is not None or seed is not None):
        raise Usage("--limit and --seed need --feed.", do="Add --feed, or leave them out.")
    if limit is not None and limit < 1:
        raise Usage(f"--limit {limit} is not at least 1.", do="Give 1 or more, or leave it out.")
    settings = _calm(common.load(Backend.EMBEDDED))
    if reset:
        _reset(settings)
    fed = Feed(_seed(seed), limit) if feed else None
    return _run(app, settings, Serving(create_topics=create_topics, feed=fed, lines=sys.stdout))


def serve(
    app: AppArgument,
    /,
    *,
    create_topics: Annotated[bool, Parameter(help="Make missing topics.", negative="")] = False,
    workers: Annotated[str | None, Parameter(help="Worker processes on this machine: a number, or auto.")] = None,
    common: Common | None = None,
) -> ExitCode:
    """Run an app on Kafka until SIGTERM or Ctrl-C; a broker that is away is waited for."""
    common = options(common)
    if workers is not None:
        common = replace(common, set=(*common.set, f"worker.processes={workers}"))
    settings = common.load(Backend.KAFKA).settings
    worker = link()
    if worker is None and settings.worker.processes != 1:
        return _supervise(settings)
    if worker is not None:
        settings = _of_worker(settings, worker.index)
    return _run(app, settings, Serving(create_topics=create_topics, worker=worker))


def demo(
    *,
    limit: Annotated[int, Parameter(help="How many orders.")] = 200,
    seed: Annotated[int, Parameter(help="Makes it repeatable.")] = _DEFAULT_SEED,
    common: Common | None = None,
) -> ExitCode:
    """Run the orders example in a temporary folder, then show what happened."""
    common = options(common)
    if limit < 1:
        raise Usage(f"--limit {limit} is not at least 1.", do="Give 1 or more, or leave it out.")
    folder = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    try:
        forced = ("log.backend=embedded", f"log.path={folder / 'demo.sqlite'}", "api.enabled=false")  # it ends at once
        port = common.metrics_port or "0"
        quiet = ("telemetry.log_level=error",)  # its failures are meant; --set shows them
        common = replace(common, set=(*quiet, *common.set, *forced), metrics_port=port, log_path=None)
        settings = common.load(Backend.EMBEDDED).settings
        serving = Serving(create_topics=True, feed=Feed(_seed(seed), limit), report=True, lines=sys.stderr)
        return _run(os.fspath(_orders()), settings, serving)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(app: str, settings: Settings, serving: Serving) -> ExitCode:
    from headrace.service.cli.service_process import Process

    return Process(settings, loaded_app(app), serving).run()


def _supervise(settings: Settings) -> ExitCode:
    """Run N of this same command, and look after them."""
    if settings.log.backend is not Backend.KAFKA:
        raise SettingsError(
            f"worker.processes = {settings.worker.processes} needs Kafka.",
            code=VALUE_INVALID,
            why="An embedded log has one owner.",
            do="Set log.backend to kafka, or leave worker.processes at 1.",
        )
    import asyncio
    from collections.abc import Sequence

    from headrace.service.cli.client import silence_kafka
    from headrace.service.log_backend import log_of
    from headrace.service.names import Names
    from headrace.service.sd_notify import SdNotify
    from headrace.service.supervisor import Supervisor, cores, worker_command

    async def expel() -> Sequence[str]:
        return await log_of(settings, owner=False).expel(Names(settings.app.name).members)

    processes = settings.worker.processes
    count = cores() if processes == "auto" else processes
    _refuse_places(settings, count)

    async def supervise() -> int:
        supervisor = Supervisor(
            settings,
            workers=count,
            command=worker_command(),
            expel=expel,
            say=warn,
            notify=SdNotify.from_environment(),
        )
        return await supervisor.run()

    silence_kafka()
    return ExitCode(asyncio.run(supervise()))


def _of_worker(settings: Settings, index: int) -> Settings:
    """Each worker has ports of its own; 0 is any free one for each."""
    telemetry, api = settings.telemetry, settings.api
    if telemetry.metrics_port:
        telemetry = telemetry.model_copy(update={"metrics_port": telemetry.metrics_port + index})
    if api.port:
        api = api.model_copy(update={"port": api.port + index})
    return settings.model_copy(update={"telemetry": telemetry, "api": api})


def _refuse_places(settings: Settings, count: int) -> None:
    """Where the metrics or the API of so many workers cannot be. Raises `SettingsError`."""
    for name, port in (
        ("telemetry.metrics_port", settings.telemetry.metrics_port),
        ("api.port", settings.api.port if settings.api.enabled else 0),
    ):
        if port and port + count - 1 > _LAST_PORT:
            raise SettingsError(
                f"{count} workers from {name} = {port} on need ports up to {port + count - 1}.",
                code=VALUE_INVALID,
                why=f"Each worker has that port + its index; the last one there is is {_LAST_PORT}.",
                do=f"Choose a lower {name}, 0 for free ones, or fewer workers.",
            )
    listed = settings.telemetry.discovery_file
    if listed is not None and not listed.absolute().parent.is_dir():
        raise SettingsError(
            f"telemetry.discovery_file = {listed} cannot be written: there is no folder {listed.parent}.",
            code=VALUE_INVALID,
            why="Where the workers' metrics are would be known to nobody.",
            do="Make the folder, or name another file.",
        )


def _calm(loaded: Loaded) -> Settings:
    """`dev` has a line for each run, with its retries: the log beside it says what is wrong, unless it is asked for more."""
    sources = {item.key: item.source for item in loaded.sourced}
    if sources["telemetry.log_level"] != "default":
        return loaded.settings
    telemetry = loaded.settings.telemetry.model_copy(update={"log_level": "warning"})
    return loaded.settings.model_copy(update={"telemetry": telemetry})


def _seed(asked: int | None) -> int:
    """Of the feed, and of the app's handlers, which read it when they are imported: so, before that."""
    if asked is not None:
        os.environ[SEED_VARIABLE] = str(asked)
    text = os.environ.get(SEED_VARIABLE, str(_DEFAULT_SEED))
    try:
        return int(text)
    except ValueError:
        message = f"{SEED_VARIABLE}={text} is not a whole number."
        raise SettingsError(message, code=VALUE_INVALID, do="Correct the variable, or unset it.") from None


def _orders() -> Path:
    """The orders example: in an installed wheel beside the package's modules, in a checkout in `examples`."""
    spec = importlib.util.find_spec("headrace")
    assert spec is not None  # noqa: S101 - we are in it
    assert spec.origin is not None  # noqa: S101 - it has an __init__.py
    package = Path(spec.origin).parent
    for folder in (package / "_examples" / _ORDERS, package.parent / "examples" / _ORDERS):
        if (folder / "app.py").is_file():
            return folder
    raise NotFound("The orders example is not installed.", do="Reinstall Headrace, or run `headrace dev` on an app.")


def _history_file(settings: Settings) -> list[Path]:
    """The history's, where it is a file: it is of the log that goes."""
    url = history_url(settings)
    path = None if url is None else sqlite_path(url)
    return [] if path is None else [Path(path)]


def _reset(settings: Settings) -> None:
    if settings.log.backend is not Backend.EMBEDDED:
        raise Usage("--reset is for the embedded log; topics of Kafka are never deleted.", do="Leave it out.")
    from headrace.topics.log_embedded_file import OwnerLock

    path = settings.log.path
    if not path.exists():
        return
    lock = OwnerLock(path)
    lock.acquire()
    try:
        for file in (path, *_history_file(settings)):
            for suffix in ("-wal", "-shm", ""):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
    finally:
        lock.release()
    warn(f"{path} was deleted.")
