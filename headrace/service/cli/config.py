"""`headrace config`: what is set, and by whom."""

from typing import Annotated

from cyclopts import Parameter

from headrace.service.cli.option import Common, options
from headrace.service.cli.output import show
from headrace.service.cli.terminal_table import Column
from headrace.service.settings_source import FILE_NAME


def show_(
    *,
    sources: Annotated[bool, Parameter(help="Say where each value came from.", negative="")] = False,
    common: Common | None = None,
) -> None:
    """Show all settings; secrets are masked."""
    common = options(common)
    loaded = common.load()
    rows = [
        {"key": item.key, "value": item.value, **({"source": item.source} if sources else {})}
        for item in loaded.sourced
    ]
    columns = [Column("SETTING", "key"), Column("VALUE", "value")]
    show(rows, [*columns, Column("SOURCE", "source")] if sources else columns, common.output, name="key")


def path(*, common: Common | None = None) -> None:
    """Print the settings file that is read; nothing if there is none."""
    common = options(common)
    found = common.load().file
    if found is not None:
        print(found.resolve())
    else:
        import sys

        print(f"No {FILE_NAME} here; settings come from flags, environment and defaults.", file=sys.stderr)
