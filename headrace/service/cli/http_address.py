"""Whether a text that a user gave is an HTTP address. Nothing is asked there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult


def http_address(text: str) -> SplitResult | None:
    """Its parts: an http or https scheme, a host, and no port that cannot be. None: it is no such address."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if sound else None
