"""What the SQL of a scenario reaches: by the words in it, from functions to their bodies, tables, triggers, views.

Wider than what is really touched, and never narrower: a name that stands in a text is reached, whatever it means there.
Dynamic SQL and languages that cannot be read reach everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from harness.sqltext import queries

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r'"([^"]+)"')
_WRITES = re.compile(
    r"\b(?:insert\s+into|update(?:\s+only)?|delete\s+from(?:\s+only)?|merge\s+into(?:\s+only)?"
    r"|truncate(?:\s+table)?(?:\s+only)?|copy)\s+((?:\"[^\"]+\"|[\w$]+)(?:\s*\.\s*(?:\"[^\"]+\"|[\w$]+))?"
    r"(?:\s*,\s*(?:\"[^\"]+\"|[\w$.]+))*)",
    re.IGNORECASE,
)
_DYNAMIC = re.compile(r"\bexecute\b(?!\s+(?:function|procedure)\b)|\bquery_to_xml\b|\bdblink", re.IGNORECASE)
_DEFINES = re.compile(
    r"(?:^|;|\bbegin\b|\bthen\b)\s*(create(?!\s+temp)|alter|drop|refresh|cluster|reindex|comment\s+on|grant|revoke)\b"
    r"|\blo_\w+\s*\(|\blowrite\s*\(",
    re.IGNORECASE,
)
_CONNECTION = re.compile(
    r"\bpg_backend_pid\b|\binet_client_port\b|\bpg_stat_activity\b|\bpg_locks\b|\bpg_my_temp_schema\b", re.IGNORECASE
)
_CHOOSES = re.compile(
    r"\blimit\s+(?!all\b|null\b)[\w$:(]|\bfetch\s+(?:first|next)\b[^;]*\bonly\b|\bdistinct\s+on\b", re.IGNORECASE
)
_GATHERS = re.compile(
    r"\b(?:array_agg|string_agg|jsonb?_agg|json_arrayagg|xmlagg)\s*\(|\barray\s*\(\s*select\b",
    re.IGNORECASE,
)
"""What puts rows one behind the other: in which order, an ORDER BY says, or nobody."""
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)
_ORDERED_BY = re.compile(r"\border\s+by\b([^;)]*)")
_RANDOM = re.compile(r"\border\s+by\s+random\s*\(|\btablesample\b", re.IGNORECASE)
_SPLITTABLE = frozenset({"sql", "plpgsql", "internal", "c"})


@dataclass(slots=True)
class Reach:
    """What a scenario's SQL reaches."""

    texts: list[str]
    """Its statements, and the bodies and expressions behind them."""
    tables: set[tuple[str, str]] = field(default_factory=set)
    """Tables that are named somewhere in them (schema, table)."""
    written: set[tuple[str, str]] | None = field(default_factory=set)
    """Tables that they may write; None: any."""
    why: str = ""
    """Why any."""
    defines: bool = False
    """They may create or change tables, functions or large objects."""
    tells_connections: bool = False
    """They may tell one connection from another: by process id, port, transaction id."""
    ordered: frozenset[str] = frozenset()
    """Sequences whose order they look at, by the names that a baseline gives them."""
    chooses: str = ""
    """A statement that chooses without an order; nothing where there is none."""
    gathers: bool = False
    """A statement puts rows one behind the other without an order, as array_agg does."""


def reach(connection: psycopg.Connection[Any], statements: Iterable[str]) -> Reach:
    """Ask the catalogue what these statements lead to."""
    own = queries.own("harness.scenarios", "reach.sql")
    version = connection.info.server_version
    functions = connection.execute(own["functions" if version >= 140000 else "functions_13"]).fetchall()
    relations = connection.execute(own["relations"]).fetchall()
    found = Reach(list(statements))
    bodies = {oid: (language, body or "") for oid, _, _, language, body in functions}
    words: set[str] = set()
    todo = list(found.texts)
    taken_functions: set[int] = set()
    taken_relations: set[tuple[str, str]] = set()
    while todo:
        for text in todo:
            words |= {word.lower() for word in _WORD.findall(text)} | {name.lower() for name in _QUOTED.findall(text)}
        todo = []
        wanted = {oid for oid, _, name, _, _ in functions if name.lower() in words}
        for schema, name, _, text, triggers, cascades, children in relations:
            if name.lower() not in words or (schema, name) in taken_relations:
                continue
            taken_relations.add((schema, name))
            todo.append(text)
            words |= {each[1].lower() for each in (*cascades, *children)}
            todo.append("")  # look again: there are new words
            wanted |= set(triggers)
        for oid in wanted - taken_functions:
            taken_functions.add(oid)
            language, body = bodies.get(oid, ("", ""))
            todo.append(body)
            if language not in _SPLITTABLE:
                found.why = f"a function in {language} cannot be read" if language else "a trigger cannot be read"
        found.texts += [text for text in todo if text]
    found.tables = taken_relations
    _read_texts(found, relations)
    found.ordered = _ordered(found.texts, connection.execute(own["sequence_columns"]).fetchall(), relations)
    return found


def _read_texts(found: Reach, relations: list[tuple[Any, ...]]) -> None:
    targets: set[str] = set()
    for text in found.texts:
        plain = _without_comments(text)
        if _DYNAMIC.search(plain):
            found.why = "dynamic SQL"
        if _DEFINES.search(plain):
            found.defines = True
        if _CONNECTION.search(plain):
            found.tells_connections = True
        for names in _WRITES.findall(plain):
            for name in names.split(","):
                targets.add(name.split(".")[-1].strip().strip('"').lower())
        if not found.chooses and (_RANDOM.search(plain) or any(_chooses(each) for each in plain.split(";"))):
            found.chooses = " ".join(text.split())[:200]
        found.gathers |= any(_GATHERS.search(each) and not _ORDER.search(each) for each in plain.split(";"))
    if found.why:
        found.written = None
        return
    by_name = {(schema, name): row for row in relations for schema, name in [row[:2]]}
    written = {key for key in found.tables if key[1].lower() in targets}
    todo = list(written)
    while todo:
        row = by_name[todo.pop()]
        more = {(s, n) for s, n in (*row[5], *row[6])}
        if row[2] in ("v", "m"):
            words = {word.lower() for word in _WORD.findall(row[3])}
            more |= {key for key in by_name if key[1].lower() in words}
        todo += [key for key in more - written if key in by_name]
        written |= more & by_name.keys()
    found.written = written


def _chooses(statement: str) -> bool:
    return bool(_CHOOSES.search(statement)) and not _ORDER.search(statement)


def _ordered(
    texts: list[str], columns: list[tuple[str, str, str, str]], relations: list[tuple[Any, ...]]
) -> frozenset[str]:
    """The sequences whose columns stand in an ORDER BY, beside < or >, or in max or min."""
    kinds = {name.lower(): kind for _, name, kind, *_ in relations}
    statements = [each.lower() for text in texts for each in _without_comments(text).split(";")]
    found = set()
    for sequence, schema, table, column in columns:
        name = rf"(?:(\w+)\s*\.\s*)?\b{re.escape(column.lower())}\b"
        compared = re.compile(rf"{name}\s*(?:[<>]|between\b)|[<>]=?\s*{name}|\b(?:max|min)\s*\(\s*{name}")
        for statement in statements:
            qualifiers = [next(filter(None, match), "") for match in compared.findall(statement)]
            for items in _ORDERED_BY.findall(statement):
                qualifiers += re.findall(name, items)
            if any(not _is_of_another(qualifier, table.lower(), statement, kinds) for qualifier in qualifiers):
                found.add(sequence if schema == "public" else f"{schema}.{sequence}")
    return frozenset(found)


def _is_of_another(qualifier: str, table: str, statement: str, kinds: Mapping[str, str]) -> bool:
    """Whether a column that is named so is surely another table's: a queue's id is not that of the log beside it."""
    if qualifier:
        aliased = re.findall(rf"(\w+)\s+(?:as\s+)?{re.escape(qualifier)}\b", statement)
        meant = {each for each in (*aliased, qualifier) if each in kinds}
    else:
        meant = kinds.keys() & set(_WORD.findall(statement))
    # A view may show the table under another name, and a variable may hold its row.
    return bool(meant) and table not in meant and all(kinds[each] in ("r", "p") for each in meant)


def _without_comments(text: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
