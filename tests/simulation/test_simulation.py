"""Some hundred simulated clusters, the plans that failed once, and the harness itself."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest

from headrace.service.fault_point import FaultPoint
from tests.project.repository import ROOT
from tests.simulation.__main__ import kept, main
from tests.simulation.clock import places_of_clocks, virtual
from tests.simulation.loop import Deadlock, Life, Place, SimLoop
from tests.simulation.plan import RARE, AtPoint, Plan, plan_of
from tests.simulation.world import simulate

SEEDS = 200
KEPT = kept()


@pytest.mark.slow
def test_clusters_keep_their_promises_under_faults(tmp_path: Path) -> None:
    """In processes of its own, under a fixed hash seed: what fails here fails the same with `python -m tests.simulation --seed N`."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS)]
    ended = subprocess.run(
        [*command, "--twice", "10", "--json", str(figures)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(figures.read_text())
    assert found["seeds"] == SEEDS
    assert found["faults_fired"] > found["seeds"]
    assert found["stale_records"] > 0  # zombies had something to say
    assert found["states_compared"] > 10 * found["seeds"]
    assert found["points_struck"] >= 24
    assert min(found["results_of_children"], found["children_given_up"]) > SEEDS / 4


@pytest.mark.parametrize("count", ["0", "-5"])
def test_no_seeds_are_no_verdict(count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--seeds", count])
    assert ended.value.code == 2


@pytest.mark.parametrize("name", KEPT)
def test_a_plan_that_failed_once_fails_no_more(name: str) -> None:
    report = simulate(KEPT[name])
    assert report.violations == [], report.dump


@pytest.mark.parametrize("profile", RARE)
def test_a_run_log_that_is_not_what_it_was_is_noticed(profile: str) -> None:
    """Its tail is lost, or all of it is another one: what a seed draws only now and then."""
    reports = [simulate(plan_of(seed, profile)) for seed in range(14)]
    assert [report.violations for report in reports] == [[]] * len(reports)
    assert sum(report.fired.get(profile, 0) for report in reports) >= 4


def test_what_a_seed_draws_now_and_then_does_not_move_what_it_draws_anyway() -> None:
    drawn = {profile: plan_of(11, profile) for profile in ("", *RARE)}
    assert drawn[""].faults == [fault for fault in drawn["remake"].faults if fault.kind != "remake"]
    assert drawn[""].arrivals == drawn["truncate"].arrivals == drawn["remake"].arrivals
    rare = Counter(fault.kind for seed in range(2_000) for fault in plan_of(seed).faults)
    assert 0 < rare["remake"] < rare["truncate"] < 100


def test_a_seed_gives_one_trace() -> None:
    """In processes of their own, as `make sim` has them: what other tests left behind in this one is not the plan's."""
    code = (
        "from tests.simulation.plan import plan_of; from tests.simulation.world import simulate; "
        "print(*[simulate(plan_of(seed)).trace for seed in (3, 4, 3)])"
    )
    traces = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert traces[0] == traces[1]
    assert traces[0][0] == traces[0][2] != traces[0][1]


def test_a_quiet_plan_comes_to_its_answer_without_a_repetition() -> None:
    plan = next(plan for plan in map(plan_of, range(1000)) if not plan.faults and len(plan.arrivals) > 5)
    report = simulate(plan)
    assert report.violations == []
    assert report.effects > 5


def test_a_crash_leaves_no_word_to_the_dead() -> None:
    """No `finally`, no `except` and no callback of a dead place runs, not even if its future is answered."""
    loop = SimLoop(Random(1))
    said: list[str] = []
    place = Place("victim")

    async def victim() -> None:
        try:
            await asyncio.sleep(1)
            said.append("awake")
        finally:
            said.append("finally")

    async def world() -> None:
        task = loop.create_task(victim(), context=place.context)
        await asyncio.sleep(0.5)
        place.life = Life.DEAD
        await asyncio.sleep(100)
        assert said == []
        place.life = Life.RUNNING  # only to clear it away
        loop.go_on(place)
        await task

    loop.run_until_complete(world())
    loop.close()
    assert said == ["awake", "finally"]


def test_nothing_left_to_do_is_a_deadlock() -> None:
    loop = SimLoop(Random(1))
    with pytest.raises(Deadlock):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_hours_pass_at_once_and_nothing_real_can_be_reached() -> None:
    loop = SimLoop(Random(1))

    async def body() -> None:
        await asyncio.sleep(36_000)
        with pytest.raises(NotImplementedError):
            await asyncio.to_thread(lambda: None)
        with pytest.raises(NotImplementedError):
            await asyncio.open_connection("127.0.0.1", 9)
        with pytest.raises(NotImplementedError):
            await asyncio.create_subprocess_exec("true")

    loop.run_until_complete(body())
    assert loop.time() == 36_000
    loop.close()


def test_every_clock_of_the_shell_is_virtual() -> None:
    """A module of the shell that reads a clock is found by itself; only these do."""
    plan_of(0)
    found = {module.__name__ for module, *_ in places_of_clocks()}
    assert {
        "headrace.topics.local_clock",
        "headrace.service.log_clock",
        "headrace.service.attempts",
        "headrace.service.owner",
    } <= found
    with virtual():
        for module, name, _, replacement in places_of_clocks():
            pytest.fail(f"{module.__name__}.{name} is still real: {replacement}")


def test_plans_are_plain_data() -> None:
    plan = plan_of(7)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    struck = {fault.point for seed in range(200) for fault in plan_of(seed).faults if isinstance(fault, AtPoint)}
    assert struck == set(FaultPoint)
