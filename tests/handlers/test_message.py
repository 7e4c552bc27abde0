import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.handlers.message import MESSAGE_BYTES_MAX, message_of, name_of, one_line


class Rude(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class NotText(Exception):
    def __str__(self) -> str:
        return 3  # noqa: PLE0307  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("a\r\nb", "a\\r\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x00\x85\u2028\u202e", "\\x00\\x85\\u2028\\u202e"),
        ("\ud800", "\\ud800"),
        ("é😀", "é😀"),
    ],
)
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert one_line(text) == expected


def test_what_was_cut_ends_with_an_ellipsis() -> None:
    assert one_line("a" * MESSAGE_BYTES_MAX) == "a" * MESSAGE_BYTES_MAX
    cut = one_line("a" * 1_000_000)
    assert cut.endswith("a…")
    assert len(cut.encode()) == MESSAGE_BYTES_MAX


@given(st.text(st.characters(codec=None)), st.integers(3, 50))
def test_any_text_becomes_a_bounded_printable_line(text: str, bytes_max: int) -> None:
    line = one_line(text, bytes_max=bytes_max)
    assert line.isprintable()
    assert len(line.encode()) <= bytes_max


def test_an_error_that_cannot_say_what_it_is_is_told_from_its_class() -> None:
    assert message_of(Rude()) == "(its text cannot be made: SystemExit)"
    assert message_of(NotText()) == "(its text cannot be made: TypeError)"


def test_a_group_says_what_is_inside() -> None:
    group = ExceptionGroup("two of", [ValueError("a\n"), ExceptionGroup("inner", [Rude()])])
    assert message_of(group) == (
        f"two of (2 sub-exceptions): ValueError: a\\n; {__name__}.Rude: (its text cannot be made: SystemExit)"
    )


def test_builtin_classes_are_named_short() -> None:
    assert name_of(ValueError()) == "ValueError"
    assert name_of(Rude()) == f"{__name__}.Rude"
    assert name_of(type("bad\nname" * 100, (Exception,), {})()).isprintable()
