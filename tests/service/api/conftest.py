"""A service with an API, one process for all tests of a module."""

import asyncio
from pathlib import Path

import pytest

from tests.service.api.client import Client
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation, shared_station, station
from tests.service.end_to_end.station import Station

__all__ = ["shared_station", "station"]  # fixtures

APP = Path(__file__).parent / "shop.py"
ON = {"HEADRACE_API__ENABLED": "true"}


@pytest.fixture(scope="module")
def place(shared_station: MakeStation) -> Station:
    """A station whose newest process works."""
    made = shared_station(Backend("embedded"), APP, api__port=0)
    asyncio.run(made.spawn(env=ON).ready())
    return made


@pytest.fixture(scope="module")
def api(place: Station) -> Client:
    """Its API."""
    return Client(place.now.api_url)
