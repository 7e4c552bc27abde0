"""Loading a user's app for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service.cli.option import warn

if TYPE_CHECKING:
    from headrace.service.definitions.app import App


def loaded_app(app: str) -> App:
    """Import it (a module, a file or a folder) and say its warnings. `DefinitionError` for all that is wrong."""
    from headrace.service.definitions.loader import load_app

    found = load_app(app)
    for warning in found.warnings:
        warn(f"Warning {warning}")
    return found
