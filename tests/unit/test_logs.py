"""PostgreSQL's log is read as what its sessions sent, in each of its forms and languages; what cannot be is said."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest

from harness import UsageError
from harness.scenarios import logs
from harness.scenarios.log_words import LANGUAGES

Sent = list[tuple[str, list[tuple[str, dict[int, str | None], str]]]]


def _read(tmp_path: Path, text: str, *part: str) -> logs.Log:
    path = tmp_path / "server.log"
    path.write_text(text, encoding="utf-8")
    return logs.read(path, *part)


def _sent(log: logs.Log) -> Sent:
    return [(s.name, [(each.text, each.values, each.error) for each in s.statements]) for s in log.sessions]


STDERR = {
    "the default prefix, a statement of several lines": (
        (
            "2026-11-26 08:20:36.242 UTC [11] LOG:  statement: SELECT 1\n"
            "\t  FROM coupons\n"
            "2026-11-26 08:20:36.243 UTC [11] LOG:  checkpoint starting: time\n"
        ),
        [("11", [("SELECT 1\n  FROM coupons", {}, "")])],
    ),
    "two sessions in turn, the extended protocol of 17 and before, and of 18": (
        (
            "2026-11-26 08:20:36.242 UTC [11] me@db LOG:  execute <unnamed>: UPDATE a SET b = $1 WHERE c = $2\n"
            "2026-11-26 08:20:36.242 UTC [12] me@db LOG:  execute S_1/C_2: SELECT $1, $2\n"
            "2026-11-26 08:20:36.242 UTC [11] me@db DETAIL:  parameters: $1 = 'it''s', $2 = NULL\n"
            "2026-11-26 08:20:36.242 UTC [12] me@db DETAIL:  Parameters: $1 = 'a\n"
            "\tb', $2 = ''\n"
        ),
        [
            ("11", [("UPDATE a SET b = $1 WHERE c = $2", {1: "it's", 2: None}, "")]),
            ("12", [("SELECT $1, $2", {1: "a\nb", 2: ""}, "")]),
        ],
    ),
    "durations: parse and bind run nothing, a fetch is of what ran already": (
        (
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] LOG:  duration: 0.1 ms  parse <unnamed>: SELECT $1\n"
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] LOG:  duration: 0.1 ms  bind <unnamed>: SELECT $1\n"
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] DETAIL:  parameters: $1 = '7'\n"
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] LOG:  duration: 0.1 ms  execute <unnamed>: SELECT $1\n"
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] DETAIL:  parameters: $1 = '7'\n"
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] LOG:  execute fetch from <unnamed>: SELECT $1\n"
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] LOG:  duration: 0.2 ms\n"
            "2026-11-26 08:20:36 UTC [56a4c6ea.b] LOG:  duration: 0.2 ms  statement: COMMIT\n"
        ),
        [("56a4c6ea.b", [("SELECT $1", {1: "7"}, ""), ("COMMIT", {}, "")])],
    ),
    "an error of a statement that was logged before it": (
        (
            "2026-11-26 08:20:36 UTC [11] LOG:  execute q: UPDATE a SET b = $1\n"
            "2026-11-26 08:20:36 UTC [11] DETAIL:  parameters: $1 = '7'\n"
            "2026-11-26 08:20:37 UTC [12] LOG:  statement: COMMIT\n"
            "2026-11-26 08:20:37 UTC [11] ERROR:  deadlock detected\n"
            "2026-11-26 08:20:37 UTC [11] DETAIL:  Process 11 waits for ShareLock.\n"
            "\tProcess 12: UPDATE a SET b = $1\n"
            "2026-11-26 08:20:37 UTC [11] HINT:  See server log for query details.\n"
            "2026-11-26 08:20:37 UTC [11] STATEMENT:  UPDATE a SET b = $1\n"
            "2026-11-26 08:20:37 UTC [11] LOG:  statement: ROLLBACK\n"
        ),
        [
            ("11", [("UPDATE a SET b = $1", {1: "7"}, "deadlock detected"), ("ROLLBACK", {}, "")]),
            ("12", [("COMMIT", {}, "")]),
        ],
    ),
    "an error of one that only the error shows, as with durations, its values from its bind": (
        (
            "2026-11-26 08:20:36 UTC [11] LOG:  duration: 0.1 ms  statement: UPDATE a SET b = 1\n"
            "2026-11-26 08:20:36 UTC [11] ERROR:  it broke\n"
            "2026-11-26 08:20:36 UTC [11] STATEMENT:  UPDATE a SET b = 1\n"
            "2026-11-26 08:20:36 UTC [11] LOG:  duration: 0.1 ms  bind <unnamed>: SELECT $1\n"
            "2026-11-26 08:20:36 UTC [11] DETAIL:  Parameters: $1 = '7'\n"
            "2026-11-26 08:20:36 UTC [11] ERROR:  it broke again\n"
            "2026-11-26 08:20:36 UTC [11] STATEMENT:  SELECT $1\n"
        ),
        [
            (
                "11",
                [
                    ("UPDATE a SET b = 1", {}, ""),
                    ("UPDATE a SET b = 1", {}, "it broke"),
                    ("SELECT $1", {1: "7"}, "it broke again"),
                ],
            )
        ],
    ),
    "the values of a failed statement in its context": (
        (
            "2026-11-26 08:20:36 UTC [11] ERROR:  division by zero\n"
            "2026-11-26 08:20:36 UTC [11] CONTEXT:  unnamed portal with parameters: $1 = '0'\n"
            "2026-11-26 08:20:36 UTC [11] STATEMENT:  SELECT 1 / $1::int\n"
        ),
        [("11", [("SELECT 1 / $1::int", {1: "0"}, "division by zero")])],
    ),
    "log_error_verbosity = verbose, statements and durations both": (
        (
            "2026-11-26 08:20:36 UTC [11] LOG:  00000: statement: UPDATE a SET b = 1\n"
            "2026-11-26 08:20:36 UTC [11] LOCATION:  exec_simple_query, postgres.c:1052\n"
            "2026-11-26 08:20:36 UTC [11] LOG:  00000: duration: 0.089 ms\n"
            "2026-11-26 08:20:36 UTC [11] LOG:  00000: execute S_1: COMMIT\n"
            "2026-11-26 08:20:36 UTC [11] ERROR:  40001: could not serialize access\n"
            "2026-11-26 08:20:36 UTC [11] LOCATION:  OnConflict, predicate.c:4646\n"
            "2026-11-26 08:20:36 UTC [11] STATEMENT:  COMMIT\n"
        ),
        [("11", [("UPDATE a SET b = 1", {}, ""), ("COMMIT", {}, "could not serialize access")])],
    ),
    "as syslog has it, in pieces": (
        (
            "Nov 26 08:20:36 db postgres[11]: [7-1] 2026-11-26 08:20:36.1 UTC [11] a@b LOG:  statement: UPDATE a\n"
            "Nov 26 08:20:36 db postgres[11]: [7-2] #011  SET b = 'one long \n"
            "Nov 26 08:20:36 db postgres[11]: [7-3] word' WHERE c = 2\n"
            "Nov 26 08:20:36 db postgres[12]: [8-1] 2026-11-26 08:20:36.1 UTC [12] a@b LOG:  statement: COMMIT\n"
        ),
        [("11", [("UPDATE a\n  SET b = 'one long word' WHERE c = 2", {}, "")]), ("12", [("COMMIT", {}, "")])],
    ),
    "Amazon's prefix": (
        (
            "2026-11-26 08:20:36 UTC:10.0.0.7(52114):app@shop:[1549]:LOG:  statement: BEGIN\n"
            "2026-11-26 08:20:36 UTC:10.0.0.8(52115):app@shop:[1550]:LOG:  statement: COMMIT\n"
        ),
        [("1549", [("BEGIN", {}, "")]), ("1550", [("COMMIT", {}, "")])],
    ),
    "session ids between dashes": (
        "2026-11-26 08:20:36.071 UTC-61c20813.14e28-LOG:  statement: BEGIN\n",
        [("61c20813.14e28", [("BEGIN", {}, "")])],
    ),
    "process, virtual transaction and line in one": (
        "2026-11-26 08:20:36 EST [56193-3/9939-5706] app@shop LOG:  statement: BEGIN\n",
        [("56193", [("BEGIN", {}, "")])],
    ),
    "pid= and an application's name": (
        "2026-11-26 08:20:36 UTC pid=77 app=PostgreSQL JDBC Driver 42 LOG:  statement: BEGIN\n",
        [("77", [("BEGIN", {}, "")])],
    ),
    "as docker compose prints it": (
        (
            "postgres-1  | 2026-11-26 08:20:36.242 UTC [30] LOG:  execute <unnamed>: \n"
            "postgres-1  | \tSELECT 1\n"
            "web-1       | GET / 200\n"
        ),
        [("30", [("SELECT 1", {}, "")])],
    ),
}


@pytest.mark.parametrize("case", STDERR)
def test_lines_of_stderr_are_read(case: str, tmp_path: Path) -> None:
    """Sessions with their statements and values, whatever prefix they have."""
    text, expected = STDERR[case]
    log = _read(tmp_path, text)
    assert (log.kind, _sent(log)) == ("stderr", expected)


CSV_ROWS = [
    # (session, severity, code, message, detail, statement)
    ("a.1", "LOG", "00000", "statement: BEGIN", "", ""),
    ("a.2", "LOG", "00000", 'execute <unnamed>: SELECT "x", $1\n FROM t', "Parameters: $1 = 'a\nb'", ""),
    ("a.1", "LOG", "00000", "connection authorized: user=me", "", ""),
    ("a.1", "ERROR", "40001", "could not serialize access", "", "UPDATE t SET x = 1"),
]
FROM_ROWS: Sent = [
    ("a.1", [("BEGIN", {}, ""), ("UPDATE t SET x = 1", {}, "could not serialize access")]),
    ("a.2", [('SELECT "x", $1\n FROM t', {1: "a\nb"}, "")]),
]


def _csv(severity: bool = True) -> str:
    text = io.StringIO()
    for session, word, code, message, detail, statement in CSV_ROWS:
        row = ["2026-11-26 08:20:36.242 UTC", "me", "shop", "11", "[local]", session, "1", "UPDATE", "", "3/1", "0"]
        row += [word if severity else "ЩЩ", code, message, detail, "", "", "", "", statement, "", "", "app"]
        csv.writer(text, quoting=csv.QUOTE_ALL).writerow(row)
    return text.getvalue().replace('"2026-11-26 08:20:36.242 UTC"', "2026-11-26 08:20:36.242 UTC")


def _json() -> str:
    lines = []
    for session, word, code, message, detail, statement in CSV_ROWS:
        entry = {"timestamp": "2026-11-26 08:20:36.242 UTC", "dbname": "shop", "pid": 11, "session_id": session}
        entry |= {"error_severity": word, "state_code": code, "message": message}
        entry |= {name: text for name, text in (("detail", detail), ("statement", statement)) if text}
        lines.append(json.dumps(entry))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("kind", "text"), [("csvlog", _csv()), ("csvlog", _csv(severity=False)), ("jsonlog", _json())])
def test_csvlog_and_jsonlog_say_the_same(kind: str, text: str, tmp_path: Path) -> None:
    """Errors are known by their code, so a severity in no known language is no matter."""
    log = _read(tmp_path, text)
    assert (log.kind, _sent(log)) == (kind, FROM_ROWS)


@pytest.mark.parametrize("text", [_csv(), _json(), "".join(text for text, _ in STDERR.values() if "[11]" in text)])
def test_a_log_that_is_cut_is_read_from_the_first_whole_entry_to_the_last(text: str, tmp_path: Path) -> None:
    """Wherever it was cut: no error, and no statement that was not sent."""
    path = tmp_path / "cut.log"
    whole = {each.text for session in _read(tmp_path, text).sessions for each in session.statements}
    step = max(1, len(text) // 60)
    for at in range(0, len(text), step):
        path.write_text(text[at:])
        try:
            log = logs.read(path)
        except UsageError:
            continue
        assert {each.text for session in log.sessions for each in session.statements} <= whole
        path.write_text(text[:at])
        try:
            log = logs.read(path)
        except UsageError:
            continue
        for session in log.sessions:
            for each in session.statements:
                assert any(one.startswith(each.text) for one in whole), each.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_log_in_another_language_is_read(language: str, tmp_path: Path) -> None:
    """Its words are those of the server's own message catalogues."""
    words = LANGUAGES[language]
    log, error = words.severities[:2]
    detail, statement = words.parts[0], words.parts[4]
    execute = words.timed_execute.replace("%s%s%s:", "%s:").replace("%s%s%s", "%s")
    sent = "SELECT ':' || $1"
    lines = [
        f"{log}:  {words.statement % 'BEGIN'}",
        f"{log}:  {words.bind.replace('%s%s%s', '%s') % ('0.1', '<unnamed>', sent)}",
        f"{log}:  {execute % ('0.1', words.execute, '<unnamed>', sent)}",
        f"{detail}:  {words.parameters % ''}$1 = '7'",
        f"{log}:  {words.execute} <unnamed>: {sent}",
        f"{detail}:  {words.parameters % ''}$1 = '8'",
        f"{log}:  {words.timed % ('0.1', 'COMMIT')}",
        f"{error}:  xx",
        f"{statement}:  SELEC",
    ]
    text = "".join(f"2026-11-26 08:20:36.242 UTC [11] {line}\n" for line in lines)
    expected = [("BEGIN", {}, ""), (sent, {1: "7"}, ""), (sent, {1: "8"}, ""), ("COMMIT", {}, ""), ("SELEC", {}, "xx")]
    assert _sent(_read(tmp_path, text)) == [("11", expected)]


TWO_TIMES = (
    "2026-11-26 08:20:36.242 UTC [11] LOG:  statement: SELECT 1\n"
    "2026-11-26 08:21:36.242 UTC [11] LOG:  statement: SELECT 2\n"
    "2026-11-26 08:22:36.242 UTC [11] LOG:  statement: SELECT 3\n"
)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        ("", "", ["SELECT 1", "SELECT 2", "SELECT 3"]),
        ("2026-11-26 08:21", "", ["SELECT 2", "SELECT 3"]),
        ("2026-11-26T08:21", "2026-11-26T08:21", ["SELECT 2"]),
        ("", "2026-11-26 08:21:36.242", ["SELECT 1", "SELECT 2"]),
    ],
)
def test_from_and_to_choose_by_the_logs_own_time(start: str, stop: str, expected: list[str], tmp_path: Path) -> None:
    """The beginning of a time will do."""
    [session] = _read(tmp_path, TWO_TIMES, start, stop).sessions
    assert [each.text for each in session.statements] == expected


@pytest.mark.parametrize(
    ("prefix", "lead"),
    [
        ("%m [%p] %q%u@%d ", "2026-11-26 08:20:36.242 UTC [11] me@shop "),
        ("%t %c %a ", "2026-11-26 08:20:36 UTC 65f1c0a2.4d2 my app [9] "),
        ("%n %-7p|", "1764145236.242 11     |"),
        ("<%p> %e %i: ", "<11> 00000 SELECT: "),
        ("%r %u %d %p %v %x %l ", "10.0.0.1(5432) me shop 11 3/22 0 7 "),
    ],
)
def test_a_prefix_can_be_given(prefix: str, lead: str, tmp_path: Path) -> None:
    """In the words of log_line_prefix."""
    log = _read(tmp_path, f"{lead}LOG:  statement: SELECT 1\n", "", "", prefix)
    [session] = log.sessions
    assert session.name in ("11", "65f1c0a2.4d2")


WRONG = [
    # (text, --from, --log-line-prefix, words)
    ("LOG:  statement: SELECT 1\n", "", "", "says nothing by which sessions can be told apart"),
    ("2020-06-18 16:00:16 KST LOG:  statement: SELECT 1\n", "", "", "log with log_line_prefix = '%m [%p]"),
    ("hello\nworld\n", "", "", "is not a log of PostgreSQL"),
    ("", "", "", "is not a log of PostgreSQL"),
    ("2026-11-26 08:20:36 UTC [1] LOG:  starting\n", "", "", "log with log_statement = all"),
    (TWO_TIMES, "2027", "", "has no statement in that time; it goes from 2026-11-26 08:20:36.242 to"),
    (TWO_TIMES, "", "%m %u ", "has no session"),
    (TWO_TIMES, "", "%m <%p> ", "give the log_line_prefix of the server that wrote it"),
    ("[1] LOG:  statement: SELECT 1\n", "2026", "", "has no times, so --from and --to choose nothing"),
]


@pytest.mark.parametrize(("text", "start", "prefix", "words"), WRONG)
def test_what_is_no_such_log_is_said(text: str, start: str, prefix: str, words: str, tmp_path: Path) -> None:
    """One sentence, and what to do: about sessions, times, the setting that logs statements."""
    with pytest.raises(UsageError) as raised:
        _read(tmp_path, text, start, "", prefix)
    assert words in str(raised.value), raised.value


def test_a_log_of_a_whole_day_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More statements than a scenario could have: say when it happened."""
    monkeypatch.setattr(logs, "MOST_STATEMENTS", 2)
    with pytest.raises(UsageError, match="more than 2 statements"):
        _read(tmp_path, TWO_TIMES)


def test_a_log_that_was_rotated_is_read_as_it_is(tmp_path: Path) -> None:
    """Compressed, as logrotate leaves it; one that is cut is said to be."""
    path = tmp_path / "a.log.gz"
    path.write_bytes(gzip.compress(TWO_TIMES.encode()))
    assert logs.read(path).sessions == _read(tmp_path, TWO_TIMES).sessions
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UsageError, match="cannot be read"):
        logs.read(path)
