"""A chosen moment (`now:`): in the scratch copy the server's clock functions are replaced, and time stands still there.

Two ways were tried. Rows could be shifted in place of the clock; but then every column that holds a time has to be
known, those in JSON and in arrays too, and what a session computes from now() and stores lies on the wrong side. A
function now() of one's own, before pg_catalog in the search_path, is not seen by a default that is stored by its oid,
nor by a function with a search_path of its own.

So `pg_catalog.now()` and its like are replaced themselves, by SQL functions of one constant. The server would call its
built-in code all the same where it calls them by oid; but the planner puts such a function's body in its place first,
in queries, PL/pgSQL, defaults, checks, policies, views and triggers alike. CURRENT_TIMESTAMP and its like are no
functions but words of the grammar: they are replaced in the text of statements, and in what can be defined again by
its text: functions, defaults, policies, views. What reads them elsewhere (`left_alone`), and code in C, reads the real
clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from pglast.parser import ParseError, scan
from psycopg import sql

from harness.sqltext import queries

_WORDS = {
    "CURRENT_TIMESTAMP": "timestamptz",
    "CURRENT_DATE": "date",
    "CURRENT_TIME": "timetz",
    "LOCALTIME": "time",
    "LOCALTIMESTAMP": "timestamp",
}
_LITERALS = {
    "now": "pg_catalog.now()",
    "today": "(pg_catalog.now()::date)",
    "tomorrow": "(pg_catalog.now()::date + 1)",
    "yesterday": "(pg_catalog.now()::date - 1)",
}
_OF_TIME = r"(?:pg_catalog\s*\.\s*)?(?:date|time)"
_CAST = re.compile(
    rf"\s*::\s*(?:(?:pg_catalog\s*\.\s*)?text\s*\)?\s*::\s*)?{_OF_TIME}|\s+AS\s+{_OF_TIME}", re.IGNORECASE
)
"""What follows a literal that is taken for a time: `::date`, `::text)::date`, `AS date)`."""
_TYPE = re.compile(r"\b(date|time|timetz|timestamp|timestamptz)\s*\Z", re.IGNORECASE)
"""What stands before one: `date 'now'`."""

_EXECUTED = re.compile(
    r"\b(?:select|values|insert|update|delete|merge|perform|set|where)\b.*\b(?:current_(?:date|time|timestamp)|localtime(?:stamp)?)\b",
    re.I | re.S,
)

EXACT = "now(), transaction_timestamp(), statement_timestamp(), clock_timestamp(), timeofday(), CURRENT_TIMESTAMP ..."


def standing_still(text: str) -> str:
    """The text with the clock's words of the grammar as calls of now(), which can be replaced, and so 'now'::date."""
    try:
        tokens = scan(text)
    except ParseError:
        return text
    pieces: list[str] = []
    at = 0
    for token in tokens:
        end = token.end + 1
        if token.name in _WORDS:
            pieces += [text[at : token.start], f"pg_catalog.now()::{_WORDS[token.name]}"]
            at = end
        elif token.name == "SCONST" and (call := _LITERALS.get(text[token.start + 1 : token.end].lower())):
            before = text[at : token.start]
            if _CAST.match(text, end):
                pieces += [before, call]
            elif kind := _TYPE.search(before):
                pieces += [before[: kind.start()], f"{call}::{kind[1]}"]
            else:
                continue
            at = end
    return "".join((*pieces, text[at:]))


def may_replace(connection: psycopg.Connection[Any]) -> bool:
    """Whether this role may replace the server's own functions in the scratch database."""
    row = connection.execute(_queries()["may_replace"]).fetchone()
    return row is not None and bool(row[0])


def stop(connection: psycopg.Connection[Any], moment: datetime) -> None:
    """Let the clock's functions give one moment in this database, for all connections that are opened after this."""
    literal = moment.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
    clock = sql.SQL("SELECT {}::timestamptz").format(sql.Literal(literal))
    bodies = {
        "now() RETURNS timestamptz": (clock, "STABLE"),
        "transaction_timestamp() RETURNS timestamptz": (clock, "STABLE"),
        "statement_timestamp() RETURNS timestamptz": (clock, "STABLE"),
        "clock_timestamp() RETURNS timestamptz": (clock, "VOLATILE"),
        "timeofday() RETURNS text": (
            sql.SQL("SELECT pg_catalog.to_char({}::timestamptz, 'Dy Mon DD HH24:MI:SS.US YYYY TZ')").format(
                sql.Literal(literal)
            ),
            "VOLATILE",
        ),
        "age(timestamptz) RETURNS interval": (_since(literal, "timestamptz"), "STABLE"),
        "age(timestamp) RETURNS interval": (_since(literal, "timestamp"), "STABLE"),
    }
    for head, (body, volatility) in bodies.items():
        connection.execute(
            sql.SQL("CREATE OR REPLACE FUNCTION pg_catalog.{} LANGUAGE sql {} STRICT PARALLEL SAFE AS {}").format(
                sql.SQL(head), sql.SQL(volatility), sql.Literal(body.as_string(connection))
            )
        )


def _since(moment: str, type_: str) -> sql.Composed:
    """From the midnight before, in the time zone of the session."""
    return sql.SQL("SELECT pg_catalog.age({}::timestamptz::date::{}, $1)").format(sql.Literal(moment), sql.SQL(type_))


def replace_words(connection: psycopg.Connection[Any]) -> None:
    """Put calls of now() in the place of the clock's words, wherever that takes no more than to define it again.

    What cannot be defined again stays as it is, and `left_alone` names it.
    """
    own = _queries()
    for body, definition in connection.execute(own["functions"]).fetchall():
        changed = standing_still(definition)  # the defaults of parameters; a body that is text is one constant there
        if body:
            start = changed.rindex(body)
            changed = changed[:start] + standing_still(body) + changed[start + len(body) :]
        _define_again(connection, definition, changed)
    for (definition,) in connection.execute(own["others"]).fetchall():
        _define_again(connection, definition, standing_still(definition))


def _define_again(connection: psycopg.Connection[Any], definition: str, changed: str) -> None:
    if changed == definition:
        return
    with suppress(psycopg.Error), connection.transaction():
        connection.execute(changed.encode(), prepare=False)


def left_alone(connection: psycopg.Connection[Any], texts: list[str]) -> Iterator[tuple[str, str]]:
    """What reads the real clock all the same, and a sentence on it; `texts` are the statements and bodies reached.

    Of the texts nothing is named: they are reached.
    """
    for (name,) in connection.execute(_queries()["left"]).fetchall():
        yield name, f"{name} reads the real clock: CURRENT_DATE and the like cannot be replaced there, now() can"
    for text in texts:
        for found in _in_strings(text):
            yield "", f"{found} reads the real clock, where it is executed or taken for a time: write now()"


def _in_strings(text: str) -> Iterator[str]:
    """Constants that may read the clock: 'now' that is assigned to a time, CURRENT_DATE in SQL that is executed."""
    try:
        tokens = scan(text)
    except ParseError:
        return
    for token in tokens:
        constant = text[token.start : token.end + 1]
        if token.name == "SCONST" and constant[:1] == "$":
            yield from _in_strings(constant.strip("$"))
        elif token.name == "SCONST" and (constant[1:-1].lower() in _LITERALS or _EXECUTED.search(constant)):
            yield " ".join(constant.split())[:60]


def _queries() -> Any:
    return queries.own("harness.scenarios", "clock.sql")
