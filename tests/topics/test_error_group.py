"""Errors that come together."""

from headrace.topics.error_group import first_error, leaves
from headrace.topics.errors import Fatal


def test_an_error_of_ours_goes_before_others_at_any_depth() -> None:
    ours = Fatal("stopped", code="HR9002", why="A test.", do="Nothing.")
    group = ExceptionGroup("tasks", [ValueError("first"), ExceptionGroup("inner", [KeyError("x"), ours])])
    assert first_error(group) is ours


def test_without_one_it_is_the_first_that_was_raised() -> None:
    first = ValueError("first")
    assert first_error(ExceptionGroup("tasks", [ExceptionGroup("inner", [first]), KeyError("second")])) is first


def test_an_error_that_is_no_group_is_its_own_leaf() -> None:
    error = ValueError("alone")
    assert list(leaves(error)) == [error]
