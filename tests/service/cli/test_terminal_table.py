"""Tables on a terminal: nothing wraps, ids stay whole, what is missing is said."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.service.cli.terminal_table import GAP, Column, brief_time, fitted
from tests.service.cli.recorded import Recording

COLUMNS = (
    Column("RUN", "id"),
    Column("STATUS", "status"),
    Column("STARTED", "at", spare=1),
    Column("ATTEMPTS", "n", right=True, spare=2),
    Column("ERROR", "error"),
)
ID, AT = "5.d691903138450a65f7bc", "2026-11-21T12:00:28.892Z"


def width(columns: list[Column], lines: list[list[str]]) -> int:
    widths = [max(len(column.heading), *(len(line[i]) for line in lines)) for i, column in enumerate(columns)]
    return sum(widths) + len(GAP) * (len(widths) - 1)


def test_a_wide_terminal_shows_all_as_it_is() -> None:
    line = [ID, "failed", AT, "3", "raised: E"]
    assert fitted(COLUMNS, [line], 200) == (list(COLUMNS), [line], [])


def test_a_column_without_content_goes_and_is_not_missed() -> None:
    columns, lines, left_out = fitted(COLUMNS, [[ID, "succeeded", AT, "1", ""], [ID, "running", AT, "1", "-"]], 200)
    assert [column.heading for column in columns] == ["RUN", "STATUS", "STARTED", "ATTEMPTS"]
    assert lines[0] == [ID, "succeeded", AT, "1"]
    assert left_out == []


def test_times_lose_their_year_before_a_column_goes() -> None:
    columns, lines, left_out = fitted(COLUMNS, [[ID, "failed", AT, "3", "TaskFailed"]], 72)
    assert len(columns) == len(COLUMNS)
    assert lines[0][2] == "11-21 12:00:28.892"
    assert left_out == []


def test_what_can_be_spared_goes_most_spare_first_and_is_named() -> None:
    columns, _, left_out = fitted(COLUMNS, [[ID, "failed", AT, "3", "e" * 90]], 60)
    assert [column.heading for column in columns] == ["RUN", "STATUS", "ERROR"]
    assert left_out == ["ATTEMPTS", "STARTED"]


def test_a_long_text_is_cut_and_says_so_and_an_id_never_is() -> None:
    columns, lines, _ = fitted(COLUMNS, [[ID, "failed", AT, "3", "e" * 90]], 60)
    assert lines[0][0] == ID
    assert lines[0][-1].endswith("e…")
    assert width(columns, lines) == 60


@given(
    st.lists(st.lists(st.text("ab-", max_size=70), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(70, 200),
)
def test_every_table_fits_a_terminal_that_holds_the_id_and_ten_characters_a_column(
    lines: list[list[str]], terminal: int
) -> None:
    lines = [[line[0][:20], *line[1:]] for line in lines]
    columns, cells, _ = fitted(COLUMNS, lines, terminal)
    assert width(columns, cells) <= terminal
    assert all(len(line) == len(columns) for line in cells)


def test_only_times_are_shortened() -> None:
    assert brief_time(AT) == "11-21 12:00:28.892"
    assert brief_time("2026-11-21T12:00:28Z") == "11-21 12:00:28"
    assert brief_time(f"due {AT}") == f"due {AT}"


# --- a real terminal --------------------------------------------------------------------------------------------------


def on_a_terminal(columns: int, *arguments: str, **environ: str) -> list[str]:
    """Lines that the command writes to a pseudo terminal of so many columns."""
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    command = [sys.executable, "-m", "headrace", *arguments]
    with subprocess.Popen(command, stdout=inside, stderr=inside, env={**environment, **environ}):
        os.close(inside)
        read = bytearray()
        while True:
            try:
                part = os.read(outside, 65536)
            except OSError:  # EIO: the other side was closed
                break
            if not part:
                break
            read += part
    os.close(outside)
    return read.decode().splitlines()


@pytest.fixture
async def run(here: Path) -> str:
    async with Recording() as log:
        partition = await log.partition()
        return await partition.start(0, key="A-" + "k" * 70)


async def test_a_list_of_runs_fits_the_terminal(run: str) -> None:
    for terminal in (80, 100, 200):
        heading, line, *rest = on_a_terminal(terminal, "run", "list", NO_COLOR="1")
        assert max(map(len, (heading, line))) <= terminal
        assert line.startswith(run)
        assert all(text.startswith("Left out to fit: ") for text in rest)


async def test_headings_are_bold_unless_no_color_is_set(run: str) -> None:
    assert on_a_terminal(120, "run", "list")[0].startswith("\x1b[1mRUN")
    assert on_a_terminal(120, "run", "list", NO_COLOR="1")[0].startswith("RUN")


async def test_followed_events_fit_the_terminal(run: str) -> None:
    for terminal in (80, 140):
        lines = on_a_terminal(
            terminal, "event", "tail", "headrace.runs", "--from", "start", "--no-follow", NO_COLOR="1"
        )
        assert len(lines) == 3
        assert max(map(len, lines)) <= terminal
