"""The soak of `make test`: it begins when the tests are known and is judged by the last one, so that it takes none of their time."""

import pytest

from tests.chaos.soak_beside import SoakBeside

_NAME = "test_memory_stays_flat_over_five_minutes"
_soak = pytest.StashKey[SoakBeside]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """It comes last."""
    items.sort(key=lambda item: item.name == _NAME)


def pytest_collection_finish(session: pytest.Session) -> None:
    """With one test alone it begins when the fixture is asked for."""
    if len(session.items) > 1 and any(item.name == _NAME for item in session.items) and not _only_looks(session):
        session.config.stash[_soak] = SoakBeside()


def _only_looks(session: pytest.Session) -> bool:
    return bool(session.config.option.collectonly or session.testsfailed)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whatever ends the tests ends it."""
    soak = config.stash.get(_soak, None)
    if soak is not None:
        soak.close()


@pytest.fixture
def soak(kafka_available: None, pytestconfig: pytest.Config) -> SoakBeside:
    """The one that runs beside the tests."""
    if _soak not in pytestconfig.stash:
        pytestconfig.stash[_soak] = SoakBeside()
    return pytestconfig.stash[_soak]
