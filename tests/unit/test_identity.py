"""An identity is read from the words of `as:` and --run-as, and odd ones are turned down before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from harness.environment.identity import Identity
from harness.errors import UsageError


@pytest.mark.parametrize(
    ("text", "role", "claims"),
    [
        ("authenticated", "authenticated", None),
        ('authenticated {"sub": "a"}', "authenticated", {"sub": "a"}),
        ('  anon{"a": {"b": [1, null]}}  ', "anon", {"a": {"b": [1, None]}}),
        ('"Night Shift" {}', "Night Shift", {}),
        ('"a""b"', 'a"b', None),
    ],
)
def test_a_role_and_claims_are_read(text: str, role: str, claims: dict[str, Any] | None) -> None:
    """A role's name may be quoted, and claims may be left out."""
    read = Identity.read(text)
    assert (read.role, read.claims) == (role, claims)


@pytest.mark.parametrize(
    "text", ["", "{}", "two words", "a; DROP TABLE x", "a {", "a {nonsense}", "a [1]", 'a "b"', "none"]
)
def test_what_names_nobody_is_refused(text: str) -> None:
    """The error says how it is written."""
    with pytest.raises(UsageError, match=r"role|claims"):
        Identity.read(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"isolation": "chaos"},
        {"role": ""},
        {"settings": {"lock_timeout = 1; --": "1"}},
        {"claims": {"sub": object()}},
        {"claims": {"exp": float("nan")}},
        {"claims": ["a"]},
    ],
)
def test_what_cannot_be_applied_is_refused(wrong: dict[str, Any]) -> None:
    """Before anything runs."""
    with pytest.raises(UsageError):
        Identity(**wrong)


def test_a_report_names_an_identity_in_one_line() -> None:
    """Role, claims, isolation level and settings."""
    identity = Identity("anon", {"sub": "a"}, "serializable", {"lock_timeout": "1s"})
    assert str(identity) == 'anon {"sub": "a"}, serializable, lock_timeout=1s'
    assert str(Identity()) == "the owner"
