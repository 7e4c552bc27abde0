"""The wheel, built as a release is: tree to sdist, sdist to wheel, wheel into an environment without a checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.kafka_broker.broker import free_port
from tests.project.repository import ROOT

DEMO_TIMEOUT_S = 180  # a bound against hanging, not a measurement


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from an sdist, with the build back end of the lock."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)], cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of executables of an environment that holds the wheel; the libraries are those of this test run.

    The path to them is added after the installation: pip must not meet the editable Headrace that lives among them.
    """
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False, symlinks=True)
    executables = root / "bin"
    install = [sys.executable, "-m", "pip", "--python", str(executables / "python"), "install", "--quiet", "--no-deps"]
    run([*install, "--no-index", str(wheel)], cwd=root)
    (packages,) = root.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return executables


def test_the_wheel_holds_the_package_as_it_is_in_the_tree(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = {name for name in names if ".dist-info/" not in name}
    tree = files_below("headrace", as_if="headrace") | files_below("examples/orders", as_if="headrace/_examples/orders")
    assert packaged == tree
    assert "headrace/py.typed" in packaged


def test_the_sdist_has_what_its_makefile_calls(wheel: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        executable = {member.name.partition("/")[2]: bool(member.mode & 0o100) for member in archive.getmembers()}
    called = set(re.findall(r"scripts/[a-z-]+", (ROOT / "Makefile").read_text()))
    assert called
    assert called <= {name for name, runs in executable.items() if runs}
    assert "benchmarks/__main__.py" in executable


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    fields = Parser().parsestr(archive.read(metadata).decode())
    assert fields["Requires-Python"] == ">=3.11"
    assert fields["License-Expression"] == "Apache-2.0"
    assert {"avro", "otlp-grpc", "postgres", "uvloop"} == set(fields.get_all("Provides-Extra", []))
    licence = metadata.replace("METADATA", "licenses/LICENSE")
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_the_installed_package_is_the_wheels(environment: Path, tmp_path: Path) -> None:
    code = "import headrace, importlib.util as u; print(headrace.__file__); print(u.find_spec('handlers'))"
    file, link = run([str(environment / "python"), "-c", code], cwd=tmp_path).splitlines()
    assert Path(file).is_relative_to(environment.parent)
    assert link == "None"


def test_an_editable_install_exposes_the_package_by_a_finder_and_copies_nothing(tmp_path: Path) -> None:
    """A folder `headrace` in site-packages would stand beside the real one; a path entry would offer the links."""
    code = f"import hatchling.build as b; print(b.build_editable({str(tmp_path)!r}))"
    name = run([sys.executable, "-c", code], cwd=ROOT).split()[-1]
    archive = zipfile.ZipFile(tmp_path / name)
    files = {file for file in archive.namelist() if ".dist-info/" not in file}
    assert files == {"_editable_impl_headrace.pth", "_editable_impl_headrace.py"}
    assert archive.read("_editable_impl_headrace.pth").decode().strip() == "import _editable_impl_headrace"


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_outside_the_checkout(environment: Path, tmp_path: Path) -> None:
    said = run([str(environment / "headrace"), "demo", "--metrics-port", str(free_port())], cwd=tmp_path)
    assert "succeeded" in said
    assert list(tmp_path.iterdir()) == []  # it works in a temporary folder of its own


def files_below(folder: str, *, as_if: str) -> set[str]:
    """Files that belong to the package, by their name in the wheel."""
    left_out = {"__pycache__", ".headrace", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    root = ROOT / folder
    files = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return {f"{as_if}/{file.as_posix()}" for file in files if not left_out & set(file.parts)}


def run(command: list[str], *, cwd: Path) -> str:
    """Standard output of a command that must succeed, in an environment without hints to the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
