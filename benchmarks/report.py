"""What people read: a Markdown table that also stands on a terminal, and the JSON that keeps the figures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.bench import Figures
from benchmarks.figures import Spread
from benchmarks.machine import Machine
from benchmarks.scenario import TargetName

_COSTS = ("CPU us/run", "x floor", "broker us/run", "peak MiB", "lost", "doubled")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of one invocation. `settings`: what Headrace was told beyond its defaults."""

    machine: Machine
    loads: dict[str, object]
    settings: list[str]
    figures: list[Figures]


def keep(report: Report, folder: Path) -> Path:
    """Write `<date>-<kind>.json` (a later one of the same day takes its place) and `latest.md`; the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{report.machine.date}-{report.machine.kind}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    (folder / "latest.md").write_text(f"# {file.stem}\n\n{text(report)}")
    return file


def text(report: Report) -> str:
    """The tables."""
    bursts = [figures for figures in report.figures if figures.delay_ms is None]
    rates = [figures for figures in report.figures if figures.delay_ms is not None]
    parts = [_about(report)]
    if bursts:
        parts.append(
            f"Burst: all orders are in the topic before the service starts; the median of several times.\n\n{_bursts(bursts)}"
        )
    if rates:
        parts.append(
            "Open loop: milliseconds from the moment an order is due to the append of its result "
            f"(received: to a consumer having it); warm-up left out.\n\n{_rates(rates)}"
        )
    parts += [
        f"**{figures.name} is not sound**: {_trouble(figures)}" for figures in report.figures if not figures.sound
    ]
    return "\n\n".join(parts) + "\n"


def _about(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    hardware = f"{machine.processor}, {machine.cores} cores, {machine.memory_gib:g} GiB, {machine.system}"
    lines = [
        f"{hardware}, Python {machine.python}, {machine.loop}; {versions}.",
        f"Commit {machine.commit}. Load average before the start: {machine.load_before}.",
    ]
    if report.settings:
        lines.append(f"Headrace with {', '.join(report.settings)}.")
    return "\n".join(lines)


def _bursts(bursts: Sequence[Figures]) -> str:
    floor = next((one for one in bursts if one.target == TargetName.FLOOR), None)
    head = (
        "target", "orders", "runs/s", "(each time)", "of the floor", "s from first order", "s from start", *_COSTS,
    )  # fmt: skip
    return _table(
        head,
        (
            (
                one.target,
                one.orders,
                f"{one.runs_per_s:.0f}",
                " ".join(f"{each:.0f}" for each in one.repeats),
                _ratio(one.runs_per_s, floor and floor.runs_per_s),
                f"{one.seconds:.2f}",
                f"{one.seconds_from_start:.2f}",
                *_costs(one, floor),
            )
            for one in bursts
        ),
    )


def _rates(rates: Sequence[Figures]) -> str:
    floors = {one.load: one for one in rates if one.target == TargetName.FLOOR}
    head = (
        "target", "orders/s", "runs/s", "p50", "p95", "p99", "max", "p50 x floor", "p99 x floor", "received p50", "p99",
        "load late p99", *_COSTS,
    )  # fmt: skip
    return _table(head, (_rate(one, floors.get(one.load)) for one in rates))


def _rate(one: Figures, floor: Figures | None) -> tuple[object, ...]:
    delay, received, late = (_spread(each) for each in (one.delay_ms, one.received_ms, one.late_ms))
    least = floor.delay_ms if floor else None
    return (
        one.target,
        one.load,
        f"{one.runs_per_s:.0f}",
        *(f"{value:.1f}" for value in (delay.p50, delay.p95, delay.p99, delay.max)),
        _ratio(delay.p50, least and least.p50),
        _ratio(delay.p99, least and least.p99),
        f"{received.p50:.1f}",
        f"{received.p99:.1f}",
        f"{late.p99:.1f}",
        *_costs(one, floor),
    )


def _costs(one: Figures, floor: Figures | None) -> tuple[object, ...]:
    """The columns of `_COSTS`."""
    return (
        f"{one.cpu_us_per_run:.0f}",
        _ratio(one.cpu_us_per_run, floor and floor.cpu_us_per_run),
        f"{one.broker_cpu_us_per_run:.0f}",
        f"{one.peak_mib:.0f}",
        one.completeness.lost,
        one.completeness.doubled,
    )


def _spread(found: Spread | None) -> Spread:
    return found or Spread(0.0, 0.0, 0.0, 0.0)


def _ratio(value: float, floor: float | None) -> str:
    """Two digits that matter: 0.14 or 7.1; a dash without a floor."""
    return f"{value / floor:.2g}" if floor else "-"


def _trouble(figures: Figures) -> str:
    found = figures.completeness
    return (
        f"{found.lost} lost, {found.doubled} doubled, {found.strange} strange of {found.orders} orders; "
        f"exit code {figures.exit_code}."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)
