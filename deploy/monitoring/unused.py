"""Families that no dashboard shows, each with the reason; a test holds this together with the table."""

from typing import Final

UNUSED: Final[dict[str, str]] = {}
