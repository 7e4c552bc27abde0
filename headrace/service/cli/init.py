"""`headrace init`: a small app that runs, to be changed into one's own."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headrace.service.cli.exit_code import Conflict, Usage

FILES = ("app.py", "headrace.toml", "README.md")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def init(directory: Annotated[Path, Parameter(help="Where to write it; made if need be.")], /) -> None:
    """Write a small app, its settings and a README. Nothing is ever overwritten."""
    if directory.exists() and not directory.is_dir():
        raise Conflict(f"{directory} is a file.", do="Name a folder.")
    there = [name for name in FILES if (directory / name).exists()]
    if there:
        raise Conflict(
            f"{directory} has {', '.join(there)} already.",
            why="Files are never overwritten.",
            do="Choose another folder. Nothing was written.",
        )
    app = _NOT_IN_A_NAME.sub("-", directory.resolve().name).strip("-.") or "my-app"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            text = (files("headrace.service.cli") / "starter" / f"{name}.template").read_text(encoding="utf-8")
            with (directory / name).open("x", encoding="utf-8") as file:
                file.write(text.replace("@APP@", app))
    except OSError as error:
        raise Usage(f"{directory} cannot be written: {error.strerror}.", do="Choose another folder.") from None
    for name in FILES:
        print(directory / name)
