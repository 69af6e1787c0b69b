"""Scenario files are read strictly: what is meant is done, and what is misspelt is said with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.scenarios import reader
from harness.scenarios.scenario import Retry, Scenario
from harness.scenarios.variables import substituted

WHOLE = """\
-- scenario: the last seat goes to one person
-- Anything that begins with a capital is a comment.

-- setup
INSERT INTO seats (id) VALUES (1); -- never: is not a heading here
-- isolation: repeatable read

-- session: alice
-- as: authenticated {"sub": "a"}
-- retry: 40001 40P01 up to 5
BEGIN;
SELECT '
-- scenario: inside a string' AS a, $$
-- scenario: inside a body
$$ AS b; /* and
-- scenario: inside a comment */
COMMIT;

-- session: scanner x 2
-- isolation: serializable
SELECT take(:'session', :number)

-- never: a seat is sold twice
SELECT seat FROM sold GROUP BY seat HAVING count(*) > 1;
-- always:
SELECT count(*) <= 1 FROM sold;
-- busy: taken when error 55P03 LIKE '%lock%'
-- busy: when NOT ok
-- ignore: attempts because it is a log
-- judge: transactions
-- allow: write skew because two are enough
"""


def _read(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "last_seat.race.sql"
    path.write_text(text)
    return reader.read(path)


def test_every_heading_is_read(tmp_path: Path) -> None:
    """A file with every heading comes out as it was meant."""
    found = _read(tmp_path, WHOLE)
    assert (found.name, found.claim) == ("last_seat", "the last seat goes to one person")
    assert [statement.text for statement in found.setup] == ["INSERT INTO seats (id) VALUES (1)"]
    alice, first, second = found.sessions
    assert [statement.line for statement in alice.statements] == [11, 12, 17]
    assert alice.identity.role == "authenticated"
    assert alice.isolation == "repeatable read"
    assert alice.retry == Retry(frozenset({"40001", "40P01"}), 5)
    assert (first.name, second.variables) == ("scanner-1", {"session": "scanner-2", "number": "2"})
    assert first.isolation == "serializable"
    assert [(c.kind, c.claim) for c in found.conditions] == [("never", "a seat is sold twice"), ("always", "")]
    assert [(b.name, b.code, b.like, b.sql) for b in found.busy] == [
        ("taken", "55P03", "%lock%", ""),
        ("busy", "", None, "NOT ok"),
    ]
    assert (found.judge, found.ignored[0].name, found.allowed[0].anomaly) == ("transactions", "attempts", "write skew")


SHORT = "-- scenario: x\n-- session: a\nSELECT 1;\n"

WRONG = {
    "a heading misspelt": ("-- scenaro: x\n", ":1: There is no heading 'scenaro'", "write `scenario:`"),
    "a session's colon": ("-- scenario: x\n-- session alice\nSELECT 1;\n", ":2: '-- session alice' begins", "session:"),
    "setup misspelt": ("-- scenario: x\n-- setpu\nSELECT 1;\n", ":2: '-- setpu' is not a heading", "-- setup"),
    "an unknown heading": (SHORT + "-- expect: 3\n", ":4: There is no heading 'expect'", "begins with a capital"),
    "no claim": ("-- session: a\nSELECT 1;\n", ":1: The scenario has no claim", "-- scenario: "),
    "no session": ("-- scenario: x\n", ":1: The scenario has no session", "-- session: NAME"),
    "an empty session": ("-- scenario: x\n-- session: a\n", ":2: The session a has no statement", "below it"),
    "two of one name": (SHORT + "-- session: a\nSELECT 2;\n", ":4: Two sessions are named a", "x 2"),
    "a query that does not parse": (SHORT + "-- never: y\nSELEC 1;\n", ":5: 'SELEC 1' does not parse", "mend"),
    "a condition that does not parse": (SHORT + "-- busy: when status =\n", ":4: 'status =' does not parse", "mend"),
    "no moment": (
        SHORT + "-- now: tomorrow\n",
        ":4: 'tomorrow' is not a moment",
        "write `now: 2030-01-01 12:00:00+00`",
    ),
    "two moments": (SHORT + "-- now: 2030-01-01\n-- now: 2031-01-01\n", ":5: There are two lines `now:`", "keep one"),
    "an error without its code": (SHORT + "-- busy: when error\n", ":4: `error` alone", "busy: when error 55P03"),
    "no query": (SHORT + "-- never: y\nUPDATE t SET a = 1;\n", ":5: `never:` needs a query", "SELECT"),
    "two queries": (SHORT + "-- never: y\nSELECT 1; SELECT 2;\n", ":4: `never:` has 2 statements", "one query"),
    "busy without when": (SHORT + "-- busy: error 55P03\n", ":4: 'error 55P03' does not say when", "busy: when"),
    "no reason": (SHORT + "-- ignore: log\n", ":4: `ignore:` has no reason", "because"),
    "an unknown anomaly": (SHORT + "-- allow: lost updat because y\n", ":4: There is no anomaly", "`lost update`"),
    "an unknown unit": (SHORT + "-- judge: session\n", ":4: 'session' cannot be judged", "transactions"),
    "an unknown level": (SHORT + "-- isolation: snapshot\n", "'snapshot' is not an isolation level", "serializable"),
    "retry without a number": ("-- scenario: x\n-- retry: 40001\n", ":2: '40001' does not say", "up to 5"),
    "as below a statement": (SHORT + "-- as: anon\n", ":4: `as:` stands below a statement", "right below"),
    "a copy to nobody": ("-- scenario: x\n-- setup\nCOPY c TO STDOUT;\n", ":3: COPY to the client", "leave"),
    "a statement nowhere": ("SELECT 1;\n" + SHORT, ":1: A statement comes before the first heading", "setup"),
    "a statement below busy": (SHORT + "-- busy: when no row\nSELECT 1;\n", ":5: A statement stands below", "setup"),
    "an unclosed quote": ("-- scenario: x\n-- session: a\nSELECT 'a;\n", ":2: what follows this heading", "quote"),
    "nothing to judge": (SHORT + "-- judge: queries only\n", "leaves nothing to judge", "never:"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_line(case: str, tmp_path: Path) -> None:
    """A mistake is refused with file and line, what is wrong, and what to write."""
    text, what, next_step = WRONG[case]
    with pytest.raises(UsageError) as error:
        _read(tmp_path, text)
    assert str(tmp_path / "last_seat.race.sql") in error.value.what
    assert what in error.value.what
    assert next_step in error.value.next_step


def test_what_cannot_be_split_is_said_with_the_line_of_the_file(tmp_path: Path) -> None:
    """The line is counted from the beginning of the file, and not from the heading."""
    with pytest.raises(UsageError) as error:
        _read(tmp_path, SHORT + "-- session: b\nSELECT 1;\n\\! ls\n")
    assert "last_seat.race.sql:6: The backslash command" in error.value.tried


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SELECT :'a', :\"a\", :a", "SELECT 'o''x', \"o'x\", o'x"),
        ("SELECT b::text, c[1:2], c[:n], ':a', $$:a$$ -- :a", "SELECT b::text, c[1:2], c[3], ':a', $$:a$$ -- :a"),
        ("SELECT :'a'::text, :n::int, :unknown::int", "SELECT 'o''x'::text, 3::int, :unknown::int"),
        ("SELECT :unknown, '10:30'", "SELECT :unknown, '10:30'"),
    ],
)
def test_variables_are_psqls(text: str, wanted: str) -> None:
    """A variable is put in as a literal, a name or as it is; casts, slices, strings and unknown ones stay."""
    assert substituted(text, {"a": "o'x", "n": "3"}) == wanted
