"""`headrace event match`: a dry run of the triggers. Nothing is written; filters and keys of the app are called."""

from typing import Annotated, Any

from cyclopts import Parameter

from headrace.service.cli.app_option import loaded_app
from headrace.service.cli.client import opened
from headrace.service.cli.event import TopicArgument
from headrace.service.cli.event_input import EventInput, event_limits
from headrace.service.cli.exit_code import ExitCode, NotFound, Usage
from headrace.service.cli.option import Common, options
from headrace.service.cli.output import show
from headrace.service.cli.terminal_table import Column
from headrace.service.definitions.matcher import Clause, Matcher
from headrace.service.first_record import first_record_from
from headrace.service.settings import Settings
from headrace.topics.cloudevents import decode
from headrace.topics.event_data import EventRejected
from headrace.topics.log import LogRecord, TopicPartition, Unreadable

_COLUMNS = (
    Column("RECORD", "record"),
    Column("WORKFLOW", "workflow"),
    Column("TRIGGER", "trigger"),
    Column("CLAUSE", "clause"),
    Column("REASON", "reason"),
    Column("DEAD LETTER", "stage"),
)

_LIST = "`headrace event tail {topic} --from start --no-follow` lists what is there."


async def match(
    topic: TopicArgument,
    /,
    *,
    app: Annotated[str, Parameter(help="The app: a module, a file or a folder.")],
    at: Annotated[str | None, Parameter(help="A record that is there, as PARTITION/OFFSET, instead of --data.")] = None,
    event: EventInput | None = None,
    common: Common | None = None,
) -> ExitCode:
    """Say which triggers match a record, and which clause said no. Exit code 3 if none does."""
    common, event = options(common), event or EventInput()
    if at is None:
        event.judge()
    settings = common.load().settings
    matcher = Matcher(loaded_app(app).workflows)
    rows: list[dict[str, Any]] = []
    matched = False
    if at is not None:
        where, record = await _record_at(settings, topic, at)
        found = [(str(where) + f"/{record.offset}", where, record)]
    else:
        where = TopicPartition(topic, 0)
        found = [
            (f"#{number}", where, LogRecord(0, 0, record.key, record.value, record.headers))
            for number, record in enumerate(event.records(topic, settings), start=1)
        ]
    for name, place, record in found:
        answers = _answers(matcher, name, place, record, settings)
        matched = matched or any(answer["clause"] == Clause.MATCHES for answer in answers)
        rows += answers
    show(rows, _COLUMNS, common.output, name="workflow")
    return ExitCode.OK if matched else ExitCode.NOT_FOUND


def _answers(
    matcher: Matcher, name: str, at: TopicPartition, record: LogRecord, settings: Settings
) -> list[dict[str, Any]]:
    try:
        decoded = decode(record, at, event_limits(settings))
    except EventRejected as error:
        return [_answer(name, "", "", "decode", f"{error.code} {error.message}", str(error.stage))]
    return [
        _answer(
            name,
            f"{verdict.workflow.namespace}/{verdict.workflow.name}",
            verdict.trigger.topic + ("" if verdict.trigger.type is None else f" {verdict.trigger.type}"),
            str(verdict.clause),
            verdict.reason,
            None if verdict.stage is None else str(verdict.stage),
        )
        for verdict in matcher.explain(decoded)
    ]


def _answer(record: str, workflow: str, trigger: str, clause: str, reason: str, stage: str | None) -> dict[str, Any]:
    return {
        "record": record,
        "workflow": workflow,
        "trigger": trigger,
        "clause": clause,
        "reason": reason,
        "stage": stage,
    }


async def _record_at(settings: Settings, topic: str, text: str) -> tuple[TopicPartition, LogRecord]:
    partition, slash, offset = text.partition("/")
    if not slash or not partition.isdecimal() or not offset.isdecimal():
        raise Usage(f"--at {text} is not PARTITION/OFFSET.", do="Write --at 0/42, say.")
    at, number = TopicPartition(topic, int(partition)), int(offset)
    async with opened(settings) as log:
        count = await log.partitions(topic)
        if at.partition >= count:
            raise NotFound(
                f"{topic} has no partition {at.partition}: it has {count}.", do=f"Name one from 0 to {count - 1}."
            )
        offsets = (await log.offsets([at]))[at]
        if not offsets.start <= number < offsets.end:
            has = f"{offsets.start} to {offsets.end - 1}" if offsets.start < offsets.end else "none"
            raise NotFound(f"{at} has no record {number}: it has {has}.", do=_LIST.format(topic=topic))
        record = await first_record_from(log, at, number, offsets.end)
    if isinstance(record, Unreadable):
        message = f"{at}/{number} cannot be unpacked: {record.reason}"
        raise NotFound(message, code=record.code, do="Look at its producer; see docs/errors.md for the code.")
    if record is not None and record.offset == number:
        return at, record
    message = f"{at} has no record {number}: it was compacted away, or a transaction has left its mark there."
    raise NotFound(message, do=_LIST.format(topic=topic))
