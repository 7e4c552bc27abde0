"""Five minutes of load beside the other tests: memory stays flat. An hour of it is on demand (`make chaos SOAK=3600`)."""

import pytest

from tests.chaos.lines.soak import slope
from tests.chaos.report import table
from tests.chaos.soak_beside import SoakBeside


def test_steps_and_waves_are_no_growth_and_a_leak_is() -> None:
    runs = range(0, 12_000, 100)
    waves = [(done, 90_000_000 + 400_000 * (done // 100 % 7)) for done in runs]
    step = [(done, resident + (1_000_000 if done > 9_000 else 0)) for done, resident in waves]
    leak = [(done, resident + 1_024 * done) for done, resident in waves]
    assert abs(slope(waves)) < 50
    assert abs(slope(step)) < 200
    assert 900 < slope(leak) < 1_150


@pytest.mark.slow
def test_memory_stays_flat_over_five_minutes(soak: SoakBeside) -> None:
    outcome = soak.outcome()
    print(table([outcome]))
    assert outcome.verdict == "passed", table([outcome])
