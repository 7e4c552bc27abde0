"""Chaos of `make test` that takes none of the tests' time: it begins when the tests are known and is judged by the last ones."""

from collections.abc import Callable

import pytest

from tests.chaos.beside import Beside, lines_beside, soak_beside
from tests.chaos.line import Line, Outcome

_LINE = "test_nothing_is_lost_and_nothing_is_doubled"
_SOAK = "test_memory_stays_flat_over_five_minutes"
_LINES_S = 590.0
_soak = pytest.StashKey[Beside]()
_lines = pytest.StashKey[Beside]()


def _line_of(item: pytest.Item) -> Line | None:
    if not isinstance(item, pytest.Function) or item.originalname != _LINE:
        return None
    line = item.callspec.params["line"]
    assert isinstance(line, Line)
    return line


def pytest_collection_finish(session: pytest.Session) -> None:
    """With one test alone it begins when the fixture is asked for."""
    if len(session.items) < 2 or session.config.option.collectonly or session.testsfailed:
        return
    if any(item.name == _SOAK for item in session.items):
        session.config.stash[_soak] = soak_beside()
    lines = [line for line in map(_line_of, session.items) if line is not None and not line.alone]
    if len(lines) > 1:
        session.config.stash[_lines] = lines_beside(lines)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whatever ends the tests ends it."""
    for key in (_soak, _lines):
        beside = config.stash.get(key, None)
        if beside is not None:
            beside.close()


@pytest.fixture
def soak(kafka_available: None, pytestconfig: pytest.Config) -> Beside:
    """The one that runs beside the tests."""
    if _soak not in pytestconfig.stash:
        pytestconfig.stash[_soak] = soak_beside()
    return pytestconfig.stash[_soak]


@pytest.fixture
def went_beside(kafka_available: None, pytestconfig: pytest.Config) -> Callable[[Line], Outcome | None]:
    """What came of a line that ran beside the tests; None: it did not."""

    def outcome(line: Line) -> Outcome | None:
        beside = pytestconfig.stash.get(_lines, None)
        return None if beside is None or line.alone else beside.outcomes(_LINES_S).get(line.id)

    return outcome
