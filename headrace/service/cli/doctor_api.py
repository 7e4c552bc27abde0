"""What `headrace doctor` finds out about the port of API and console: it is free, ours already, somebody else's, or not allowed as it is set."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final

from headrace.service.cli.doctor_check import Check, State, failed
from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    from headrace.service.settings import ApiSettings

_CHECK: Final = "api port"
_TIMEOUT_S: Final = 3.0


def api_check(settings: ApiSettings) -> Check | None:
    """None where there is to be no API."""
    if not settings.enabled:
        return None
    from headrace.service.api.server import ApiPortTaken, bound

    place = f"{settings.host}:{settings.port}"
    try:
        with bound(settings):
            return Check(_CHECK, State.OK, f"{place} is free")
    except ApiPortTaken as error:
        if _answers(settings):
            return Check(_CHECK, State.OK, f"a Headrace answers at {place}")
        return Check(_CHECK, State.WARN, f"{place} is somebody else's", error.do, error.code)
    except SettingsError as error:
        return failed(_CHECK, error)


def _answers(settings: ApiSettings) -> bool:
    """Whether who listens there is a Headrace: it says so whatever it is asked, and whoever asks."""
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"{settings.base_path.rstrip('/')}/api/v1/about")
        return connection.getresponse().getheader("Server") == "headrace"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
