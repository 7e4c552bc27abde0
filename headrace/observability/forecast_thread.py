"""`ForecastThread`: takes a sample every 5 s and keeps the newest forecast. The shell around `forecast.py`.

The event loop gives a snapshot for each sample, as it does for a scrape; everything else is this thread's. A forecast
that fails is reported once and then there is none: it watches, it never takes part.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace.observability.fan_out import Report
from headrace.observability.forecast import Forecast, Forecaster
from headrace.observability.forecast_sample import Facts, Totals, sample
from headrace.observability.snapshot import Snapshots

EVERY_S: Final = 5.0
_BREATH_S: Final = 0.00005  # lets the event loop have the interpreter


class ForecastThread(AbstractContextManager["ForecastThread"]):
    """Enter it on the event loop's thread, whose use of the CPU it measures. `snapshots` must be safe elsewhere."""

    def __init__(
        self,
        facts: Facts,
        totals: Callable[[], Totals],
        snapshots: Snapshots,
        report: Report,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._forecaster = Forecaster(facts)
        self._totals = totals
        self._snapshots = snapshots
        self._report = report
        self._every_s = every_s
        self._busy_s: Callable[[], float] = lambda: 0.0
        self._newest: Forecast | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def newest(self) -> Forecast | None:
        """From any thread. None in the first seconds, and for some after partitions have moved."""
        return self._newest

    def __enter__(self) -> Self:
        self._busy_s = busy_clock()
        self._thread = threading.Thread(target=self._watch, name="headrace-forecast", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()  # not joined: it may be waiting for the loop, which is ours; it ends by itself within a second

    def _watch(self) -> None:
        try:
            while not self._stop.wait(self._every_s):
                now, totals = self._snapshots(), self._totals()
                self._forecaster.add(sample(now, totals, at_s=time.monotonic(), busy_s=self._busy_s()))
                self._newest = self._forecaster.forecast(lambda: time.sleep(_BREATH_S))
        except Exception as error:  # noqa: BLE001 - an observer never takes part
            self._newest = None
            self._report(type(self).__name__, "forecast", error)


def busy_clock() -> Callable[[], float]:
    """For the calling thread: seconds that it has used of a CPU, and on Linux also those that it waited for one.

    So a thread that always wants to run is busy all the time, however many others share the machine.
    """
    clock = time.pthread_getcpuclockid(threading.get_ident()) if hasattr(time, "pthread_getcpuclockid") else None
    statistics = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

    def busy_s() -> float:
        try:
            on_cpu, waiting, _ = statistics.read_text().split()
            return (int(on_cpu) + int(waiting)) / 1e9
        except (OSError, ValueError):
            try:
                return time.process_time() if clock is None else time.clock_gettime(clock)
            except OSError:  # the thread has ended
                return 0.0

    return busy_s
