"""Where the history is kept: `history.url`, and what it means where it is not set. Knows no SQL library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from headrace.service.settings import Settings

_SQLITE = "sqlite:///"


def history_url(settings: Settings) -> str | None:
    """`sqlite:///path` or `postgresql://...`; None: there is no history. Unset: a file beside the embedded log, and none with Kafka."""
    from headrace.service.settings import Backend  # noqa: PLC0415 - it imports us

    url = settings.history.url
    if url is not None:
        text = url.get_secret_value()
        return None if text == "none" else text
    if settings.log.backend is not Backend.EMBEDDED:
        return None
    path = settings.log.path
    return f"{_SQLITE}{path.with_name(f'{path.stem}.history{path.suffix}')}"


def sqlite_path(url: str) -> str | None:
    """The file of an `sqlite:///` URL, as it is written (`%20` and the like are read); None for any other."""
    return unquote(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def shown(url: str) -> str:
    """The address for people: without user, password and parameters."""
    return re.sub(r"//[^@/]*@", "//", url.partition("?")[0])


def check(url: str) -> str:
    """The URL, if it is one. Raises `ValueError` with a reason that does not repeat it."""
    if url == "none" or url.startswith(("postgresql://", "postgres://")):
        return url
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return url
    raise ValueError("it should be postgresql://..., sqlite:///path, or `none`")
