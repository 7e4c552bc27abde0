"""Which code is the app's own: what lies below its root, and is not an installed package."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_INSTALLED = {"site-packages", "dist-packages"}
_OURS = "headrace"


class OwnFiles:
    """Answers for one app root."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def has(self, file: str) -> bool:
        """Whether a source file belongs to the app."""
        path = _resolved(file)
        if path is None or not path.is_relative_to(self._root):
            return False
        return _INSTALLED.isdisjoint(path.relative_to(self._root).parts)

    def has_module(self, module: ModuleType) -> bool:
        """Whether a loaded module belongs to the app. Headrace itself never does, even if an app lies in its checkout."""
        name = getattr(module, "__name__", None)
        file = getattr(module, "__file__", None)
        if not isinstance(name, str) or not isinstance(file, str) or name.partition(".")[0] == _OURS:
            return False
        return name != "__main__" and self.has(file)


@lru_cache(maxsize=8192)
def _resolved(file: str) -> Path | None:
    if file.startswith("<"):
        return None
    return Path(os.path.realpath(file))
