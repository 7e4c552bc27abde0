"""What is missing on a machine is seen: a skip with its reason, a failure where CI promised everything."""

import pytest

from tests.requirement import missing


def test_on_a_developers_machine_the_test_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Type: apt-get install java"):
        missing("No Java. Type: apt-get install java")


def test_with_ci_the_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="No Java"):
        missing("No Java.")
