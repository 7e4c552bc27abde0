"""The nets together: what evades the scan is parked when it runs, by the interpreter that runs it in production."""

import pytest

from headrace.service.definitions.determinism_guard import stepping
from headrace.service.engine.interpreter import Interpreter
from headrace.service.engine.turn import Turn
from headrace.topics.errors import NotDeterministic
from headrace.topics.outcome import ParkReason
from tests.service.definitions.conftest import Load

SOURCE = """\
import asyncio, random, time, uuid
from headrace import Run, handler, workflow

@handler
async def charge(order: int) -> str:
    return "paid"

HIDDEN = {"time": time, "random": random, "uuid": uuid, "asyncio": asyncio}

@workflow()
async def fulfil(run: Run, order: int) -> object:
    hidden = HIDDEN
    BODY
"""


def first_turn(load: Load, body: str) -> tuple[Turn, NotDeterministic | None]:
    (flow,) = load(app=SOURCE.replace("BODY", body)).workflows
    interpreter = Interpreter(flow, run_id="1.abc", key="k", event=None, raw_input=b"3", began_at_ms=0)
    with stepping("1.abc") as step:
        turn = interpreter.replay([])
    with stepping("1.abc"):
        interpreter.close()
    return turn, step.violation


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('return hidden["time"].time()', "run.now()"),
        ('return hidden["random"].random()', "run.random()"),
        ('return str(hidden["uuid"].uuid4())', "run.uuid()"),
        ('await hidden["asyncio"].sleep(1)', "run.sleep"),
        ('await hidden["asyncio"].sleep(0)', "await"),
    ],
)
def test_what_the_scan_cannot_see_parks_the_run_and_names_the_right_call(load: Load, body: str, said: str) -> None:
    turn, _ = first_turn(load, body)
    assert turn.ended is None
    assert turn.parked is not None
    assert turn.parked.reason is ParkReason.NONDETERMINISTIC
    assert said in turn.parked.found


def test_a_body_that_swallows_the_refusal_is_seen_by_the_guard(load: Load) -> None:
    body = 'try: hidden["time"].time()\n    except BaseException: pass\n    await run.call(charge, order)'
    _, violation = first_turn(load, body)
    assert violation is not None
    assert violation.instead == "run.now()"


def test_a_body_that_keeps_the_rule_goes_on(load: Load) -> None:
    turn, violation = first_turn(load, "return await run.call(charge, order)")
    assert (turn.parked, violation) == (None, None)
    assert [step.ref for step in turn.issued] == ["/1/charge"]
