"""The table at the end of `headrace demo`: what became of the orders, and how long it took."""

from __future__ import annotations

from collections import Counter

from headrace.observability.label import BreakerState
from headrace.observability.silent import Silent
from headrace.observability.told_event import OutputSent
from headrace.observability.told_process import BreakerChanged
from headrace.observability.told_run import AttemptEnded, RunFinished


class DemoReport(Silent):
    """Counts while the demo runs; `show` prints the table to stdout."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._attempts = 0
        self._retries = 0
        self._opened: Counter[str] = Counter()
        self._delays_ms: list[float] = []

    def run_finished(self, finished: RunFinished, /) -> None:
        self._outcomes[f"{finished.workflow} {finished.status}"] += 1

    def attempt_ended(self, ended: AttemptEnded, /) -> None:
        self._attempts += 1
        self._retries += ended.retry_after_ms is not None

    def breaker_changed(self, changed: BreakerChanged, /) -> None:
        if changed.after is BreakerState.OPEN:
            self._opened[changed.breaker] += 1

    def output_sent(self, sent: OutputSent, /) -> None:
        if sent.result_delay_ms is not None:
            self._delays_ms.append(sent.result_delay_ms)

    def show(self) -> None:
        """Print the table."""
        rows = [(f"runs {outcome}", str(count)) for outcome, count in sorted(self._outcomes.items())]
        rows += [("attempts", str(self._attempts)), ("retries", str(self._retries))]
        rows.append(("breaker openings", ", ".join(f"{name} {n}" for name, n in sorted(self._opened.items())) or "0"))
        delays_ms = sorted(self._delays_ms)
        rows.append(("results", str(len(delays_ms))))
        rows += [
            (f"event to result, p{percent}", f"{_percentile(delays_ms, percent):,.0f} ms")
            for percent in (50, 95, 99)
            if delays_ms
        ]
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            print(f"{name:<{width}}  {value:>8}")


def _percentile(ordered: list[float], percent: int) -> float:
    """The nearest-rank percentile of at least one value."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
