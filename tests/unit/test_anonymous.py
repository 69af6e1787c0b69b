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
]


@pytest.mark.parametrize("statement", SAME)
def test_what_is_nobodys_stays(statement: str) -> None:
    """Words that the schema knows, times, short numbers, names of tables and columns."""
    assert Anonymous(SCHEMA).statement(statement) == statement


CHANGED = [
    # (statement, what becomes of it)
    (
        "SELECT 'Ann Smith', 'ann', 'ANN', '%smith%', 'it''s Ann'",
        "SELECT 'Worda Wordb', 'worda', 'WORDA', '%wordb%', 'wordc''s Worda'",
    ),
    ("SELECT 'ann@hospital.org', 'Ann@hospital.org'", "SELECT 'person1@example.com', 'Person1@example.com'"),
    ("SELECT '10.1.2.3'::inet", "SELECT '192.0.2.2'::inet"),
    ("SELECT '+41 79 5551234', 5551234, 555123", "SELECT '+41 79 9000001', 9000001, 555123"),
    (
        "SELECT 'd87b5dc5-5fc7-4a96-bcd9-0f99800c8195'::uuid",
        "SELECT '00000000-0000-4000-8000-000000000001'::uuid",
    ),
    (
        "SELECT '{\"name\": \"Zoe\", \"note\": \"valid\"}' ->> 'name'",
        "SELECT '{\"name\": \"Worda\", \"wordb\": \"valid\"}' ->> 'name'",
    ),
    ("SELECT E'Zo\\'e', $$Zo$$ -- Zoe\n", "SELECT 'Worda''e', 'Worda' \n"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "expected"), CHANGED)
def test_what_is_somebodys_is_replaced(statement: str, expected: str) -> None:
    """Equal stays equal, also in another case and as a part; different stays different; comments go."""
    assert Anonymous(SCHEMA).statement(statement) == expected


def test_it_is_one_to_one() -> None:
    """Over many words, no two become one."""
    hide = Anonymous([])
    words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrs"]
    assert len({hide.text(word) for word in words}) == len(words)
    numbers = [str(number) for number in range(500_000, 503_000)]
    assert len({hide.text(number) for number in numbers}) == len(numbers)
