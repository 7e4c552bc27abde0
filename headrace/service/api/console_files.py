"""The web console's files: read once, served from memory, with what a browser needs to keep them and to trust nothing else.

Client routes such as `/runs/1.0a...` are answered with `index.html`. Nothing outside the folder is ever looked at: what is not in the table does not exist.
"""

from __future__ import annotations

from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace.service.api.route import Answer, no_such_path

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent / "console"
INDEX = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_BASE = b'<base href="/">'
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


_PAGES = frozenset({"runs", "workflows", "approvals", "schedules", "dead-letters"})


class _File(msgspec.Struct, frozen=True):
    body: bytes
    media_type: str
    tag: str


class ConsoleFiles:
    """All files of the folder. `base_path` ends with a slash."""

    def __init__(self, base_path: str, folder: Path = FOLDER) -> None:
        self._files: dict[str, _File] = {}
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            media_type = _TYPES.get(path.suffix)
            if media_type is None or not path.is_file():
                continue
            body = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            if name == INDEX:
                body = body.replace(_BASE, f'<base href="{base_path}">'.encode())
            self._files[name] = _File(body, media_type, f'"{blake2b(body, digest_size=12).hexdigest()}"')

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """The file at a path without its slash in front; a path without a suffix is a client route. ApiError: 404."""
        found = self._files.get(path)
        if found is None and "." not in path.rpartition("/")[2]:
            found = self._files.get(INDEX)
        if found is None and path.partition("/")[0] in _PAGES:  # ids and names may have dots
            found = self._files.get(INDEX)
        if found is None:
            raise no_such_path()
        kept = {"ETag": found.tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if found.tag in [tag.strip().removeprefix("W/") for tag in headers.get("If-None-Match", "").split(",")]:
            return Answer(body=b"", status=HTTPStatus.NOT_MODIFIED, headers=kept, media_type=found.media_type)
        return Answer(body=found.body, headers=kept, media_type=found.media_type)
