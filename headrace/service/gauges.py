"""The gauges: one look at the states of owners, router and policies, when somebody scrapes."""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING

from headrace.observability.accumulator import OTHER
from headrace.observability.label import BreakerState
from headrace.observability.snapshot import (
    BreakerNow,
    HistoryNow,
    LagNow,
    LogPartitionNow,
    PoolNow,
    RunState,
    Snapshot,
    StoppedNow,
    TaskState,
    WorkflowNow,
)
from headrace.service.engine.run_state import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.service.history.link import HistoryLink
    from headrace.service.owner import Owner
    from headrace.service.shared import Shared
    from headrace.service.source import Source

_WORKFLOWS_MAX = 1_000
_FAR = 1 << 62
_Kept = Counter[tuple[str, RunState]]
"""How many runs are kept as bytes, by workflow and where they stand."""
_OF_PHASE = {Phase.OPEN: RunState.WAITING, Phase.QUEUED: RunState.QUEUED, Phase.PARKED: RunState.PARKED}


def snapshot(
    shared: Shared,
    owners: Iterable[Owner],
    sources: Iterable[Source],
    *,
    threads_abandoned: int,
    dead_letters: Mapping[str, int],
) -> Snapshot:
    """What is, now. Called on the loop; linear in runs that are not packed."""
    owners, sources = list(owners), list(sources)
    kept = [_packed(owner) for owner in owners]
    dispatch = shared.attempts.statistics()
    running = Counter((workflow, handler) for workflow, handler, runs in shared.attempts.in_progress() if runs)
    return Snapshot(
        workflows=_workflows(shared, owners, kept, running),
        timers_pending=sum(map(_timers, owners, kept)),
        approvals_pending=_approvals(shared, owners),
        lag=tuple(_lag(shared, source) for source in sources),
        partitions_assigned={shared.names.router: len(sources), f"{shared.names.app}.owners": len(owners)},
        breakers=tuple(BreakerNow(breaker=each.name, state=BreakerState(each.status)) for each in dispatch.breakers),
        pools=tuple(PoolNow(pool=each.name, slots=each.size, slots_in_use=each.in_use) for each in dispatch.pools),
        log_partitions=tuple(
            LogPartitionNow(
                partition=owner.at.partition,
                log_bytes=owner.checkpointer.log_bytes,
                checkpoint_bytes=owner.checkpointer.size_bytes,
            )
            for owner in owners
        ),
        stopped=tuple(
            StoppedNow(topic=topic, reason=reason, partitions=count)
            for (topic, reason), count in Counter((at.topic, reason) for at, reason in shared.stops.items()).items()
        ),
        history=None if shared.history is None else _history(shared.history),
        source_backlog_bytes=_backlog(shared),
        active_runs=shared.admission.active_runs,
        handlers_running=running,
        threads_abandoned=threads_abandoned,
        dead_letters=dict(dead_letters),
        broker_reachable=shared.log.reachable,
        sse_clients=shared.streams(),
        definitions={"loaded": len(shared.app.workflows), "held": sum(len(owner.runs.held) for owner in owners)},
    )


def _workflows(
    shared: Shared, owners: list[Owner], kept: list[_Kept], running: Counter[tuple[str, str]]
) -> tuple[WorkflowNow, ...]:
    # Named even without a run, but not thousands of them: this is on the loop.
    named = shared.app.workflows[:_WORKFLOWS_MAX]
    runs: dict[str, Counter[RunState]] = {workflow.name: Counter() for workflow in named}
    oldest: dict[str, int] = {}
    delayed: Counter[str] = Counter()
    for owner, packed in zip(owners, kept, strict=True):
        for run in owner.state.runs.live():
            name = run.start.workflow
            runs.setdefault(name, Counter())[_state(owner, run.id, run.phase)] += 1
            oldest[name] = min(oldest.get(name, run.started_at_ms), run.started_at_ms)
        for (name, state), count in packed.items():
            runs.setdefault(name, Counter())[state] += count
        for name, started_at_ms in owner.state.runs.oldest_packed().items():
            oldest[name] = min(oldest.get(name, started_at_ms), started_at_ms)
        for live in owner.runs.live.values():
            delayed[live.state.start.workflow] += len(live.delayed)
        for name, tasks in owner.runs.idle.delayed.values():
            delayed[name] += tasks
    progress: Counter[str] = Counter()
    for (name, _), count in running.items():
        progress[name] += count
    held: dict[str, dict[TaskState, int]] = defaultdict(dict)
    for (name, reason), count in shared.attempts.statistics().held.items():
        held[name][TaskState(reason)] = count
    _fold_the_least(runs, oldest, delayed, progress, held)
    return tuple(
        WorkflowNow(
            workflow=name,
            runs={state: count for state, count in states.items() if count},
            tasks_in_progress=progress[name],
            tasks_queued={TaskState.DELAYED: delayed[name], **held[name]},
            oldest_active_run_start_ms=oldest.get(name),
        )
        for name, states in runs.items()
    )


def _fold_the_least(
    runs: dict[str, Counter[RunState]],
    oldest: dict[str, int],
    delayed: Counter[str],
    progress: Counter[str],
    held: dict[str, dict[TaskState, int]],
) -> None:
    """Of thousands of workflows, those with the fewest open runs are shown as one."""
    if len(runs) <= _WORKFLOWS_MAX:
        return
    least = sorted(runs, key=lambda name: runs[name].total(), reverse=True)[_WORKFLOWS_MAX:]
    rest: Counter[RunState] = Counter()
    for name in least:
        rest += runs.pop(name)
        delayed[OTHER] += delayed.pop(name, 0)
        progress[OTHER] += progress.pop(name, 0)
        oldest[OTHER] = min(oldest.get(OTHER, _FAR), oldest.pop(name, _FAR))
        for state, count in held.pop(name, {}).items():
            held[OTHER][state] = held[OTHER].get(state, 0) + count
    if oldest[OTHER] == _FAR:
        del oldest[OTHER]
    runs[OTHER] = rest


def _packed(owner: Owner) -> _Kept:
    """Runs that are kept as bytes."""
    found: _Kept = Counter()
    for (name, phase), count in owner.state.runs.packed_counts.items():
        found[name, _OF_PHASE[phase]] += count
    is_packed = owner.state.runs.is_packed
    for state, some in ((RunState.HELD, owner.runs.held), (RunState.UNADMITTED, owner.runs.asked)):
        moved = Counter(
            found_in if isinstance(found_in, str) else found_in.workflow
            for run, found_in in some.items()
            if is_packed(run)
        )
        for name, count in moved.items():
            found[name, RunState.WAITING] -= count
            found[name, state] += count
    return found


def _timers(owner: Owner, packed: _Kept) -> int:
    """Armed ones; of a run that is kept as bytes, the first, if there is one."""
    waiting = sum(count for (_, state), count in packed.items() if state is RunState.WAITING)
    idle = owner.runs.idle
    return sum(len(live.timers) for live in owner.runs.live.values()) + waiting - len(idle.delayed) - len(idle.untimed)


def _approvals(shared: Shared, owners: list[Owner]) -> dict[str, int]:
    """Open ones, by workflow; 0 for those that are loaded and have none."""
    found = Counter[str](dict.fromkeys((each.name for each in shared.app.workflows[:_WORKFLOWS_MAX]), 0))
    for owner in owners:
        found.update(map(attrgetter("workflow"), owner.state.approvals.values()))
    return dict(found)


def _state(owner: Owner, run: str, phase: Phase) -> RunState:
    if phase is Phase.QUEUED:
        return RunState.QUEUED
    if phase is Phase.PARKED:
        return RunState.PARKED
    if run in owner.runs.held:
        return RunState.HELD
    live = owner.runs.live.get(run)
    if live is None:
        return RunState.UNADMITTED if run in owner.runs.asked else RunState.WAITING
    if live.undoes():
        return RunState.COMPENSATING
    if not live.waits():
        return RunState.RUNNING
    return RunState.HELD if live.held else RunState.WAITING


def _lag(shared: Shared, source: Source) -> LagNow:
    return LagNow(
        topic=source.at.topic,
        partition=source.at.partition,
        group=shared.names.router,
        records=max(0, source.end_offset - source.floor),
        seconds=source.lag_ms() / 1000,
    )


def _history(history: HistoryLink) -> HistoryNow:
    lag = history.lag()
    return HistoryNow(lag_records=lag.records, lag_seconds=lag.seconds)


def _backlog(shared: Shared) -> dict[str, int]:
    """Bytes of starts that are not admitted, by source topic."""
    return dict.fromkeys(shared.matcher.topics, 0) | shared.admission.backlog
