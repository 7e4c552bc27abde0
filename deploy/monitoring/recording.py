"""Recording rules: the two ratios that burn the error budgets, over the windows that the alerts look at."""

from typing import Any, Final

from deploy.monitoring.metric import full_name, matcher
from deploy.monitoring.objective import COUNTED, FAILED, START_WITHIN_S

WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
FAILURES: Final = "job_workflow:headrace_runs_failed:ratio_rate"
LATE_STARTS: Final = "job_workflow:headrace_runs_started_late:ratio_rate"


def recording_rules() -> list[dict[str, Any]]:
    """`...:ratio_rate5m` and so on, without a sample where nothing ended or started."""
    return [rule for window in WINDOWS for rule in (_failures(window), _late_starts(window))]


def _rate(name: str, window: str, *matchers: str) -> str:
    chosen = f"{{{', '.join(matchers)}}}" if matchers else ""
    return f"sum by (job, workflow) (rate({full_name(name)}{chosen}[{window}]))"


def _failures(window: str) -> dict[str, Any]:
    failed = _rate("runs_finished_total", window, matcher("status", FAILED))
    counted = _rate("runs_finished_total", window, matcher("status", COUNTED))
    return {"record": FAILURES + window, "expr": f"{failed} / ({counted} > 0)"}


def _late_starts(window: str) -> dict[str, Any]:
    in_time = _rate("run_start_delay_seconds_bucket", window, matcher("le", START_WITHIN_S))
    all_ = _rate("run_start_delay_seconds_count", window)
    return {"record": LATE_STARTS + window, "expr": f"1 - {in_time} / ({all_} > 0)"}
