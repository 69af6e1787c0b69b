"""A chosen moment (`now:`): in the scratch copy the server's clock functions are replaced, and time stands still there.

Two ways were tried. Rows could be shifted in place of the clock; but then every column that holds a time has to be
known, those in JSON and in arrays too, and what a session computes from now() and stores lies on the wrong side. A
function now() of one's own, before pg_catalog in the search_path, is not seen by a default that is stored by its oid,
nor by a function with a search_path of its own.

So `pg_catalog.now()` and its like are replaced themselves, by SQL functions of one constant. The server would call its
built-in code all the same where it calls them by oid; but the planner puts such a function's body in its place first,
in queries, PL/pgSQL, defaults, checks, policies, views and triggers alike. CURRENT_TIMESTAMP and its like are no
functions but words of the grammar: they are replaced in the text of statements, of functions and of defaults. What
reads them elsewhere (`left_alone`), and code in C, reads the real clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
_LITERAL = re.compile(
    r"'(?:now|today|tomorrow|yesterday)'\s*::\s*(?:pg_catalog\s*\.\s*)?(?:date|time)"
    r"|\b(?:date|time|timestamp|timestamptz)\s+'(?:now|today|tomorrow|yesterday)'",
    re.IGNORECASE,
)

EXACT = "now(), transaction_timestamp(), statement_timestamp(), clock_timestamp(), timeofday(), CURRENT_TIMESTAMP ..."


def standing_still(text: str) -> str:
    """The text with the clock's words of the grammar as calls of now(), which can be replaced."""
    try:
        tokens = scan(text)
    except ParseError:
        return text
    pieces: list[str] = []
    at = 0
    for token in tokens:
        if token.name in _WORDS:
            pieces += [text[at : token.start], f"pg_catalog.now()::{_WORDS[token.name]}"]
            at = token.end + 1
    return "".join((*pieces, text[at:]))


def may_replace(connection: psycopg.Connection[Any]) -> bool:
    """Whether this role may replace the server's own functions in the scratch database."""
    row = connection.execute(_queries()["may_replace"]).fetchone()
    return row is not None and bool(row[0])


def stop(connection: psycopg.Connection[Any], moment: datetime) -> None:
    """Let the clock's functions give one moment in this database, for all connections that are opened after this."""
    literal = moment.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
    day = moment.astimezone(UTC).strftime("%Y-%m-%d")
    spoken = moment.astimezone(UTC).strftime("%a %b %d %H:%M:%S.%f %Y UTC")
    clock = sql.SQL("SELECT {}::timestamptz").format(sql.Literal(literal))
    bodies = {
        "now() RETURNS timestamptz": (clock, "STABLE"),
        "transaction_timestamp() RETURNS timestamptz": (clock, "STABLE"),
        "statement_timestamp() RETURNS timestamptz": (clock, "STABLE"),
        "clock_timestamp() RETURNS timestamptz": (clock, "VOLATILE"),
        "timeofday() RETURNS text": (sql.SQL("SELECT {}::text").format(sql.Literal(spoken)), "VOLATILE"),
        "age(timestamptz) RETURNS interval": (_since(day, "timestamptz"), "STABLE"),
        "age(timestamp) RETURNS interval": (_since(day, "timestamp"), "STABLE"),
    }
    for head, (body, volatility) in bodies.items():
        connection.execute(
            sql.SQL("CREATE OR REPLACE FUNCTION pg_catalog.{} LANGUAGE sql {} STRICT PARALLEL SAFE AS {}").format(
                sql.SQL(head), sql.SQL(volatility), sql.Literal(body.as_string(connection))
            )
        )


def _since(day: str, type_: str) -> sql.Composed:
    return sql.SQL("SELECT pg_catalog.age({}::{}, $1)").format(sql.Literal(day), sql.SQL(type_))


def replace_words(connection: psycopg.Connection[Any]) -> None:
    """Put calls of now() in the place of the clock's words in functions and defaults."""
    own = _queries()
    for _, body, definition in connection.execute(own["functions"]).fetchall():
        changed = standing_still(body)
        if changed != body:
            start = definition.rindex(body)
            connection.execute((definition[:start] + changed + definition[start + len(body) :]).encode())
    for table, column, default in connection.execute(own["defaults"]).fetchall():
        text = f"ALTER TABLE ONLY {table} ALTER COLUMN {column} SET DEFAULT {standing_still(default)}"
        connection.execute(text.encode())


def left_alone(connection: psycopg.Connection[Any], texts: list[str]) -> Iterator[tuple[str, str]]:
    """What reads the real clock all the same, and a sentence on it; `texts` are the statements and bodies reached.

    Of the texts nothing is named: they are reached.
    """
    own = _queries()
    names = [row[0] for row in connection.execute(own["left"]).fetchall()]
    if connection.info.server_version >= 140000:
        names += [f"function {row[0]}" for row in connection.execute(own["sql_bodies"]).fetchall()]
    for name in names:
        yield name, f"{name} reads the real clock: CURRENT_DATE and the like cannot be replaced there, now() can"
    for text in texts:
        if (found := _LITERAL.search(text)) is not None:
            yield "", f"{found[0]} is the real clock's: write now()"


def _queries() -> Any:
    return queries.own("harness.scenarios", "clock.sql")
