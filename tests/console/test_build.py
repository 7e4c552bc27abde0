"""The build that is checked in is what the sources give; the sources are typed, and their pure parts right."""

import json
import re
from pathlib import Path

import pytest

from tests.console.node import BUILT, CONSOLE, install, node


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    install()


def test_the_build_that_is_checked_in_is_what_the_sources_give(tmp_path: Path) -> None:
    """From another folder, so that it cannot depend on where it is made."""
    done = node(CONSOLE / "build.mjs", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    kept = {file.name: file.read_bytes() for file in BUILT.iterdir()}
    assert made.keys() == kept.keys()
    stale = [name for name in made if made[name] != kept[name]]
    assert stale == [], "make console, and check in what it makes"


def test_what_the_sources_say_fits_their_types() -> None:
    for project in (CONSOLE, CONSOLE / "tests"):
        done = node(CONSOLE / "node_modules" / "typescript" / "bin" / "tsc", "-p", project)
        assert done.returncode == 0, done.stdout


def test_the_pure_parts_are_right() -> None:
    done = node("--test", *sorted((CONSOLE / "tests").glob("*.test.ts")))
    assert done.returncode == 0, done.stdout
    passed = re.search(r"pass (\d+)", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 30


def test_the_build_holds_nothing_of_the_machine_and_no_script_in_the_page() -> None:
    for file in BUILT.iterdir():
        text = file.read_text()
        assert "sourceMappingURL" not in text
        assert str(CONSOLE.parent) not in text
    page = (BUILT / "index.html").read_text()
    assert re.findall(r"<script[^>]*>(.*?)</script>", page) == [""]
    assert "<style" not in page
    assert " style=" not in page
    assert page.count('<base href="/">') == 1  # the service puts its base path there


def test_nothing_in_the_sources_makes_markup_of_text() -> None:
    """Every string of the service becomes a text node: see src/element.ts."""
    dangerous = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc"
    )
    sources = sorted((CONSOLE / "src").rglob("*.ts"))
    assert len(sources) > 20
    assert [file.name for file in sources if dangerous.search(file.read_text())] == []


def test_the_lock_pins_every_library_and_names_no_address() -> None:
    text = (CONSOLE / "package-lock.json").read_text()
    assert "://" not in re.sub(r'"(?:url|funding)": "[^"]*"', "", text)
    packages = {name: facts for name, facts in json.loads(text)["packages"].items() if name}
    assert {"node_modules/esbuild", "node_modules/typescript"} <= packages.keys()
    assert [name for name, facts in packages.items() if "integrity" not in facts or "resolved" in facts] == []
