"""A part of every line, real kills and all; `make chaos` runs more of them. A line whose fault hit nothing fails here.

A soak is on demand: too short, it shows nothing.
"""

from collections.abc import Callable

import pytest

from tests.chaos.__main__ import main
from tests.chaos.line import Bench, Line, Outcome, Scale
from tests.chaos.lines import LINES
from tests.chaos.report import table
from tests.kafka_broker.broker import KafkaBroker
from tests.requirement import missing

OPEN: dict[str, str] = {}
"""Findings that are not mended, by line: such a line runs, and may fail."""


@pytest.mark.parametrize("arguments", [["--lines", "X99"], ["--soak", "0"], ["--soak", "60", "--lines", "X1"]])
def test_what_tries_nothing_is_no_verdict(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(
            line,
            marks=[
                pytest.mark.late(3 if line.alone else 2),
                *([pytest.mark.xfail(reason=OPEN[line.id], strict=False)] if line.id in OPEN else []),
            ],
        )
        for line in LINES
        if line.id != "L7"
    ],
    ids=lambda line: line.id,
)
async def test_nothing_is_lost_and_nothing_is_doubled(
    kafka: KafkaBroker, line: Line, went_beside: Callable[[Line], Outcome | None]
) -> None:
    outcome = went_beside(line)
    async with Bench(kafka) as bench:
        for seed in (1, 2, 3):  # a fault that hit nothing says nothing: once more
            if outcome is not None and (outcome.verdict != "void" or outcome.void.startswith("this machine")):
                break
            outcome = await line.outcome(bench, Scale.CI, seed=seed)
    assert outcome is not None
    print(table([outcome]))
    if outcome.void.startswith("this machine"):
        missing(outcome.void)
    assert outcome.verdict == "passed", table([outcome])
