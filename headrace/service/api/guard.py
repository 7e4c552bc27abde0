"""Who may ask: the token, the host that the request names, and where a browser says that it comes from. Pure.

Without a token anybody who reaches the port may do everything: so it listens on this machine only, and a page that a browser of this machine has loaded from
elsewhere is refused (DNS rebinding: its requests name another host; forged forms: they name another origin).
"""

from __future__ import annotations

import hmac
import ipaddress
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headrace.service.api.problem import CROSS_SITE, HOST_REFUSED, NOT_AUTHORISED, ApiError
from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.service.settings import ApiSettings

OPEN_TO_ALL = "HR1307"
TOKEN_MISSING = "HR1308"  # noqa: S105 - a code
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Made of the settings, once. SettingsError: everybody could do everything; a token is asked for and there is none."""

    def __init__(self, settings: ApiSettings) -> None:
        self._token: bytes | None = None
        local = is_loopback(settings.host)
        if settings.auth == "token":
            if settings.token is None or not settings.token.get_secret_value():
                raise SettingsError(
                    "api.auth = token, and there is no token.",
                    code=TOKEN_MISSING,
                    why="Nobody could ask for anything.",
                    do="Set api.token, best as HEADRACE_API__TOKEN_FILE.",
                )
            self._token = _digest(settings.token.get_secret_value())
        elif not local and not settings.allow_anonymous:
            raise SettingsError(
                f"The API would listen on {settings.host} for everybody, without a token.",
                code=OPEN_TO_ALL,
                why="Whoever reaches it can start and cancel runs and read their data.",
                do="Set api.auth = token and api.token; or api.host = 127.0.0.1; or say that it is meant: api.allow_anonymous = true.",
            )
        hosts = {name.lower() for name in settings.allowed_hosts}
        self._hosts: frozenset[str] | None = None
        if hosts or (local and self._token is None):
            self._hosts = frozenset({*hosts, settings.host.lower()})

    def check(self, method: str, headers: Mapping[str, str], *, token_needed: bool) -> None:
        """Let the request pass, or raise ApiError."""
        host = headers.get("Host", "")
        self._check_host(host)
        if method not in _SAFE:
            _check_origin(host, headers)
        if self._token is not None and token_needed:
            self._check_token(headers.get("Authorization", ""))

    def _check_host(self, host: str) -> None:
        if self._hosts is None:
            return
        name = _name_in(host)
        if name is not None and (name in self._hosts or is_loopback(name)):
            return
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            HOST_REFUSED,
            "The request names a host that this API does not answer to.",
            why="A page from elsewhere could reach it through a name of its own (DNS rebinding).",
            do="Ask for localhost; or list the name in api.allowed_hosts.",
        )

    def _check_token(self, given: str) -> None:
        scheme, _, token = given.partition(" ")
        assert self._token is not None  # noqa: S101 - asked by the caller
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(token.strip()), self._token):
            return
        raise ApiError(
            HTTPStatus.UNAUTHORIZED,
            NOT_AUTHORISED,
            "The request has no token, or a wrong one.",
            do="Send `Authorization: Bearer TOKEN`; the token is the setting api.token.",
            headers={"WWW-Authenticate": 'Bearer realm="headrace"'},
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a port on that host."""
    if host.lower() in {"localhost", "localhost."}:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_origin(host: str, headers: Mapping[str, str]) -> None:
    """What changes something comes from our own page, or from no browser."""
    origin = headers.get("Origin")
    if headers.get("Sec-Fetch-Site", "same-origin") in {"same-origin", "none"} and (
        origin is None or _place(origin) == host.lower()
    ):
        return
    raise ApiError(
        HTTPStatus.FORBIDDEN,
        CROSS_SITE,
        "The request comes from a page of another site.",
        why="Any page that somebody opens could act in their name.",
        do="Ask from the console, or from a program.",
    )


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name_in(host: str) -> str | None:
    """The name of a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
