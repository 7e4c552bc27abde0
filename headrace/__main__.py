"""The `headrace` command, also as `python -m headrace`.

`--version` is answered here, before anything large is imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, without the program's name; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        from headrace.service.cli.version import version

        sys.stdout.write(f"headrace {version()}\n")
        return 0
    from headrace.service.cli.command_line import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
