"""The topics an app needs: what they must be like, and the check at start that they are.

The run log is compared in all that matters to correctness; the other topics of ours may be kept as the operator likes,
if they take what we write; users' topics only have to exist. Used by `dev` and `serve` before anything reads or writes,
by `topic create`, `topic check` and `doctor`. Codes: HR1201 missing, HR1202 retention or compaction, HR1203 partitions,
HR1204 replication, HR1205 record size, HR1206 timestamps, HR1207 leader election, HR1209 the run log among the app's topics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import anyio
import msgspec

from headrace.service.names import Names
from headrace.service.refusal import refuse
from headrace.topics.dead_letter import SOURCE_MARGIN_BYTES, dead_letter_topic
from headrace.topics.errors import SettingsError
from headrace.topics.record_size import DEFAULT_MESSAGE_BYTES_MAX
from headrace.topics.spec import TopicSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headrace.service.settings import Settings
    from headrace.topics.log import Log

OTHER_PARTITIONS = "HR1203"
RUN_LOG_NAMED = "HR1209"
FOR_EVER = -1
RUN_LOG_SEGMENT_BYTES = 128 << 20
USER_TOPIC_PARTITIONS = 8  # of source and output topics that we make: room for a few instances, cheap to read for one
_HEARD_S = 10.0  # then the check says what is missing
_LOOKS = 3  # in a row that find everything, any broker being asked
_BETWEEN_LOOKS_S = 0.1
_RECORD_ROOM_BYTES = 64 << 10  # what a run-log record needs around its payload: ids, headers, framing


class TopicPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What there should be: `runs` and `kept` (audit, dead letters) are ours; `sources` are read, `outputs` written.

    `servers` is how Kafka's own tools reach the brokers.
    """

    servers: str
    runs: TopicSpec
    kept: tuple[TopicSpec, ...]
    sources: tuple[TopicSpec, ...]
    outputs: tuple[TopicSpec, ...]

    @property
    def all(self) -> tuple[TopicSpec, ...]:
        """Everything, in the order in which it is made."""
        return (*self.sources, *self.outputs, self.runs, *self.kept)

    @property
    def letters(self) -> tuple[TopicSpec, ...]:
        """Those of `kept` that have dead letters: they are written, and read to be listed and redriven."""
        return tuple(spec for spec in self.kept if spec.name.endswith(dead_letter_topic("")))

    @property
    def dead_letter_bytes(self) -> dict[str, int | None]:
        """The most that the dead-letter topic of each source takes; None: not known."""
        letters = {dead_letter_topic(source.name): source.name for source in self.sources}
        return {letters[spec.name]: spec.max_message_bytes for spec in self.kept if spec.name in letters}


def plan(
    settings: Settings,
    *,
    nodes: int,
    sources: Iterable[str] = (),
    outputs: Iterable[str] = (),
    existing: Mapping[str, TopicSpec] | None = None,
) -> TopicPlan:
    """Derive the topics from settings and an app's topic names.

    `nodes` is the number of brokers, `existing` what `Log.describe` says of the app's topics.
    """
    there = existing or {}
    replication = settings.log.replication or min(3, nodes)
    source_specs = tuple(there.get(name) or _users(name, replication) for name in sorted(set(sources)))
    output_names = sorted(set(outputs) - {spec.name for spec in source_specs})
    letters = tuple(_dead_letters(spec, replication) for spec in source_specs)
    return TopicPlan(
        servers=",".join(settings.kafka.bootstrap_servers),
        runs=_runs(settings, replication),
        kept=(
            _kept(Names(settings.app.name).audit, replication, settings.log.max_record_bytes),
            _kept(Names(settings.app.name).refused, replication, settings.log.max_record_bytes),
            *letters,
        ),
        sources=source_specs,
        outputs=tuple(there.get(name) or _users(name, replication) for name in output_names),
    )


async def planned(
    log: Log, settings: Settings, *, sources: Iterable[str] = (), outputs: Iterable[str] = ()
) -> TopicPlan:
    """`plan`, with the brokers and existing topics looked up. Raises `LogUnavailable`."""
    names = sorted({*sources, *outputs})
    return plan(settings, nodes=await log.nodes(), sources=sources, outputs=outputs, existing=await log.describe(names))


async def prepare(log: Log, wanted: TopicPlan, *, create: bool) -> tuple[str, ...]:
    """Make what is missing if `create`, then check everything; the names that were made.

    `SettingsError`: all differences at once; nothing was made if there were any before.
    """
    made: tuple[str, ...] = ()
    if create:
        problems = await check(log, wanted, missing_is_fine=True)
        refuse(problems)
        made = tuple(await log.create(wanted.all))
        await _known_everywhere(log, wanted)
    refuse(await check(log, wanted))
    return made


async def _known_everywhere(log: Log, wanted: TopicPlan) -> None:
    """Wait, a little, until the brokers have heard of what they or another instance of us just made: each answers for itself."""
    names = [spec.name for spec in wanted.all]
    seen = 0
    with anyio.move_on_after(_HEARD_S):
        while seen < _LOOKS:
            if len(await log.describe(names)) == len(set(names)):
                seen += 1
            else:
                seen = 0
                await anyio.sleep(_BETWEEN_LOOKS_S)


async def check(log: Log, wanted: TopicPlan, *, missing_is_fine: bool = False) -> list[SettingsError]:
    """All differences between the plan and what is there. Raises `LogUnavailable`."""
    found = await log.describe([spec.name for spec in wanted.all])
    problems: list[SettingsError] = list(_run_log_among(wanted))
    missing = [spec.name for spec in wanted.all if spec.name not in found]
    if missing and not missing_is_fine:
        problems.append(_missing(missing))
    if (runs := found.get(wanted.runs.name)) is not None:
        problems.extend(differences(wanted.runs, runs, wanted.servers))
    for spec in wanted.kept:
        if (there := found.get(spec.name)) is not None:
            problems.extend(_wrong_configuration(_least(spec), there, wanted.servers))
    return problems


def _run_log_among(wanted: TopicPlan) -> Iterator[SettingsError]:
    for specs, does in ((wanted.sources, "starts runs from"), (wanted.outputs, "emits to")):
        if any(spec.name == wanted.runs.name for spec in specs):
            yield SettingsError(
                f"The app {does} {wanted.runs.name}, which is the run log.",
                code=RUN_LOG_NAMED,
                why="Only Headrace's own records may be there: anything else stops the partition it is in.",
                do="Name another topic, or choose another app.name. Nothing was written.",
            )


def differences(wanted: TopicSpec, found: TopicSpec, servers: str) -> list[SettingsError]:
    """What is wrong with the run log. `None` in the plan is not compared; more room or replicas than asked are fine."""
    name, problems = wanted.name, list[SettingsError]()
    if found.partitions != wanted.partitions:
        problems.append(
            SettingsError(
                f"Expected {wanted.partitions} partitions in {name}, but found {found.partitions}.",
                code=OTHER_PARTITIONS,
                why="Run ids contain the partition number: commands would reach the wrong owner.",
                do=f"If {name} was made with {found.partitions}, set log.partitions = {found.partitions}; "
                f"else restore it with {wanted.partitions}, or choose a new app.name. Nothing was written.",
            )
        )
    problems.extend(_wrong_configuration(wanted, found, servers))
    if found.replication < wanted.replication:
        problems.append(
            SettingsError(
                f"{name} has {found.replication} replicas, but should have {wanted.replication}.",
                code="HR1204",
                why="The log is the only truth: with too few copies, the loss of a broker loses runs.",
                do=f"Reassign {name} to {wanted.replication} replicas, "
                f"or accept it with log.replication = {found.replication}.",
            )
        )
    return problems


def _least(spec: TopicSpec) -> TopicSpec:
    """What audit and dead letters must have, however long they are kept: no compaction (keys repeat), and room."""
    return TopicSpec(
        name=spec.name,
        partitions=spec.partitions,
        cleanup_policy=spec.cleanup_policy,
        max_message_bytes=spec.max_message_bytes,
    )


class _Rule(NamedTuple):
    """One configuration of a topic; `at_least`: more than asked for is fine."""

    key: str
    field: str
    code: str
    why: str
    at_least: bool = False


_LOSES = "Records would disappear while runs still need them."
_RULES = (
    _Rule("cleanup.policy", "cleanup_policy", "HR1202", _LOSES),
    _Rule("retention.ms", "retention_ms", "HR1202", _LOSES),
    _Rule("retention.bytes", "retention_bytes", "HR1202", _LOSES),
    _Rule(
        "min.insync.replicas",
        "min_insync_replicas",
        "HR1204",
        "A record could be acknowledged by one broker alone and be lost with it.",
        at_least=True,
    ),
    _Rule(
        "max.message.bytes",
        "max_message_bytes",
        "HR1205",
        "The broker would refuse records that Headrace's own limits allow.",
        at_least=True,
    ),
    _Rule(
        "message.timestamp.type",
        "timestamp_type",
        "HR1206",
        "Timers and deadlines are judged by the time at which the broker appended a record.",
    ),
    _Rule(
        "unclean.leader.election.enable",
        "unclean_leader_election",
        "HR1207",
        "A broker that missed records could become the leader and delete acknowledged ones.",
    ),
)


def _wrong_configuration(wanted: TopicSpec, found: TopicSpec, servers: str) -> Iterator[SettingsError]:
    for rule in _RULES:
        should, is_ = getattr(wanted, rule.field), getattr(found, rule.field)
        if should is None or is_ is None or is_ == should or (rule.at_least and is_ >= should):
            continue
        yield SettingsError(
            f"{wanted.name} has {rule.key}={_text(is_)}, but needs {_text(should)}.",
            code=rule.code,
            why=rule.why,
            do=f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
            f"--entity-name {wanted.name} --add-config {rule.key}={_text(should)}",
        )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _missing(names: Sequence[str]) -> SettingsError:
    one = len(names) == 1
    return SettingsError(
        f"{'Topic' if one else 'Topics'} {', '.join(names)} {'does' if one else 'do'} not exist.",
        code="HR1201",
        why="Headrace makes no topic unless it is told to: a broker's own defaults would be wrong for them.",
        do="Start with --create-topics, or make them with `headrace topic create APP`.",
    )


def _runs(settings: Settings, replication: int) -> TopicSpec:
    return TopicSpec(
        name=Names(settings.app.name).runs,
        partitions=settings.log.partitions,
        replication=replication,
        cleanup_policy="delete",
        retention_ms=FOR_EVER,
        retention_bytes=FOR_EVER,
        max_message_bytes=_room(settings.log.max_record_bytes),
        min_insync_replicas=_min_insync(replication),
        timestamp_type="LogAppendTime",
        segment_bytes=RUN_LOG_SEGMENT_BYTES,
        unclean_leader_election=False,
    )


def _kept(name: str, replication: int, record_bytes: int) -> TopicSpec:
    """A topic of ours that is read by people: one partition, nothing is deleted unless the operator says so."""
    return TopicSpec(
        name=name,
        partitions=1,
        replication=replication,
        cleanup_policy="delete",
        retention_ms=FOR_EVER,
        max_message_bytes=_room(record_bytes),
        min_insync_replicas=_min_insync(replication),
        unclean_leader_election=False,
    )


def _dead_letters(source: TopicSpec, replication: int) -> TopicSpec:
    allowed = source.max_message_bytes or DEFAULT_MESSAGE_BYTES_MAX
    return TopicSpec(
        name=dead_letter_topic(source.name),
        partitions=source.partitions,
        replication=replication,
        cleanup_policy="delete",
        retention_ms=FOR_EVER,
        max_message_bytes=allowed + SOURCE_MARGIN_BYTES,
        min_insync_replicas=_min_insync(replication),
    )


def _users(name: str, replication: int) -> TopicSpec:
    return TopicSpec(name=name, partitions=USER_TOPIC_PARTITIONS, replication=replication)


def _room(record_bytes: int) -> int:
    return max(DEFAULT_MESSAGE_BYTES_MAX, record_bytes + _RECORD_ROOM_BYTES)


def _min_insync(replication: int) -> int:
    return 2 if replication >= 3 else 1
