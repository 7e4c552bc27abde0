"""Stations for end-to-end tests: one broker a session, a name of its own for every app."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.station import Station

_numbers = itertools.count()
MakeStation = Callable[..., Station]


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "embedded":
        return Backend("embedded")
    return Backend("kafka", request.getfixturevalue("kafka").bootstrap_servers)


def _stations(folder: Callable[[str], Path]) -> Iterator[MakeStation]:
    made: list[Station] = []

    def make(backend: Backend, app: str | Path, **settings: object) -> Station:
        name = f"e2e{os.getpid()}.{next(_numbers)}"
        station = Station(backend, folder(name), name, app, settings)
        made.append(station)
        return station

    yield make
    for station in made:
        station.close()


@pytest.fixture
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStation]:
    """Makes stations for one test: `station(backend, "shop.py", worker__max_active_runs=200)`."""
    yield from _stations(tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def shared_station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStation]:
    """The same, for a process that all tests of a module share."""
    yield from _stations(tmp_path_factory.mktemp)
