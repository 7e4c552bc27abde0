"""A restart anywhere changes nothing: random programs, random histories, cut at every place."""

from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import Cancelled, Run, TaskFailed, workflow
from headrace.service.engine.fold import fold
from headrace.service.engine.instruction import Probe, Proven, ReadAnew, Scheduled, Send
from headrace.service.engine.step import CallStep, TimerStep
from headrace.topics.command import OnConflict
from headrace.topics.outcome import TimerFired
from headrace.topics.run_record import decode
from tests.service.engine.driver import Driver, empty_state, refold
from tests.service.engine.handlers import other, undo, undo_other, work

# --- random programs: a workflow that interprets its input ------------------------------------------------------------

Block = list[dict[str, Any]]


def block(chance: Random, depth: int = 3) -> Block:
    return [item(chance, depth) for _ in range(chance.randint(1, 4))]


def item(chance: Random, depth: int) -> dict[str, Any]:
    kinds = ["call"] * 6 + ["sleep", "emit", "chance", "forget", "raise"]
    if depth > 0:
        kinds += ["gather", "race", "map", "try"] * 2
    match chance.choice(kinds):
        case "gather" | "race" as group:
            return {"do": group, "blocks": [block(chance, depth - 1) for _ in range(chance.randint(1, 3))]}
        case "map":
            return {"do": "map", "block": block(chance, depth - 1), "items": chance.randint(0, 4)}
        case "try":
            return {"do": "try", "block": block(chance, depth - 1), "clean": block(chance, 0)}
        case leaf:
            return {"do": leaf, "flag": chance.random() < 0.5}


async def play(run: Run, block: list[Any]) -> int:
    done = 0
    for item in block:
        match item["do"]:
            case "call":
                await run.call(work, done, compensate=undo if item["flag"] else None)
            case "sleep":
                await run.sleep("10ms")
            case "emit":
                await run.emit("e", done, topic="out")
            case "chance":
                run.random()
            case "forget":
                step = run.call(other, done, compensate=undo_other)
                if item["flag"]:
                    await run.sleep("1ms")
                    step.cancel()
            case "raise":
                raise ValueError("as told")
            case "gather":
                await run.gather(*[play(run, block) for block in item["blocks"]])
            case "race":
                await run.race(*[play(run, block) for block in item["blocks"]])
            case "map":
                await run.map(lambda _, block=item["block"]: play(run, block), range(item["items"]), concurrency=2)
            case "try":
                try:
                    await play(run, item["block"])
                except (TaskFailed, ValueError, Cancelled):
                    await play(run, item["clean"])
            case _:
                raise AssertionError(item)
        done += 1
    return done


@workflow(name="program")
async def program(run: Run, block: list[Any]) -> int:
    return await play(run, block)


def _act(driver: Driver, chance: Random, runs: list[str]) -> None:
    """Do one thing that can happen now."""
    options: list[tuple[str, str, str]] = []
    for run, live in driver.live.items():
        for ref in driver.open(run):
            step = live.open[ref]
            if isinstance(step, CallStep):
                options += [("succeed", run, ref)] * 8 + [("retry", run, ref), ("fail", run, ref)]
            elif isinstance(step, TimerStep):
                options += [("fire", run, ref)] * 8 + [("early", run, ref)]
    if chance.random() < 0.1:
        options += [("cancel", run, "") for run in runs] + [("time_out", run, "") for run in runs[:1]]
    options += [("refuse", entry, "") for entry in driver.state.outbox] + [
        ("sent", entry, "") for entry in driver.state.outbox
    ]
    options += [("restart", "", ""), ("crash", "", ""), ("read", "", "")]
    what, run, ref = chance.choice(options)
    driver.now_ms += chance.randint(0, 7)
    match what:
        case "succeed":
            driver.succeed(run, ref, chance.randint(0, 9))
        case "retry":
            driver.fail(run, ref, retry_after_ms=chance.randint(0, 50))
        case "fail":
            driver.fail(run, ref)
        case "fire":
            driver.fire(run, ref)
        case "early":
            due_at_ms = driver.due[run, ref]
            driver.propose(TimerFired(run=run, step=ref, due_at_ms=due_at_ms), at_ms=due_at_ms - 1)
        case "cancel":
            driver.cancel(run)
        case "time_out":
            driver.time_out(run)
        case "refuse":
            driver.refuse(run)
        case "sent":
            driver.sent(run)
        case "restart":
            driver.restart()
        case "crash":
            driver.crash()
        case _:
            driver.read(1)


def history(seed: int) -> Driver:
    """What happens is drawn from a seed: programs and histories of some size, where strategies prefer empty ones."""
    chance = Random(seed)
    driver = Driver(program)
    policy = chance.choice([OnConflict.ALLOW, OnConflict.QUEUE, OnConflict.JOIN])
    runs = [driver.start(program, block(chance), key="k", policy=policy) for _ in range(chance.randint(1, 3))]
    hurry = chance.random()
    for _ in range(chance.randint(5, 60)):
        driver.auto = chance.random() < hurry
        _act(driver, chance, runs)
    driver.auto = True
    driver.read()
    return driver


seeds = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(seeds, st.integers(min_value=0))
def test_a_restart_anywhere_changes_nothing(seed: int, cut: int) -> None:
    """The driver has compared live and replayed interpreters after every record; here the state, from any place on."""
    driver = history(seed)
    log = driver.log
    cut %= len(log) + 1
    state = refold(log[:cut])
    assert refold(log[cut:], state) == driver.state == refold(log)


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(seeds)
def test_every_run_has_at_most_one_terminal_record_and_nothing_after_it(seed: int) -> None:
    driver = history(seed)
    assert all(len(endings) == 1 for endings in driver.endings.values())
    state = empty_state()
    over: set[str] = set()
    for offset, (at_ms, value) in enumerate(driver.log):
        folded = fold(state, offset, at_ms, len(value), decode(value))
        touched = {
            each.run.id
            for each in folded.instructions
            if not isinstance(each, Send | Probe | Proven | ReadAnew | Scheduled)
        }
        assert not touched & over
        over = {run for run in driver.endings if run not in state.runs and (run in over or run in touched)}


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(seeds)
def test_every_run_ends_once_its_steps_do(seed: int) -> None:
    """Nothing hangs: whatever the past, if all attempts succeed and all timers fire, all runs end."""
    driver = history(seed)
    driver.restart()
    for _ in range(500):
        todo = [(run, ref) for run in driver.live for ref in driver.open(run)]
        if not todo:
            break
        run, ref = todo[0]
        step = driver.live[run].open[ref]
        if isinstance(step, CallStep):
            driver.succeed(run, ref)
        else:
            assert isinstance(step, TimerStep), step
            driver.fire(run, ref)
    assert not driver.state.runs
    assert driver.state.slots == {}
