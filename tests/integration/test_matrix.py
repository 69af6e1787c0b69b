"""`harness check --matrix`: what each isolation level makes of a scenario, without and with retry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.check import Checks
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.errors import UsageError
from harness.matrix import check_at_each_level
from harness.options import ISOLATION_LEVELS, Options
from harness.records import RunRecord, dumps, loads
from harness.reports import html, markdown, rows, terminal
from harness.scenarios import examples, reader
from harness.verdict.findings import Truth


@pytest.fixture(scope="module")
def checks(server: EmbeddedServer) -> Iterator[Checks]:
    with Template(server, [], []) as template:
        yield Checks(Options(timeout=5.0), server, template)


def tried(checks: Checks, folder: Path, text: str) -> RunRecord:
    path = folder / "tried.race.sql"
    path.write_text(text)
    return check_at_each_level(checks, reader.read(path), by=("explore",))


def levels(run: RunRecord) -> dict[str, dict[str, Any]]:
    return {each["level"]: each for each in run.details["matrix"]["levels"]}


@pytest.mark.parametrize("example", ["two_accounts_broken", "last_admin_broken"])
def test_a_level_mends_a_shipped_trade_and_another_does_not(example: str, checks: Checks, tmp_path: Path) -> None:
    """Write skew is broken at repeatable read, held at serializable by who retries; the file's own verdict stands."""
    run = tried(checks, tmp_path, examples.text(example))
    found = levels(run)
    assert run.truth is Truth.BROKEN
    assert {found[level]["with_retry"]["truth"] for level in ("read committed", "repeatable read")} == {"broken"}
    assert found["serializable"]["with_retry"]["truth"] == "held"
    assert found["serializable"]["without"]["anomaly"] == "unhandled 40001"
    assert 0 < found["serializable"]["with_retry"]["retried"] <= found["serializable"]["with_retry"]["tries"]
    assert found["read committed"]["with_retry"]["retried"] == 0


APART = """\
-- scenario: two people change rows of their own
-- setup
CREATE TABLE c (id int PRIMARY KEY, n int);
INSERT INTO c VALUES (1, 0), (2, 0);
-- session: one x 2
BEGIN;
SELECT n FROM c WHERE id = :number;
UPDATE c SET n = n + 1 WHERE id = :number;
COMMIT;
"""


def test_a_small_table_is_not_taken_for_a_costly_level(checks: Checks, tmp_path: Path) -> None:
    """Rows apart are retried only because so small a table is read whole: that is said, in every report."""
    run = tried(checks, tmp_path, APART)
    found = levels(run)["serializable"]
    assert found["with_retry"]["retried"] > 0 == found["by_index"]["retried"]
    record = loads(dumps(checks.record("harness check --matrix")))
    shown = "\n".join(line.text for line in terminal.screen(record, None))
    for report in (shown, html.page(record), markdown.comment(record)):
        assert "table too small: none with enable" in report
        assert "It holds at read committed: no other level is needed." in report
        assert "tries in which a session was retried" in report


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("-- -- --", "No level mends it: the SQL has to change."),
        ("-- -- -h", "serializable mends it where the application retries; read committed and repeatable read do not."),
        (
            "-- hh -h",
            "repeatable read mends it; serializable mends it where the application retries; read committed does not.",
        ),
        ("-h -h -h", "read committed, repeatable read and serializable mend it where the application retries."),
        ("hh -h -h", "It holds at read committed: no other level is needed."),
        (
            "?? ?? ??",
            "No level is shown to mend it: at read committed, repeatable read and serializable it is undecided.",
        ),
        ("-- -- -?", "No level is shown to mend it: at serializable it is undecided."),
        (
            "-? -? ?h",
            "serializable mends it where the application retries; read committed and repeatable read are undecided.",
        ),
    ],
)
def test_the_table_is_said_in_a_sentence(held: str, said: str) -> None:
    """What mends it alone, what mends it by retrying, and what does not."""
    cell = {"anomaly": "", "tries": 1, "retried": 0, "repeated": 0}
    made = [
        {"level": level, "by_index": cell}
        | {
            column: cell | {"truth": {"h": "held", "?": "undecided"}.get(sign, "broken")}
            for column, sign in zip(("without", "with_retry"), signs, strict=True)
        }
        for level, signs in zip(ISOLATION_LEVELS, held.split(), strict=True)
    ]
    details = {"check": {"name": "x"}, "matrix": {"retry": "40001 up to 5", "by": ["explore"], "levels": made}}
    table = rows.matrix(RunRecord("check", "sql", {}, None, None, (), details=details))
    assert table is not None
    assert table.sentence == said


NEEDS = """\
-- scenario: a function that works at one level only
-- isolation: serializable
-- retry: 40001 up to 9
-- setup
CREATE TABLE c (id int PRIMARY KEY, n int);
INSERT INTO c VALUES (1, 0);
CREATE FUNCTION more() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'serializable' THEN RAISE 'serializable, please'; END IF;
    UPDATE c SET n = (SELECT n FROM c) + 1;
END $$;
-- session: one x 2
SELECT more();
"""


def test_a_level_at_which_a_session_does_not_work_mends_nothing(checks: Checks, tmp_path: Path) -> None:
    """Who is refused at a level changes nothing there, and holds: it is not said that this level is enough."""
    run = tried(checks, tmp_path, NEEDS)
    found = levels(run)
    assert run.truth is Truth.HELD
    for level in ("read committed", "repeatable read"):
        assert found[level]["with_retry"]["truth"] == "undecided"
        assert found[level]["with_retry"]["anomaly"] == "a session fails there already when it is alone"
    assert found["serializable"]["with_retry"]["truth"] == "held"
    table = rows.matrix(run)
    assert table is not None
    assert table.sentence.startswith("serializable mends it where the application retries; read committed and")


ITSELF = """\
CREATE PROCEDURE more() LANGUAGE plpgsql AS $$
BEGIN
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;
    UPDATE c SET n = n + 1;
END $$;
-- session: one x 2
CALL more();
"""


def test_a_level_that_a_procedure_chooses_itself_is_kept(checks: Checks, tmp_path: Path) -> None:
    """What a session's text does not show is found where it is called."""
    text = APART.partition("-- session")[0] + ITSELF
    with pytest.raises(UsageError, match="a function that the sessions call chooses its isolation level itself"):
        tried(checks, tmp_path, text)


def test_a_level_that_a_session_chooses_itself_is_kept(checks: Checks, tmp_path: Path) -> None:
    """No other can be tried then: file and line, and nothing is run."""
    text = APART.replace("BEGIN;", "BEGIN ISOLATION LEVEL SERIALIZABLE;")
    before = len(checks.runs)
    with pytest.raises(UsageError, match=r"tried.race.sql:6: the session one-1 chooses its isolation level itself"):
        tried(checks, tmp_path, text)
    assert len(checks.runs) == before
