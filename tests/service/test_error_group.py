"""The one error that a group is told by."""

from headrace.service.error_group import first_error
from headrace.topics.errors import Fatal


def test_an_error_of_ours_goes_before_others_at_any_depth() -> None:
    ours = Fatal("stopped", code="HR9002", why="A test.", do="Nothing.")
    group = ExceptionGroup("tasks", [ValueError("first"), ExceptionGroup("inner", [KeyError("x"), ours])])
    assert first_error(group) is ours


def test_without_one_it_is_the_first_that_was_raised() -> None:
    first = ValueError("first")
    assert first_error(ExceptionGroup("tasks", [ExceptionGroup("inner", [first]), KeyError("second")])) is first
