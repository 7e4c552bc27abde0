"""The command line as a whole: help, usage, exit codes, errors, pipes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.service.cli import command_line
from headrace.service.cli.exit_code import ExitCode
from headrace.service.cli.version import version
from tests.project.repository import ROOT
from tests.service.cli.conftest import Headrace

COMMANDS = list(command_line.names())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_that_names_the_common_options(headrace: Headrace, words: tuple[str, ...]) -> None:
    answer = headrace(*words, "--help")
    assert answer.code == 0
    assert f"Usage: headrace {' '.join(words)}" in answer.out
    if words not in {("init",), ("version",)}:
        for option in ("--config", "--set", "--bootstrap-servers", "--app-name", "--log-path", "--metrics-port", "-o"):
            assert option in answer.out


def test_help_lists_every_group_and_command(headrace: Headrace) -> None:
    top = headrace("--help")
    assert top.code == 0
    for words in COMMANDS:
        assert words[0] in top.out
    assert "publish" in headrace("event", "--help").out


def test_no_arguments_show_the_help(headrace: Headrace) -> None:
    assert "Usage: headrace COMMAND" in headrace().out


def test_version_is_one_line(headrace: Headrace) -> None:
    answer = headrace("--version")
    assert (answer.code, answer.out) == (0, f"headrace {version()}\n")
    assert headrace("version").lines[0] == f"headrace {version()}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run", "lst"],
        ["run", "list", "--nonsense"],
        ["run", "list", "-o", "xml"],
        ["run", "list", "--limit", "many"],
        ["run", "list", "--limit", "-1"],
        ["run", "list", "--status", "sleeping"],
        ["run", "list", "--since", "5"],
        ["run", "get"],
        ["run", "list", "--set", "app.name"],
        ["event", "publish", "orders"],
        ["event", "publish", "orders", "--data", "1", "--plain", "--type", "x"],
        ["dev", "app.py", "--limit", "3"],
        ["event", "tail", "orders", "--limit", "-1"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_says_why_on_stderr(headrace: Headrace, arguments: list[str]) -> None:
    answer = headrace(*arguments)
    assert answer.code == ExitCode.USAGE
    assert answer.out == ""
    assert answer.err.startswith("HR")
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("words", [words for words in COMMANDS if words not in {("init",), ("version",)}], ids=" ".join)
def test_an_unknown_setting_ends_every_command_with_7(headrace: Headrace, words: tuple[str, ...]) -> None:
    arguments = {word: ["0." + "a" * 20] for word in ("watch", "cancel", "resume", "retry", "dismiss")}
    named = arguments.get(words[-1], [])
    if words in {("run", "get"), ("run", "history"), ("workflow", "get")}:
        named = ["0." + "a" * 20]
    if words[0] == "approval" and words[1] != "list":
        named = ["0." + "a" * 20 + "-1-approval"]
    if words[0] == "dlq" and words[1] in {"get", "redrive", "resolve"}:
        named = ["orders.dlq/0/0"]
    if words[0] == "schedule" and words[1] != "list":
        named = ["report"]
    if words == ("topic", "rewind"):
        named = ["orders", "--to", "earliest"]
    if words[0] == "event":
        named = {
            "publish": ["orders", "--data", "1"],
            "match": ["orders", "--data", "1", "--app", "x"],
            "tail": ["orders"],
        }[words[1]]
    if words[0] in {"dev", "serve"}:
        named = ["app.py"]
    answer = headrace(*words, *named, "--set", "app.nmae=shop")
    assert answer.code == ExitCode.INVALID
    assert "app.nmae" in answer.out + answer.err
    assert "app.name" in answer.out + answer.err


def test_a_wrong_command_points_at_a_help_that_exists(headrace: Headrace) -> None:
    for arguments, help_ in ((["--nonsense"], "headrace --help"), (["run", "nonsense"], "headrace run --help")):
        assert f"See `{help_}`." in headrace(*arguments).err


def test_a_missing_embedded_log_is_unreachable(headrace: Headrace) -> None:
    answer = headrace("run", "list")
    assert answer.code == ExitCode.UNREACHABLE
    assert answer.err.startswith("HR5002")
    assert "--log-path" in answer.err
    assert "--bootstrap-servers" in answer.err


def test_a_topic_that_no_cluster_could_make_is_a_wrong_setting(headrace: Headrace) -> None:
    answer = headrace("topic", "create", "--set", "log.replication=3")
    assert answer.code == ExitCode.INVALID
    assert "log.replication" in answer.err


def test_a_bug_is_one_line_with_the_place_of_its_traceback(
    headrace: Headrace, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert command_line._bug(caught.value, []) == ExitCode.ERROR
    short = capfd.readouterr().err
    command_line._bug(caught.value, ["--debug"])
    long = capfd.readouterr().err
    assert short.startswith("HR9001")
    assert "Traceback" not in short
    file = Path(short.rsplit("Report it with ", 1)[1].strip().rstrip("."))
    assert "1 / 0" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    file.unlink()
    assert "1 / 0" in long


def test_a_reader_that_goes_away_is_no_error(here: Path) -> None:
    """`| head`: the exit code is 0 and stderr stays empty."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "config", "show", "--sources"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_no_bug(here: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "headrace", "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == ExitCode.ERROR
    assert done.stderr.startswith("HR1105")


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_streams_that_are_closed_are_no_error(here: Path, closed: tuple[int, ...]) -> None:
    shell = " ".join(("exec", '"$0"', "-m", "headrace", "version", *(f"{number}>&-" for number in closed)))
    done = subprocess.run(["bash", "-c", shell, sys.executable], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_version_and_help_import_nothing_heavy(here: Path) -> None:
    code = (
        "import sys; from headrace.__main__ import main; main([sys.argv[1]]);"
        "print(sorted({'cyclopts', 'pydantic', 'aiokafka', 'aiohttp'} & set(sys.modules)), file=sys.stderr)"
    )
    for argument, loaded in (("--version", "[]"), ("--help", "['cyclopts']")):
        done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == loaded


def test_no_colour_and_no_cutting_in_a_pipe(headrace: Headrace) -> None:
    name = "n" * 150
    answer = headrace("config", "show", "--set", f"app.name={name}")
    assert name in answer.out
    assert "\x1b" not in answer.out


def test_a_python_that_cannot_be_started_again_is_one_message(here: Path) -> None:
    code = "import sys; sys.executable = '/nonexistent/python'; from headrace.__main__ import main; sys.exit(main())"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    done = subprocess.run(
        [sys.executable, "-c", code, "dev", "app.py"], capture_output=True, text=True, check=False, env=environ
    )
    assert done.returncode == ExitCode.ERROR
    assert done.stderr.startswith("HR1005")
    assert "Traceback" not in done.stderr


def test_workflows_run_under_one_hash_seed(here: Path) -> None:
    """A set iterates alike in every process that replays a run."""
    (here / "app.py").write_text("import os, sys\nprint(os.environ['PYTHONHASHSEED'])\nsys.exit()\n")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    seeds = {
        subprocess.run(
            [sys.executable, "-m", "headrace", "dev", "app.py", "--metrics-port", "0"],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
        ).stdout
        for _ in range(2)
    }
    assert len(seeds) == 1
    assert seeds.pop().strip().isdecimal()


def test_every_command_and_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert [words for words in COMMANDS if f"`{' '.join(words)}" not in text] == []
    assert [code.value for code in ExitCode if f"\n| {code.value} |" not in text] == []
