"""Fresh keys, made by the function of the seed or a query: the same for load and explore."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Hashable
from typing import Any

import psycopg
from psycopg import sql

from harness.contracts.contract import KeysQuery
from harness.errors import HarnessError
from harness.targets.codec import plain_key
from harness.targets.description import split_name
from harness.targets.values import Type, json_text


def new_keys(
    connection: psycopg.Connection[Any], source: str | KeysQuery, count: int, limit: float = 600.0
) -> list[Hashable]:
    """So many fresh keys, each as the history has it: JSON as its text, an array as a tuple; within `limit` seconds.

    Raises HarnessError when the function is not there, fails, takes too long, or makes too few, equal or NULL keys.
    """
    if not count:
        return []
    if isinstance(source, KeysQuery):
        what, query = str(source), source.text(count).encode()
        mend, more = "mend the query", "let it give as many keys as :count says, each once"
    else:
        what = f"{source}({count})"
        function = sql.Identifier(*(p for p in split_name(source) if p))
        query = sql.SQL("SELECT * FROM {}({}::integer)").format(function, count).as_bytes(connection)
        mend, more = "mend the seed's function", "let it create and return as many fresh keys as it is asked for"
    try:
        # As if each call had a session of its own: it may make temporary tables, or set what it likes.
        connection.execute("DISCARD ALL", prepare=False)
        timeout = sql.SQL("SET statement_timeout = {}").format(math.ceil(limit * 1000))
        connection.execute(timeout, prepare=False)  # DISCARD ALL, next time, would take the prepared one away
        cursor = connection.execute(query, prepare=False)
        described = cursor.description or []
        if len(described) != 1:
            raise HarnessError(
                f"{what} returned {len(described)} columns.",
                next_step="let it return the keys alone: RETURNS SETOF the key's type",
            )
        kind = described[0].type_code
        keys = [None if row[0] is None else plain_key(row[0], kind) for row in cursor.fetchall()]
    except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName) as error:
        if isinstance(source, KeysQuery):
            raise HarnessError(f"{what} fails.", tried=" ".join(str(error).split()), next_step=mend) from error
        raise HarnessError(
            f"The seed does not define {source}(count integer).",
            tried=" ".join(str(error).split()),
            next_step=f"add a seed file that creates {source}(count integer) RETURNS SETOF the key's type",
        ) from error
    except psycopg.errors.QueryCanceled as error:
        raise HarnessError(
            f"{what} had not ended after {limit:g} s.",
            tried=" ".join(str(error).split()),
            next_step="see what it waits for, ask for fewer calls, or give a longer --apply-timeout",
        ) from error
    except psycopg.DataError as error:
        raise HarnessError(
            f"{what} returned a key that Python cannot hold.",
            tried=" ".join(str(error).split()),
            next_step="let it return such keys as text",
        ) from error
    except psycopg.Error as error:
        if connection.closed:
            raise HarnessError(
                f"The connection was lost while {what} made fresh keys.",
                tried=" ".join(str(error).split()),
                next_step="see in the server's log what ended it",
            ) from error
        scarce = (error.sqlstate or "").startswith("53")  # as where each key is a table of its own
        raise HarnessError(
            f"{what} failed with SQLSTATE {error.sqlstate}.",
            tried=" ".join(str(error).split()),
            next_step="ask for fewer keys: --calls, or fewer --clients or --rounds"
            if scarce
            else f"{mend}, or seed the rows that it refers to",
        ) from error
    distinct = set(keys)
    many = len(distinct - {None})
    if many < count or None in distinct:
        raise HarnessError(
            f"{what} returned {many} distinct key{'' if many == 1 else 's'}.",
            tried=f"asking for {count}: {len(keys)} came, {keys.count(None)} of them NULL",
            next_step=more,
        )
    return keys


_NUMBERS = frozenset(psycopg.adapters.types[name].oid for name in ("int2", "int4", "int8", "numeric"))
_TEXTS = frozenset(psycopg.adapters.types[name].oid for name in ("text", "varchar", "bpchar"))
_UUID = psycopg.adapters.types["uuid"].oid


def missing_keys(kind: Type, count: int) -> list[Hashable] | None:
    """So many keys that nobody made, for a contract that says nothing of them; None: not of that type."""
    numbers = itertools.count(1)

    def one(kind: Type) -> Hashable | None:
        if kind.element is not None:
            element = one(kind.element)
            return None if element is None else (element,)
        if kind.is_json:
            return json_text({"missing": uuid.uuid4()})
        if kind.base in _NUMBERS:
            return -next(numbers)
        made = uuid.uuid4()
        return made if kind.base == _UUID else str(made) if kind.base in _TEXTS else None

    made = [one(kind) for _ in range(count)]
    return None if None in made else made
