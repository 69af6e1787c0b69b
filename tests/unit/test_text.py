"""Text from elsewhere, as it may be shown."""

from __future__ import annotations

import pytest

from harness.errors import HarnessError
from harness.text import LONGEST, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï, 日本\n\ttext", "plain, ünï, 日本\n\ttext"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\rb\x07\x08\x00", r"a\rb\x07\x08\x00"),
        ("two\r\nlines", "two\nlines"),
        ("\x9b31m", r"\x9b31m"),
        ("right\u202eto left", r"right\u202eto left"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    """Escapes, bells, returns, both kinds of control characters, changes of direction; once more changes nothing."""
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    """Also one that is longer only when it is shown."""
    cut = "... (cut: 5000 characters)"
    assert printable("x" * 5000, 100) == "x" * (100 - len(cut)) + cut
    assert len(printable("\x1b" * 90, 100)) <= 100


def test_an_error_shows_a_servers_words_and_does_not_send_them() -> None:
    """A migration may raise anything."""
    error = HarnessError("It failed.", tried="\x1b]0;title\x07" + "x" * 1_000_000)
    assert r"tried: \x1b]0;title\x07xxx" in str(error)
    assert len(str(error)) < 2 * LONGEST
