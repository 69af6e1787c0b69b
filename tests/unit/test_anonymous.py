"""What is personal in statements is replaced one to one, and nothing else changes."""

from __future__ import annotations

import pytest

from harness.scenarios.anonymous import Anonymous

SCHEMA = ["BEGIN IF v.status <> 'valid' THEN RETURN 'used up'; END IF; PERFORM p ->> 'name'; END", "'gold'"]

SAME = [
    "SELECT 1 FROM t WHERE status = 'valid' AND level = 'gold' AND n = 123456",
    "UPDATE t SET at = '2026-11-26 08:20:36.1+00', day = '2026-12-24', t = '12:30', ok = 'true', i = '30 days'",
    'SELECT "Ann" FROM ann WHERE ann.ann = $1',
    "SELECT '', 'x', NULL",
    "SELECT set_config('request.jwt.claims', '{\"sub\": \"x\"}', true), current_setting('app.tenant')",
    "SELECT at AT TIME ZONE 'Asia/Baku' FROM t",
]


@pytest.mark.parametrize("statement", SAME)
def test_what_is_nobodys_stays(statement: str) -> None:
    """Words that the schema knows, times, short numbers, names of tables, columns, settings and time zones."""
    assert Anonymous(SCHEMA, ["Asia/Baku"]).statement(statement) == statement


CHANGED = [
    # (statement, what becomes of it)
    (
        "SELECT 'Anne Smithy', 'anne', 'ANNE', '%smithy%', 'it''s Anne'",
        "SELECT 'Woaa Wordab', 'woaa', 'WOAA', '%wordab%', 'ac''s Woaa'",
    ),
    ("SELECT 'ann@hospital.org', 'Ann@hospital.org'", "SELECT 'person1@example.com', 'Person1@example.com'"),
    ("SELECT '10.1.2.3'::inet", "SELECT '192.0.2.2'::inet"),
    ("SELECT '+41 79 5551234', 5551234, 555123", "SELECT '+00 00 0000001', 1000001, 555123"),
    ("SELECT '2147483646', 2147483646, '-12345678.90'", "SELECT '1000000001', 1000000001, '-12345678.90'"),
    ("SELECT '4111 1111 1111 1111', 55512", "SELECT '0000 0000 0000 0001', 55512"),
    ("SELECT '55512', '\\xdeadbeef'::bytea", "SELECT '55512', E'\\\\x00000001'::bytea"),
    ("SELECT '5d41402abc4b2a76b9719d911017c592'", "SELECT '00000000000000000000000000000001'"),
    (
        "SELECT 'd87b5dc5-5fc7-4a96-bcd9-0f99800c8195'::uuid",
        "SELECT '00000000-0000-4000-8000-000000000001'::uuid",
    ),
    (
        "SELECT '{\"name\": \"Zoe\", \"note\": \"valid\"}' ->> 'name'",
        "SELECT '{\"name\": \"Waa\", \"woab\": \"valid\"}' ->> 'name'",
    ),
    ("SELECT E'Zo\\'e', $$Zo$$ -- Zoe\n", "SELECT 'Aa''e', 'Aa' \n"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "expected"), CHANGED)
def test_what_is_somebodys_is_replaced(statement: str, expected: str) -> None:
    """Equal stays equal, also in another case and as a part; different stays different; comments go.

    What stands there is no longer than what it stands for, and of its kind: it has to fit its column.
    """
    assert Anonymous(SCHEMA).statement(statement) == expected


def test_it_is_one_to_one() -> None:
    """Over many words, no two become one, and none becomes what the schema knows."""
    hide = Anonymous(["'waa', 'wab'"])
    words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrs"]
    words += [f"{a}{word}" for a in "aeiouxyz" for word in words]
    made = {hide.text(word) for word in words}
    assert len(made) == len(words)
    assert not made & {"waa", "wab"}
    for first in (5_000_000, 50_000_000):
        numbers = [str(number) for number in range(first, first + 3_000)]
        assert len({hide.text(number) for number in numbers}) == len(numbers)
