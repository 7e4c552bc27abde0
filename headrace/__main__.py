"""The `headrace` command, also as `python -m headrace`.

`--version` is answered here, before anything large is imported.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


_RUNS_WORKFLOWS = frozenset({"dev", "serve", "demo"})
_HASH_SEED = "1212498244"  # any fixed number: a set must iterate alike in every process that replays a run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, without the program's name; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_what_is_closed()
    if arguments == ["--version"]:
        from headrace.service.cli.version import version

        sys.stdout.write(f"headrace {version()}\n")
        return 0
    if argv is None and arguments and arguments[0] in _RUNS_WORKFLOWS:
        from headrace.service.stop_signal import ignore_level_signal

        ignore_level_signal()  # until the service is there: it would end us
        try:
            _fix_hash_seed()
        except OSError as error:
            sys.stderr.write(
                f"HR1005  Python cannot be started again with a fixed hash seed: {error}.\n"
                "Why     A set must iterate alike in every process that replays a run.\n"
                f"Do      Start with PYTHONHASHSEED={_HASH_SEED} in the environment.\n"
            )
            return 1
    from headrace.service.cli.command_line import run

    return run(arguments)


def _open_what_is_closed() -> None:
    """Started as `headrace ... >&-`: Python has no stream then, and the next file that is opened would get the number 1."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)  # noqa: FBT003 - of the standard library
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - until the end


def _fix_hash_seed() -> None:
    """Python reads the seed at its start only, so start again in the same process, before anything was done."""
    if os.environ.get("PYTHONHASHSEED", "random") == "random":
        os.environ["PYTHONHASHSEED"] = _HASH_SEED
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves, with our arguments


if __name__ == "__main__":
    sys.exit(main())
