"""The shell around the forecast: its own thread, its clock of the loop, its end."""

from __future__ import annotations

import threading

from headrace.observability.forecast_sample import Totals
from headrace.observability.forecast_thread import ForecastThread, busy_clock
from headrace.observability.snapshot import EMPTY, Snapshot
from tests.observability.queue_process import FACTS


def test_samples_become_a_forecast() -> None:
    enough = threading.Event()
    taken: list[Snapshot] = []

    def snapshots() -> Snapshot:
        taken.append(EMPTY)
        if len(taken) > 5:
            enough.set()
        return EMPTY

    reported: list[Exception] = []
    thread = ForecastThread(
        FACTS, Totals, snapshots, lambda _observer, _hook, error: reported.append(error), every_s=0.001
    )
    with thread:
        assert enough.wait(60)
    forecast = thread.newest()
    assert forecast is not None
    assert {use.resource for use in forecast.uses} == {"cpu", "slots", "broker"}
    assert reported == []


def test_a_forecast_that_fails_is_told_once_and_is_gone() -> None:
    told = threading.Event()
    reported: list[tuple[str, Exception]] = []

    def report(observer: str, _hook: str, error: Exception) -> None:
        reported.append((observer, error))
        told.set()

    def snapshots() -> Snapshot:
        raise LookupError("gone")

    with ForecastThread(FACTS, Totals, snapshots, report, every_s=0.001) as thread:
        assert told.wait(60)
    assert [(observer, type(error)) for observer, error in reported] == [("ForecastThread", LookupError)]
    assert thread.newest() is None


def test_the_clock_counts_what_its_thread_works_and_not_what_others_do() -> None:
    clock = busy_clock()
    before = clock()
    other: list[float] = []

    def work() -> None:
        mine = busy_clock()
        began = mine()
        while mine() - began < 0.05:
            sum(range(1000))
        other.append(mine() - began)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert other[0] >= 0.05
    assert clock() >= before
    while clock() - before < 0.01:  # ends only if the clock goes on while its thread works
        sum(range(1000))
