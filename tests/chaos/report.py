"""One table and one JSON of all lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos.line import Outcome

_COLUMNS = (
    "line",
    "verdict",
    "tried",
    "fired",
    "kills",
    "passed",
    "violations",
    "runs",
    "twice",
    "of",
    "again",
    "stale",
    "seconds",
)


def table(outcomes: Sequence[Outcome]) -> str:
    """For people. `twice`: physical duplicates of results, `of` so many in flight at the faults; `again`: attempts made again;
    `kills`: of the fired, workers that died by SIGKILL.
    """
    rows = [_COLUMNS, *(_row(outcome) for outcome in outcomes)]
    if len(outcomes) > 1:
        rows.append(_sum(outcomes))
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for outcome in outcomes:
        said = [f"{name} {value}" for name, value in outcome.notes.items()]
        if outcome.void:
            said.insert(0, f"void: {outcome.void}")
        lines += [f"\n{outcome.line}  {outcome.title}; seeds {_seeds(outcome.seeds)}"]
        lines += [f"    {text}" for text in said]
        lines += [f"    VIOLATION {text}" for text in outcome.violations[:20]]
    return "\n".join(lines)


def write(outcomes: Sequence[Outcome], path: Path, facts: dict[str, Any]) -> None:
    """For machines."""
    facts = {**facts, "fired": sum(each.fired for each in outcomes), "kills": sum(each.kills for each in outcomes)}
    everything = {**facts, "lines": [msgspec.to_builtins(outcome) for outcome in outcomes]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(everything)) + b"\n")


def outcomes_of(path: Path) -> list[Outcome]:
    """What `write` wrote. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=_Written).lines


class _Written(msgspec.Struct):
    lines: list[Outcome]


def _sum(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The last row. `seconds` of lines side by side add up to more than the whole took."""
    rows = [_row(outcome)[2:] for outcome in outcomes]
    return ("all", "", *(f"{sum(float(row[index]) for row in rows):.0f}" for index in range(len(rows[0]))))


def _row(outcome: Outcome) -> tuple[str, ...]:
    return tuple(
        str(each)
        for each in (
            outcome.line,
            outcome.verdict,
            outcome.tried,
            outcome.fired,
            outcome.kills,
            outcome.passed,
            len(outcome.violations),
            outcome.runs,
            outcome.duplicates,
            outcome.duplicates_allowed,
            outcome.repeated_attempts,
            outcome.stale_records,
            outcome.seconds,
        )
    )


def _seeds(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) if len(seeds) < 6 else f"{seeds[0]} to {seeds[-1]}"
