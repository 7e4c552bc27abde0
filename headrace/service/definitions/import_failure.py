"""What to tell a user whose app could not be imported: their own file and line, and never a traceback of ours."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.service.definitions.definition_code import IMPORT_FAILED
from headrace.service.definitions.place import Place
from headrace.topics.errors import DefinitionError

if TYPE_CHECKING:
    from headrace.service.definitions.app_files import OwnFiles


def import_failure(error: BaseException, app: str, own: OwnFiles, folder: Path) -> DefinitionError:
    """The error to raise for what user code raised on import. A DefinitionError of a decorator keeps its words and gets its place."""
    place = _place(error, own)
    if isinstance(error, DefinitionError):
        known = (
            place is None or f"{place.file}:" in error.message or str(place).rpartition(":")[0] + ":" in error.message
        )
        message = error.message if known else f"{place}: {error.message}"
        return DefinitionError(message, code=error.code, why=error.why, do=error.do)
    where = "" if place is None else f"{place}: "
    return DefinitionError(
        f"{where}{app} cannot be imported: {_described(error)}",
        code=IMPORT_FAILED,
        why=_why(error, place, folder),
        do=_do(error),
    )


def _place(error: BaseException, own: OwnFiles) -> Place | None:
    """The innermost line of the app's own code; of a syntax error, the line that is wrong."""
    if isinstance(error, SyntaxError) and error.filename and own.has(error.filename):
        return Place(error.filename, error.lineno or 1)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if own.has(frame.filename)]
    return Place(frames[-1].filename, frames[-1].lineno or 1) if frames else None


def _described(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - user code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _why(error: BaseException, place: Place | None, folder: Path) -> str:
    reasons: list[str] = []
    line = "" if place is None else linecache.getline(place.file, place.line).strip()
    if line:
        reasons.append(f"The line is `{line}`.")
    if isinstance(error, ImportError | AttributeError):
        standard = sorted(file.stem for file in folder.glob("*.py") if _is_standard(file))
        if standard:
            names = ", ".join(f"{name}.py" for name in standard)
            reasons.append(f"{names} in {os.fspath(folder)} has the name of a standard module, so one hides the other.")
        if "relative import" in str(error):
            reasons.append("A file or folder is loaded as a script is: its modules are not in a package.")
    return " ".join(reasons)


def _do(error: BaseException) -> str:
    if isinstance(error, TypeError) and str(error).startswith("workflow() takes 0 positional arguments"):
        return 'Write @workflow() or @workflow(on=EventTrigger("orders")): it is called, and takes names only.'
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Install {error.name.partition('.')[0]} in this environment, or put its file beside the app."
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "Import without the dots, or give the app as a module, such as shop.app."
    return (
        "Mend that line; `python -c 'import ...'` of the module shows the whole traceback."
        if not isinstance(error, SyntaxError)
        else "Mend that line."
    )


def _is_standard(file: Path) -> bool:
    return file.stem in sys.stdlib_module_names and file.is_file()
