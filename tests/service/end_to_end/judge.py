"""The judge: run log, effects and results against each other. What is said here holds whatever happened in between."""

from collections import Counter, defaultdict
from typing import NamedTuple

from headrace.topics.log import LogRecord
from tests.service.end_to_end.effects import Effects
from tests.service.end_to_end.ledger import Ledger


class Verdict(NamedTuple):
    """What faults left behind and is allowed: results written more than once under one id, attempts repeated."""

    physical_duplicates: int
    repeated_attempts: int


def judge(
    ledger: Ledger, effects: Effects, results: list[LogRecord], *, orders: int, expected: int | None = None
) -> Verdict:
    """Every order has one run, every run one ending, results come once by id: `expected` of them, or one an order."""
    _one_run_per_source_record(ledger, orders)
    assert len(ledger.ended()) == orders
    repeated = _no_attempt_after_success(ledger, effects)
    _one_key_per_task(effects)
    return Verdict(_results_once_by_id(results, orders if expected is None else expected), repeated)


def _one_run_per_source_record(ledger: Ledger, orders: int) -> None:
    sources = Counter(
        (event.topic, event.partition, event.offset, start.workflow)
        for start in map(ledger.start, ledger.starts)
        if (event := start.event) is not None
    )
    twice = {source: count for source, count in sources.items() if count > 1}
    assert not twice, f"source records that started more than one run: {twice}"
    assert len(sources) == orders


def _no_attempt_after_success(ledger: Ledger, effects: Effects) -> int:
    """An owner that announced behind an attempt's success has read that success: it must not begin the task again.

    Within one process a number begins once. What is left are attempts that died with their process, or whose owner did not know yet that it was none any more.
    """
    repeated = 0
    successes = ledger.successes()
    for key, begun in effects.began().items():
        within = Counter((effect.pid, effect.number) for effect in begun)
        assert max(within.values()) == 1, f"{key}: one process began one attempt twice: {begun}"
        repeated += len(begun) - len({effect.number for effect in begun})
        if key not in successes:
            continue
        partition, entry = successes[key]
        late = [
            effect
            for effect in begun
            if ledger.token_of(partition, effect.pid, effect.at_ns // 1_000_000) > entry.offset
        ]
        assert not late, f"{key} succeeded at offset {entry.offset} and was begun again: {late}"
    return repeated


def _one_key_per_task(effects: Effects) -> None:
    """Business identity of a task (run and reference) and key determine each other."""
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    tasks: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for effect in effects.all():
        keys[effect.run, effect.task].add(effect.key)
        tasks[effect.key].add((effect.run, effect.task))
    assert all(len(found) == 1 for found in keys.values())
    assert all(len(found) == 1 for found in tasks.values())


def _results_once_by_id(results: list[LogRecord], expected: int) -> int:
    by_id: dict[bytes, list[LogRecord]] = defaultdict(list)
    for record in results:
        by_id[dict(record.headers)["ce_id"]].append(record)
    assert len(by_id) == expected, f"{len(by_id)} results by id, expected {expected}"
    for ce_id, copies in by_id.items():
        contents = {(copy.key, copy.value, copy.headers) for copy in copies}
        assert len(contents) == 1, f"{ce_id!r} came with different contents: {contents}"
    return len(results) - len(by_id)
