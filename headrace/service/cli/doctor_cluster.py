"""What `headrace doctor` finds out about a Kafka cluster beside its topics: API versions, permissions, the state of our groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service.cli.doctor_check import Check, State
from headrace.service.cli.output import counted
from headrace.service.log_backend import kafka_client_settings
from headrace.service.names import Names
from headrace.topics.cluster_kafka import Operation, cluster_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headrace.service.settings import Settings
    from headrace.service.topic_plan import TopicPlan
    from headrace.topics.cluster_kafka import ClusterFacts, GroupFacts, Operations

_READ = frozenset({Operation.READ, Operation.DESCRIBE})
_WRITE = frozenset({Operation.WRITE, Operation.DESCRIBE})
_RUN_LOG = _READ | _WRITE | {Operation.DELETE, Operation.DESCRIBE_CONFIGS}  # DeleteRecords needs Delete
_SHOWN_MAX = 5
_BETWEEN = frozenset({"PreparingRebalance", "CompletingRebalance"})


async def cluster_checks(settings: Settings, wanted: TopicPlan) -> list[Check]:
    """API versions, permissions and groups. Raises `LogUnavailable`."""
    names = Names(settings.app.name)
    groups = (names.members, names.router, names.owners, names.epochs)
    facts = await cluster_facts(kafka_client_settings(settings), [spec.name for spec in wanted.all], groups)
    return [_versions(facts), _permissions(facts, wanted), *_groups(facts, names)]


def _versions(facts: ClusterFacts) -> Check:
    if facts.unspoken:
        return Check("api versions", State.FAIL, _short(facts.unspoken), "Headrace needs Kafka 2.3 or newer.")
    speak = "speaks" if facts.brokers == 1 else "speak"
    return Check("api versions", State.OK, f"{counted(facts.brokers, 'broker')} {speak} what we speak")


def _permissions(facts: ClusterFacts, wanted: TopicPlan) -> Check:
    """What a service of this app needs and may not do."""
    lacking = [*_lacking("topic", _needed(wanted), facts.topics)]
    lacking += _lacking(
        "group", dict.fromkeys(facts.groups, _READ), {name: group.allowed for name, group in facts.groups.items()}
    )
    missing = [spec.name for spec in wanted.all if spec.name not in facts.topics]
    if missing and facts.cluster is not None and Operation.CREATE not in facts.cluster:
        lacking.append(f"Create on the cluster ({counted(len(missing), 'topic')} missing)")
    if lacking:
        fix = "Have them granted with kafka-acls.sh --add --allow-principal ..., or use another principal."
        return Check("permissions", State.FAIL, f"not allowed: {_short(lacking)}", fix)
    return Check("permissions", State.OK, "all that a service needs")


def _needed(wanted: TopicPlan) -> dict[str, Operations]:
    return {
        **{spec.name: _READ for spec in wanted.sources},
        **{spec.name: _WRITE for spec in (*wanted.outputs, *wanted.kept)},
        **{spec.name: _READ | _WRITE for spec in wanted.letters},
        wanted.runs.name: frozenset(_RUN_LOG),
    }


def _lacking(kind: str, needed: Mapping[str, Operations], allowed: Mapping[str, Operations | None]) -> Iterator[str]:
    for name, operations in needed.items():
        may = allowed.get(name)
        if may is not None and (less := operations - may):
            yield f"{', '.join(sorted(less))} on {kind} {name}"


def _groups(facts: ClusterFacts, names: Names) -> Iterator[Check]:
    members = facts.groups[names.members]
    if members.state:
        yield _members(names.members, members)
    for name in (names.router, names.owners, names.epochs):
        if facts.groups[name].members:
            found = f"group {name} has members, but only holds positions of ours"
            yield Check("group", State.WARN, found, "Something else consumes under this name: give it another.")


def _members(name: str, group: GroupFacts) -> Check:
    found = f"group {name} is {group.state}, {counted(group.members, 'member')}"
    if group.state in _BETWEEN:
        fix = "If it stays so, a member does not answer: see partition.* and group lines of the workers' logs."
        return Check("group", State.WARN, found, fix)
    return Check("group", State.OK, "no service runs" if not group.members else found)


def _short(texts: Iterable[str]) -> str:
    every = list(texts)
    more = f", and {len(every) - _SHOWN_MAX} more" if len(every) > _SHOWN_MAX else ""
    return "; ".join(every[:_SHOWN_MAX]) + more
