"""What a run touched, as the server counted it in the run's own scratch database.

The statistics of a database count every scan and write of a table, whoever did it: a foreign key, a cascade, a trigger,
a view, dynamic SQL; and with track_functions, as on a server that is booted here, every call of a function that was not
put into its caller's query. What is not counted (views, types, sequences, functions in SQL) is followed from there: by
the words of what was run, and by what the catalogue says leads to what.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from harness.environment.description import Touched
from harness.environment.servers import connect
from harness.sqltext import queries

_WORD = re.compile(r"[^\W\d][\w$]*")
_PUT_TOGETHER = re.compile(r"\bexecute\b(?!\s+(?:function|procedure)\b)", re.IGNORECASE)
_GONE_SECONDS = 2.0
"""How long a backend whose client is gone may take to end."""

_SINCE = 150000
"""From here on a backend's counts are there when it has ended; before, they came whenever they came."""

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server counted: identities, which are the same in every clone of a database."""

    tables: frozenset[int] = frozenset()
    functions: frozenset[int] | None = frozenset()
    """None: it does not count calls."""

    def __or__(self, other: Seen) -> Seen:
        both = None if self.functions is None or other.functions is None else self.functions | other.functions
        return Seen(self.tables | other.tables, both)


def seen(dsn: str) -> Seen | None:
    """What was counted in a database so far; None where that cannot be known.

    To be asked when everybody else is gone: a backend tells what it did when it ends.
    """
    own = queries.own("harness.environment", "touched.sql")
    with connect(dsn) as connection:
        if connection.info.server_version < _SINCE or not _alone(connection):
            return None
        tracked = connection.execute("SHOW track_functions").fetchone() == ("all",)
        return Seen(
            frozenset(oid for (oid,) in connection.execute(own["tables"]).fetchall()),
            frozenset(oid for (oid,) in connection.execute(own["functions"]).fetchall()) if tracked else None,
        )


def _alone(connection: Connection) -> bool:
    """Whether all others have ended, which those that were just closed are about to."""
    until = time.monotonic() + _GONE_SECONDS
    while connection.execute(queries.own("harness.environment", "touched.sql")["others"]).fetchone() != (0,):
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


def touched(dsn: str, found: Seen | None, texts: Iterable[str], of: str = "") -> Touched | None:
    """What a run touched that ran these texts, by name; None where that cannot be known.

    `of` says which file or function it was, in a form that differs where the file does.
    """
    if found is None:
        return None
    own = queries.own("harness.environment", "touched.sql")
    with connect(dsn) as connection:
        objects = {(row[0], row[1]): row[2:] for row in connection.execute(own["objects"]).fetchall()}
        leads = defaultdict(set)
        for from_class, from_id, to_class, to_id in connection.execute(own["leads"]).fetchall():
            leads[from_class, from_id].add((to_class, to_id))
        unnamed = {("pg_proc", oid) for (oid,) in connection.execute(own["unnamed"]).fetchall()}
    by_name = defaultdict(set)
    for key, (name, *_) in objects.items():
        by_name[name.lower()].add(key)
    tables = {("pg_class", oid) for oid in found.tables} & objects.keys()
    called = None if found.functions is None else {("pg_proc", oid) for oid in found.functions} & objects.keys()

    def ran(key: tuple[str, int]) -> bool:
        """Whether a function may have run: those in SQL may have been put into their caller's query."""
        return called is None or key in called or objects[key][1] == "sql"

    reached: set[tuple[str, int]] = set()
    todo = tables | (called or set()) | {key for key in unnamed & objects.keys() if ran(key)}
    words = set(_words(texts))
    todo |= {key for word in words for key in by_name.get(word, ())}
    while todo:
        key = todo.pop()
        if key in reached:
            continue
        reached.add(key)
        if key[0] == "pg_proc" and not ran(key):
            continue  # its name was somewhere, and it was not called
        todo |= leads[key] & objects.keys()
        if key[0] == "pg_proc":
            body = objects[key][2]
            if called is None and (_PUT_TOGETHER.search(body) or objects[key][1] not in ("sql", "plpgsql")):
                return None
            new = _words([body]) - words
            words |= new
            todo |= {each for word in new for each in by_name.get(word, ())}
    counted = _names(objects[key][0] for key in tables), _names(objects[key][0] for key in called or ())
    rest = _names(objects[key][0] for key in reached)
    return Touched(*counted, tuple(name for name in rest if name not in counted[0] and name not in counted[1]), of)


def _words(texts: Iterable[str]) -> set[str]:
    return {word.lower() for text in texts for word in _WORD.findall(text)}


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name.lower() for name in names}))
