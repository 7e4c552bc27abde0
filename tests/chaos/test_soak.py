"""Five minutes of load beside the other tests: memory stays flat. An hour of it is on demand (`make chaos SOAK=3600`)."""

import pytest

from tests.chaos.report import table
from tests.chaos.soak_beside import SoakBeside


@pytest.mark.slow
def test_memory_stays_flat_over_five_minutes(soak: SoakBeside) -> None:
    outcome = soak.outcome()
    print(table([outcome]))
    assert outcome.verdict == "passed", table([outcome])
