"""Every scenario runs with a handful of orders on a real broker and gives figures that fit together."""

from pathlib import Path

import pytest

from benchmarks.bench import Setup, measure
from benchmarks.machine import machine
from benchmarks.report import Report, keep, text
from benchmarks.scenario import Scenario, TargetName
from tests.kafka_broker.broker import KafkaBroker
from tests.project.test_text import HOME_FOLDERS, REGISTRIES

ONE_PROCESS = [TargetName.FLOOR, TargetName.KAFKA, TargetName.EMBEDDED]


@pytest.mark.slow
@pytest.mark.parametrize("target", [*ONE_PROCESS, TargetName.WORKERS_2])
async def test_a_burst_gives_each_order_one_result(target: TargetName, kafka: KafkaBroker) -> None:
    figures = await measure(Scenario(target, 0, 60, 0), setup(kafka))
    assert figures.sound, figures
    assert figures.runs_per_s > 0
    assert figures.peak_mib > 0
    assert figures.seconds_from_start is not None
    assert figures.seconds_from_start > figures.seconds > 0
    assert figures.delay_ms is None


@pytest.mark.slow
@pytest.mark.parametrize("target", ONE_PROCESS)
async def test_a_rate_gives_delays_from_the_due_time(target: TargetName, kafka: KafkaBroker) -> None:
    figures = await measure(Scenario(target, 40, 60, 20), setup(kafka))
    assert figures.sound, figures
    assert figures.delay_ms is not None
    assert figures.received_ms is not None
    assert figures.late_ms is not None
    assert 0 <= figures.delay_ms.p50 <= figures.delay_ms.p95 <= figures.delay_ms.p99 <= figures.delay_ms.max
    assert figures.late_ms.p50 >= 0
    assert figures.cpu_us_per_run > 0


async def test_the_report_shows_figures_and_names_no_place(kafka: KafkaBroker, tmp_path: Path) -> None:
    done = [await measure(scenario, setup(kafka)) for scenario in FLOOR]
    report = Report(machine=machine(), loads={"burst": 20}, settings=["log.partitions=4"], figures=done)
    file = keep(report, tmp_path)
    for written in (file.read_text(), (tmp_path / "latest.md").read_text()):
        assert "floor" in written
        assert "log.partitions=4" in written
        assert HOME_FOLDERS.search(written) is None
        assert REGISTRIES.search(written) is None
    assert "not sound" not in text(report)
    assert file.name.startswith(report.machine.date)


FLOOR = [Scenario(TargetName.FLOOR, 0, 20, 0), Scenario(TargetName.FLOOR, 20, 20, 0)]


def setup(kafka: KafkaBroker) -> Setup:
    return Setup(kafka.bootstrap_servers, kafka.pid)
