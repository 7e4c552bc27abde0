"""The service-level objectives that alerts and the Overview hold runs to. Change them here, and generate."""

from typing import Final

SUCCESS_OBJECTIVE: Final = 0.99
"""Of the runs that end, cancelled ones aside, so many succeed."""
START_OBJECTIVE: Final = 0.99
START_WITHIN_S: Final = "5.0"
"""So many runs start within this time of their event; one of the buckets of run_start_delay_seconds, as a scrape spells it."""
FAILED: Final = "~failed|timed_out|compensated"
"""Statuses, as `metric.matcher` takes them."""
COUNTED: Final = "!cancelled"
"""A cancelled run is somebody's wish: neither good nor bad."""
BUDGET_WINDOW: Final = "30d"
