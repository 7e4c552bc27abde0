"""Where the workers of this machine show their metrics, and what they show.

Read with a bound on time and size; what cannot be read is a fact about that worker, not an error of the command.
"""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.service.cli.exit_code import Usage
from headrace.service.cli.http_address import http_address
from headrace.topics.log import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.settings import Settings

_TIMEOUT_S: Final = 3.0
_BYTES_MAX: Final = 32 << 20
_AT_ONCE: Final = 16


class Scrape(msgspec.Struct, frozen=True, kw_only=True):
    """One worker at one moment: the samples of each family's name with their labels. `failure`: why there is none."""

    worker: str
    url: str
    at_s: float
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    ready: bool = False
    status: str = ""  # ready, degraded, ...
    failure: str = ""

    def values(self, family: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of a family, by its name without `headrace_`."""
        return self.samples.get(f"headrace_{family}", [])


def workers_of(settings: Settings, urls: Sequence[str] = ()) -> dict[str, str]:
    """Addresses by worker: those given, else those that the process on the metrics port names in its `/discovery`.

    Raises LogUnavailable (exit code 6) if nothing answers there.
    """
    if urls:
        return {_place(url): _place(url) for url in urls}
    found = {worker: place for _, worker, place in _discovered(settings)}
    return found or {"0": _first(settings)}


def app_of_workers(settings: Settings) -> str | None:
    """The name of the app whose process is on the metrics port; None if it has no workers. Raises as `workers_of`."""
    return next((app for app, _, _ in _discovered(settings)), None)


def _first(settings: Settings) -> str:
    return f"{settings.telemetry.metrics_host}:{settings.telemetry.metrics_port}"


def _discovered(settings: Settings) -> list[tuple[str, str, str]]:
    """App, worker and address of each, as the process on the metrics port says."""
    first = _first(settings)
    try:
        groups: Any = msgspec.json.decode(_get(first, "/discovery")[1])
        return [(group["labels"]["app"], group["labels"]["worker"], group["targets"][0]) for group in groups]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise LogUnavailable(
            f"No worker answers at {first}: {error or type(error).__name__}.",
            why="Its metrics port tells where all workers of this machine are.",
            do="Start one, or name another with --metrics-port or --metrics-url.",
        ) from error


def scraped(workers: dict[str, str]) -> list[Scrape]:
    """All of them, at once."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(_scrape, workers, workers.values()))


def _scrape(worker: str, place: str) -> Scrape:
    from headrace.observability.scrape import samples_of

    at_s = time.monotonic()
    try:
        samples = samples_of(_get(place, "/metrics")[1].decode())
        code, health = _get(place, "/readyz?verbose")
        status = str(msgspec.json.decode(health).get("status", ""))
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return Scrape(worker=worker, url=place, at_s=at_s, failure=str(error) or type(error).__name__)
    return Scrape(worker=worker, url=place, at_s=at_s, samples=samples, ready=code == 200, status=status)


def _get(place: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(place, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(_BYTES_MAX + 1)
        if len(body) > _BYTES_MAX:
            raise ValueError(f"more than {_BYTES_MAX} bytes")
        return answer.status, body
    finally:
        connection.close()


def _place(url: str) -> str:
    parts = http_address(url if "://" in url else f"http://{url}")
    if parts is None or parts.scheme != "http":
        raise Usage(f"--metrics-url {url} is no address.", do="Write it as http://127.0.0.1:9464.")
    return parts.netloc
