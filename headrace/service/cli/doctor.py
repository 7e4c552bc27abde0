"""`headrace doctor`: look at everything that a start needs, one check after the other, each ok, warn or fail with the
fix.

A check never stops the others. Exit code 7 if settings or topics are wrong, 6 if the log cannot be reached, 1 for
any other failure.
"""

import os
import sys
import time
from collections.abc import AsyncGenerator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Annotated

import msgspec
from cyclopts import Parameter

from headrace.service.cli.app_option import loaded_app
from headrace.service.cli.client import opened
from headrace.service.cli.doctor_api import api_check
from headrace.service.cli.doctor_check import Check, State, failed
from headrace.service.cli.doctor_history import history_check
from headrace.service.cli.doctor_traces import traces_checks
from headrace.service.cli.doctor_workers import worker_checks
from headrace.service.cli.exit_code import ExitCode, exit_code_of
from headrace.service.cli.option import Common, options
from headrace.service.cli.output import counted, show
from headrace.service.cli.terminal_table import Column
from headrace.service.cli.version import version
from headrace.service.names import Names
from headrace.service.refusal import Refusal
from headrace.service.settings import Backend, Settings
from headrace.service.settings_source import Loaded
from headrace.service.topic_plan import TopicPlan, planned
from headrace.service.topic_plan import check as topic_differences
from headrace.topics.errors import HeadraceError, SettingsError
from headrace.topics.log import Log, TopicPartition, every_partition

_COLUMNS = (Column("CHECK", "check"), Column("", "state"), Column("FOUND", "found"), Column("FIX", "fix"))
_SKEW_WARN_MS = 1_000  # timers are judged by the log's clock: more than a second off shows


async def doctor(
    app: Annotated[
        str | None, Parameter(help="The app that is to run: its definitions and topics are checked too.")
    ] = None,
    /,
    *,
    common: Common | None = None,
) -> ExitCode:
    """Look for what is wrong, and say how to fix it."""
    common = options(common)
    checks: list[Check] = []
    code = ExitCode.OK
    async for check, severity in _checks(app, common):
        checks.append(check)
        if check.state is State.FAIL and code is ExitCode.OK:
            code = severity
    show([msgspec.to_builtins(check) for check in checks], _COLUMNS, common.output, name="check")
    return code


async def _checks(app: str | None, common: Common) -> AsyncGenerator[tuple[Check, ExitCode]]:
    for check in (_python(), _client()):
        yield check, ExitCode.ERROR
    loaded: Loaded | None = None
    try:
        loaded = common.load()
    except SettingsError as error:
        for problem in error.problems if isinstance(error, Refusal) else (error,):
            yield failed("settings", problem), ExitCode.INVALID
    else:
        yield Check("settings", State.OK, str(loaded.file or "defaults, environment and flags")), ExitCode.OK
        for note in loaded.notes:
            yield Check("settings", State.WARN, note), ExitCode.OK
    sources: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    if app is not None:
        try:
            found = loaded_app(app)
        except HeadraceError as error:
            yield failed("app", error), exit_code_of(error)
        else:
            sources, outputs = found.source_topics, found.emitted_topics
            counts = f"{counted(len(found.workflows), 'workflow')}, {counted(len(found.handlers), 'handler')}"
            yield Check("app", State.OK, counts), ExitCode.OK
    for check in traces_checks(os.environ):
        yield check, ExitCode.ERROR
    if loaded is None:
        return
    settings = loaded.settings
    for check in worker_checks(settings):
        yield check, ExitCode.ERROR
    if (port := api_check(settings.api)) is not None:
        yield port, ExitCode.INVALID
    async for answer in _log_checks(settings, sources, outputs):
        yield answer
    if (history := await history_check(settings)) is not None:
        yield history, ExitCode.ERROR


def _python() -> Check:
    found = f"headrace {version()}, Python {sys.version.split()[0]}, {sys.platform}"
    if not __debug__:
        return Check(
            "versions", State.FAIL, f"{found}, run with -O", "Run Python without -O: assertions guard the client."
        )
    return Check("versions", State.OK, found)


def _client() -> Check:
    """The Kafka client's compiled parser and bounded decoders."""
    try:
        from headrace.topics.log_kafka import client_facts
    except ImportError as error:
        return Check("kafka client", State.FAIL, str(error), "Install Headrace with its dependencies.")
    facts = client_facts()
    found = f"aiokafka {facts.aiokafka_version}, compiled: {'yes' if facts.compiled else 'no'}"
    found += f", bounded decoders: {', '.join(facts.bounded) or 'none'}"
    if not facts.compiled or len(facts.bounded) < 4:
        fix = "Install the aiokafka and cramjam wheels for this platform."
        return Check("kafka client", State.FAIL, found, fix)
    try:
        installed("uvloop")
    except PackageNotFoundError:
        return Check("kafka client", State.OK, f"{found}; uvloop not installed (optional, faster)")
    return Check("kafka client", State.OK, found)


async def _log_checks(
    settings: Settings, sources: tuple[str, ...], outputs: tuple[str, ...]
) -> AsyncGenerator[tuple[Check, ExitCode]]:
    embedded = settings.log.backend is Backend.EMBEDDED
    name = "embedded log" if embedded else "broker"
    if embedded and not settings.log.path.exists():
        yield Check(name, State.OK, f"{settings.log.path} will be made by `headrace dev`"), ExitCode.OK
        return
    answers: list[tuple[Check, ExitCode]] = []
    try:
        async with opened(settings) as log:
            nodes = await log.nodes()
            where = str(settings.log.path) if embedded else ", ".join(settings.kafka.bootstrap_servers)
            brokers = "" if embedded else f", {counted(nodes, 'broker')}"
            answers.append((Check(name, State.OK, f"{where} answers{brokers}"), ExitCode.OK))
            wanted = await planned(log, settings, sources=sources, outputs=outputs)
            problems = await topic_differences(log, wanted)
            answers += [(failed("topics", problem), ExitCode.INVALID) for problem in problems]
            if not problems:
                answers.append((Check("topics", State.OK, f"{len(wanted.all)} are as they should be"), ExitCode.OK))
            if not embedded:
                answers += [(check, ExitCode.ERROR) for check in await _cluster(settings, wanted)]
            behind = await _behind(log, sources, Names(settings.app.name).router)
            if behind is not None:
                answers.append((behind, ExitCode.OK))
            skew = await _clock(log, wanted.runs.name)
            if skew is not None:
                answers.append((skew, ExitCode.OK))
    except HeadraceError as error:
        answers.append((failed(name, error), exit_code_of(error)))
    for answer in answers:
        yield answer


async def _cluster(settings: Settings, wanted: TopicPlan) -> list[Check]:
    from headrace.service.cli.doctor_cluster import cluster_checks

    return await cluster_checks(settings, wanted)


async def _behind(log: Log, sources: tuple[str, ...], group: str) -> Check | None:
    """How far the routers are behind, over all source topics that they have a position in. None: nowhere yet."""
    there = await log.describe(sources)
    places = [TopicPartition(name, number) for name, spec in there.items() for number in range(spec.partitions)]
    if not places:
        return None
    positions = await log.committed(group, places)
    if not positions:
        return None
    offsets = await log.offsets(list(positions))
    lag = {at: max(0, offsets[at].end - max(position.offset, offsets[at].start)) for at, position in positions.items()}
    worst = max(lag, key=lambda at: lag[at])
    total = sum(lag.values())
    if not total:
        return Check("lag", State.OK, f"group {group} has read everything")
    return Check("lag", State.OK, f"group {group} is {counted(total, 'record')} behind, most of all in {worst}")


async def _clock(log: Log, topic: str) -> Check | None:
    """The log's clock is only known from its newest records: a time in our future means that ours is behind."""
    if topic not in await log.describe([topic]):
        return None
    places = await every_partition(log, topic)
    newest_ms = 0
    for at, span in (await log.offsets(places)).items():
        if span.end > span.start:
            async with log.read(at, span.end - 1) as batches:
                async for batch in batches:
                    newest_ms = max(newest_ms, batch.records[-1].timestamp_ms)
                    break
    ahead_ms = newest_ms - time.time_ns() // 1_000_000
    if ahead_ms > _SKEW_WARN_MS:
        found = f"the newest record is {ahead_ms} ms in our future"
        return Check("clock", State.WARN, found, "Synchronise this machine's and the brokers' clocks (NTP).")
    return Check("clock", State.OK, "no record lies in our future")
