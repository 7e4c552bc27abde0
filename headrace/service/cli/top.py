"""`headrace top`: a live view of workflows, tasks, lag, breakers and what limits, over all workers of this machine.

On a terminal it is drawn anew at each look. Elsewhere, and with `--once`, it looks once and ends, but `-o jsonl` goes
on: one object a look.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn

import msgspec
from cyclopts import Parameter

from headrace.service.cli.exit_code import ExitCode, Usage
from headrace.service.cli.option import Common, options, seconds
from headrace.service.cli.output import Format, is_utf8, show_one
from headrace.service.cli.top_view import View, WorkerView, WorkflowView, view
from headrace.service.cli.worker_metrics import Scrape, scraped, workers_of

_AT_LEAST_S = 0.2  # between two looks: each is a scrape of every worker
_ROWS_MAX = 20  # of a table on a terminal
_HISTORY_LATE_S = 10.0  # less is how it works: it reads in batches
_BREAKERS = ("BREAKER", "STATE")


def top(
    *,
    metrics_url: Annotated[
        tuple[str, ...], Parameter(help="A worker's metrics; repeatable. Else all of this machine.", negative="")
    ] = (),
    interval: Annotated[str, Parameter(help="Between two looks; rates are over it.")] = "2s",
    once: Annotated[bool, Parameter(help="Look once.", negative="")] = False,
    common: Common | None = None,
) -> ExitCode:
    """Watch workflows, tasks, lag, breakers and what limits."""
    common = options(common)
    every_s = seconds(interval, "--interval") or 0.0
    if every_s < _AT_LEAST_S:
        raise Usage(f"--interval {interval} is below {_AT_LEAST_S:g} s.", do="Give a longer one, such as 2s.")
    if common.output is Format.NAME:
        raise Usage("-o name has no meaning here.", do="Use table, json, jsonl or yaml.")
    workers = workers_of(common.load().settings, metrics_url)
    before = scraped(workers)
    if common.output is Format.TABLE and sys.stdout.isatty() and not once:
        _live(workers, before, every_s)
    while True:
        time.sleep(every_s)
        after = scraped(workers)
        _print(view(before, after), common.output)
        if once or common.output is not Format.JSONL:
            return ExitCode.OK if any(not each.failure for each in after) else ExitCode.UNREACHABLE
        before = after


def _print(now: View, format_: Format) -> None:
    if format_ is not Format.TABLE:
        show_one(msgspec.to_builtins(now), format_, name="bottleneck")
        sys.stdout.flush()
        return
    from rich.console import Console

    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 160, soft_wrap=not terminal).print(
        drawn(now, rows_max=0 if not terminal else _ROWS_MAX)
    )


def _live(workers: dict[str, str], before: list[Scrape], every_s: float) -> NoReturn:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            after = scraped(workers)
            live.update(drawn(view(before, after), lines=console.height), refresh=True)
            before = after


def drawn(now: View, *, rows_max: int = 0, lines: int = 0) -> Any:
    """Tables one above the other, what matters most at their top. `rows_max` 0: everything; `lines`: so that all fit into as many."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables = [table for table in _tables(now) if table[1]]
    sizes = [len(rows) for _, rows in tables]
    room = shares(sizes, lines - 1 - 2 * len(tables)) if lines else [rows_max or max(sizes, default=0)] * len(tables)
    parts: list[Any] = [Text(_headline(now), "bold")]
    for (headings, rows), most in zip(tables, room, strict=True):
        made = Table(box=None, pad_edge=False, header_style="bold")
        for index, heading in enumerate(headings):
            made.add_column(heading, justify="left" if index == 0 or heading.isupper() else "right", overflow="fold")
        shown = rows if len(rows) <= most else rows[: max(1, most - 1)]
        for row in shown:
            alarming = headings is _BREAKERS and row[1] != "closed"
            made.add_row(Text(row[0]), *(Text(cell, "bold red" if alarming else "") for cell in row[1:]))
        parts += [Text(""), made]
        if len(shown) < len(rows):
            parts.append(Text(f"and {len(rows) - len(shown)} more", "dim"))
    return Group(*parts)


def shares(sizes: Sequence[int], room: int) -> list[int]:
    """How many rows each of some tables may have so that all have room: small ones stay whole, the others get the same. At least 2 each."""
    given = [0] * len(sizes)
    for left, index in zip(range(len(sizes), 0, -1), sorted(range(len(sizes)), key=lambda at: sizes[at]), strict=True):
        given[index] = min(sizes[index], max(2, room // left))
        room -= given[index]
    return given


def _tables(now: View) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Headings and rows."""
    yield (
        ("WORKER", "STATUS", "cpu", "slots", "memory", "LIMITS"),
        [_worker(each) for each in sorted(now.workers, key=lambda each: each.status == "ready")],
    )
    yield (
        ("WORKFLOW", "started/s", "finished/s", "failed/s", "comes/s", "capacity/s", "drained in", "ACTIVE"),
        [_workflow(each) for each in sorted(now.workflows, key=_busy, reverse=True)],
    )
    yield (
        ("TASK", "WORKFLOW", "attempts/s", "failed/s", "mean ms"),
        [
            (
                each.task,
                each.workflow,
                _number(each.attempts_per_s),
                _number(each.failed_per_s),
                _number(each.mean_ms),
            )
            for each in sorted(now.tasks, key=lambda each: each.attempts_per_s, reverse=True)
        ],
    )
    yield (
        ("TOPIC", "lag", "oldest s", "worst partition"),
        [
            (each.topic, str(each.records), _number(each.seconds), str(each.worst_partition))
            for each in sorted(now.lag, key=lambda each: each.seconds, reverse=True)
        ],
    )
    yield (
        _BREAKERS,
        [(each.breaker, each.state) for each in sorted(now.breakers, key=lambda each: each.state == "closed")],
    )


def _busy(each: WorkflowView) -> tuple[float, int]:
    return each.started_per_s + each.finished_per_s, sum(each.active.values())


def _headline(now: View) -> str:
    up = sum(not each.status.startswith("no answer") for each in now.workers)
    parts = [f"{up} of {len(now.workers)} workers answer"]
    if now.bottleneck:
        parts.append(f"{now.bottleneck} limits; without it {now.relief or 1:.1f} times as much would pass")
    elif up:
        parts.append("nothing limits")
    if now.workers_needed is not None:
        parts.append(f"the load needs {now.workers_needed}")
    if now.approvals_pending:
        parts.append(f"{now.approvals_pending} pending approvals")
    if now.dead_letters_open:
        parts.append(f"{now.dead_letters_open} open dead letters")
    if now.history_lag_s is not None and now.history_lag_s >= _HISTORY_LATE_S:
        parts.append(f"the history is {now.history_lag_s:.0f} s behind")
    return " - ".join(parts) if not is_utf8(sys.stdout) else " · ".join(parts)


def _worker(each: WorkerView) -> tuple[str, ...]:
    return (
        each.worker,
        each.status,
        _share(each.cpu),
        _share(each.slots),
        f"{each.memory_bytes / (1 << 20):.0f} MiB" if each.memory_bytes else "-",
        each.bottleneck or "-",
    )


def _workflow(each: WorkflowView) -> tuple[str, ...]:
    active = ", ".join(f"{count} {state}" for state, count in sorted(each.active.items()))
    return (
        each.workflow,
        _number(each.started_per_s),
        _number(each.finished_per_s),
        _number(each.failed_per_s),
        _number(each.arrivals_per_s),
        _number(each.capacity_per_s),
        _drained(each),
        active or "-",
    )


def _drained(each: WorkflowView) -> str:
    if each.drain_s is None:
        return "-" if each.arrivals_per_s is None else "never"
    return f"{each.drain_s:.0f} s" if each.drain_s else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
