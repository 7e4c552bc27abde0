"""What no tracked file may say: where it was written, or from where packages came."""

import re

from tests.project.repository import ROOT, tracked_files

HOME_FOLDERS = re.compile(r"(?<![\w.~-])/(?:home/[a-z]|Users/[A-Za-z]|root/|work/)")
REGISTRIES = re.compile(
    r"(?i)\b(?:pypi\.(?:org|io)|files\.pythonhosted\.org|registry\.(?:npmjs|yarnpkg)\.\w+|repo\d*\.maven\.\w+"
    r"|(?:[\w-]+\.)+(?:jfrog|artifactory|nexus)\.[\w.]+)\b",
)
INDEX_OPTION = re.compile(r"^\s*(?:-i|--index-url|--extra-index-url|--find-links|--trusted-host)\b", re.MULTILINE)


def test_no_tracked_file_names_a_folder_of_somebodys_machine() -> None:
    assert mentions(HOME_FOLDERS) == []


def test_no_tracked_file_names_a_package_registry() -> None:
    assert mentions(REGISTRIES) == []


def test_the_locks_pin_versions_and_hashes_and_name_no_address() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert INDEX_OPTION.search(text) is None
        blocks = re.split(r"\n(?=[a-z0-9])", text.split("\n", 2)[2])
        assert len(blocks) > 10
        assert [
            block for block in blocks if not re.match(r"[\w.\[\]-]+==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", block)
        ] == []


def test_the_development_lock_agrees_with_the_runtime_lock() -> None:
    runtime, development = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: development.get(name) for name in runtime} == runtime


def test_what_must_not_be_said_is_recognised() -> None:
    assert HOME_FOLDERS.search("see /home/" + "jo/x")
    assert REGISTRIES.search("https://files.python" + "hosted.org/packages")
    assert REGISTRIES.search("https://" + "pypi" + ".org/simple")
    assert INDEX_OPTION.search("--index" + "-url http://somewhere/")
    assert not HOME_FOLDERS.search("docs/work/home, ./root/x and benchmarks/work/")


def mentions(pattern: re.Pattern[str]) -> list[str]:
    found: list[str] = []
    for file in tracked_files():
        text = file.read_bytes().decode(errors="replace")
        found += [f"{file.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    return found


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
