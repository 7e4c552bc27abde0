"""Five minutes of load beside the other tests: memory stays flat. An hour of it is on demand (`make chaos SOAK=3600`)."""

import pytest

from tests.chaos.beside import Beside
from tests.chaos.report import table


@pytest.mark.slow
@pytest.mark.late(4)
def test_memory_stays_flat_over_five_minutes(soak: Beside) -> None:
    [outcome] = soak.outcomes(patience_s=590).values()
    print(table([outcome]))
    assert outcome.verdict == "passed", table([outcome])
