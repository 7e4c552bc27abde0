"""The protocol and the observers that are no back end: nothing, and several as one."""

import typing

import msgspec
import pytest

from headrace.observability import told_event, told_run
from headrace.observability.fan_out import FanOut
from headrace.observability.observer import HOOKS, Observer
from headrace.observability.silent import Silent
from tests.observability.workload import ONE_OF_EACH, tell_all


def test_the_workload_of_these_tests_has_every_hook() -> None:
    assert tuple(ONE_OF_EACH) == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_takes_one_frozen_struct_and_silence_knows_it(hook: str) -> None:
    hints = typing.get_type_hints(getattr(Observer, hook))
    assert hints.pop("return") is type(None)
    (struct,) = hints.values()
    assert issubclass(struct, msgspec.Struct)
    assert struct.__struct_config__.frozen
    assert hook in vars(Silent)
    assert isinstance(ONE_OF_EACH[hook], struct)


class Recorder(Silent):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def run_resumed(self, resumed: told_run.RunResumed, /) -> None:
        self.seen.append(resumed)

    def output_resent(self, resent: told_event.OutputResent, /) -> None:
        self.seen.append(resent)


class Failing(Silent):
    def run_resumed(self, resumed: told_run.RunResumed, /) -> None:
        raise ZeroDivisionError


class Reports(list[tuple[str, str, Exception]]):
    def __call__(self, observer: str, hook: str, error: Exception) -> None:
        self.append((observer, hook, error))


def test_each_observer_is_told_what_it_listens_to() -> None:
    first, second = Recorder(), Recorder()
    tell_all(FanOut([first, second], Reports()))
    assert first.seen == second.seen == [ONE_OF_EACH["run_resumed"], ONE_OF_EACH["output_resent"]]


def test_nobody_listening_is_fine_and_known() -> None:
    nobody = FanOut([], Reports())
    tell_all(nobody)
    assert not any(nobody.listens(hook) for hook in HOOKS)
    assert [hook for hook in HOOKS if FanOut([Recorder()], Reports()).listens(hook)] == ["run_resumed", "output_resent"]


@pytest.mark.parametrize("others", [0, 1, 2])
def test_an_observer_that_raises_is_reported_once_and_switched_off(others: int) -> None:
    reports, recorders = Reports(), [Recorder() for _ in range(others)]
    fan_out = FanOut([Failing(), *recorders], reports)
    for _ in range(3):
        fan_out.run_resumed(ONE_OF_EACH["run_resumed"])
    assert [(observer, hook, type(error)) for observer, hook, error in reports] == [
        ("Failing", "run_resumed", ZeroDivisionError)
    ]
    assert fan_out.observers == tuple(recorders)
    assert all(len(recorder.seen) == 3 for recorder in recorders)


def test_a_report_that_raises_hurts_nobody() -> None:
    def report(observer: str, hook: str, error: Exception) -> None:
        raise error

    recorder = Recorder()
    fan_out = FanOut([Failing(), recorder], report)
    fan_out.run_resumed(ONE_OF_EACH["run_resumed"])
    assert len(recorder.seen) == 1


def test_an_observer_inside_a_fan_out_inside_a_fan_out_is_told() -> None:
    recorder = Recorder()
    outer = FanOut([FanOut([recorder], Reports())], Reports())
    outer.run_resumed(ONE_OF_EACH["run_resumed"])
    assert len(recorder.seen) == 1
