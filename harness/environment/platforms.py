"""What a platform puts into a database before the migrations, and stand-ins for extensions that a server lacks.

A stand-in is a trusted extension of plain SQL: on a server that was booted here its control and script file lie where
the server looks for extensions, so that `CREATE EXTENSION pgcrypto WITH SCHEMA extensions` works as it is written. On a
server that somebody else runs its script is run in place of that statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from harness.sqltext import queries
from harness.sqltext.scripts import Script

ROLE = "postgres"
"""As whom Supabase applies migrations: a role with many rights, and no superuser."""

STAND_IN = "standin"
"""The version that a stand-in calls itself."""

_PACKAGE = "harness.environment.preludes"
_PRELUDE = ("schemas", "auth", "storage", "realtime", "functions")
_PREINSTALLED = (
    ("uuid-ossp", "extensions"), ("pgcrypto", "extensions"), ("pg_stat_statements", "extensions"),
    ("pg_graphql", "graphql"), ("supabase_vault", "vault"),
)  # fmt: skip
"""Extensions that every project has from its first day."""

SCHEMAS = frozenset({
    "auth", "storage", "realtime", "_realtime", "vault", "graphql", "graphql_public", "extensions", "pgbouncer",
    "supabase_functions", "supabase_migrations", "cron", "net", "pgmq", "pgsodium",
})  # fmt: skip
"""Schemas that belong to the platform or to its extensions."""

IN_SCHEMA = {"cron": "pg_cron", "net": "pg_net", "pgmq": "pgmq", "pgsodium": "pgsodium", "vault": "supabase_vault"}
"""The extension whose schema it is. Projects turn it on in the dashboard, and no migration creates it."""

OF_NAME = {
    "vector": "vector", "halfvec": "vector", "sparsevec": "vector", "citext": "citext", "hstore": "hstore",
    "ltree": "ltree", "gin_trgm_ops": "pg_trgm", "gist_trgm_ops": "pg_trgm", "similarity": "pg_trgm",
    "word_similarity": "pg_trgm", "unaccent": "unaccent", "moddatetime": "moddatetime", "cube": "cube",
    "ll_to_earth": "earthdistance", "earth_distance": "earthdistance", "levenshtein": "fuzzystrmatch",
    "soundex": "fuzzystrmatch", "dmetaphone": "fuzzystrmatch", "crosstab": "tablefunc", "http_post": "http",
    "http_get": "http", "http": "http", "geography": "postgis", "geometry": "postgis", "sign": "pgjwt",
    "verify": "pgjwt", "vector_cosine_ops": "vector", "vector_l2_ops": "vector", "vector_ip_ops": "vector",
    "gin_hstore_ops": "hstore", "http_header": "http", "http_request": "http", "st_makepoint": "postgis",
    "uuid_generate_v4": "uuid-ossp", "uuid_generate_v1": "uuid-ossp", "uuid_generate_v5": "uuid-ossp",
    "gen_random_bytes": "pgcrypto", "digest": "pgcrypto", "hmac": "pgcrypto", "crypt": "pgcrypto",
    "gen_salt": "pgcrypto",
    "st_setsrid": "postgis", "st_dwithin": "postgis", "st_distance": "postgis", "st_point": "postgis",
}  # fmt: skip
"""The extension that a type, function or operator class is of."""

_TELLTALE = re.compile(
    rb"\bauth\"?\.\"?(?:uid|role|jwt|email|users)\b|\bstorage\"?\.\"?(?:objects|buckets)\b|\bsupabase_\w+\b|\bextensions\.\w+\s*\(",
    re.IGNORECASE,
)
_CERTAIN = re.compile(rb"\bauth\"?\.\"?(?:uid|role|jwt|email)\"?\s*\(|\bsupabase_\w+\b", re.IGNORECASE)
"""What tells in files that make schemas of those names themselves."""
_OWN_SCHEMA = re.compile(
    rb'\bCREATE\s+SCHEMA\s+(?:IF\s+NOT\s+EXISTS\s+)?"?(?:auth|storage|extensions)\b', re.IGNORECASE
)
_LOOKED_AT = 1 << 20
"""Bytes of each file in which a platform is looked for."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """An extension of plain SQL in place of one that the server lacks."""

    name: str
    schema: str | None
    """The schema that the extension brings; None: it goes where it is told."""
    requires: tuple[str, ...]
    says: str
    """How it differs from the real one, for the report."""
    script: str
    """With `@extschema@` for the schema that it goes to."""


@cache
def stand_ins() -> Mapping[str, StandIn]:
    """Every stand-in by name."""
    folder = resources.files(_PACKAGE).joinpath("extensions")
    sha1 = folder.joinpath("parts", "sha1.sql").read_text(encoding="utf-8")
    found = {}
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            heading = dict(re.findall(r"^-- (schema|requires|says|sha1): (.*)$", text, re.MULTILINE))
            name, schema = file.name.removesuffix(".sql"), heading.get("schema")
            script = text if schema is None else _make_schema(schema) + text
            if "sha1" in heading:
                script = sha1.replace("{name}", heading["sha1"]) + script
            requires = tuple(heading.get("requires", "").split())
            found[name] = StandIn(name, schema, requires, heading.get("says", "does the same"), script)
    for line in folder.joinpath("empty.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            found[line] = StandIn(line, None, (), "empty: nothing of it is there", "SELECT;\n")
    return found


def _make_schema(name: str) -> str:
    return queries.text(_PACKAGE, "schema.sql").replace("{schema}", name)


def install(folder: Path) -> None:
    """Write control and script files of all stand-ins to `folder`/extension, readable for everybody."""
    place = folder / "extension"
    place.mkdir(parents=True)
    for name, content in files().items():
        (place / name).write_text(content, encoding="utf-8")
        (place / name).chmod(0o644)
    for each in (folder, place):
        each.chmod(0o755)


def files(without: Iterable[str] = ()) -> dict[str, str]:
    """Control and script files by name, as they lie in a server's folder of extensions; `without` those extensions."""
    found = {}
    left_out = set(without)
    for each in stand_ins().values():
        if each.name in left_out:
            continue
        lines = [
            "comment = 'stand-in of pg-concurrency-harness'", f"default_version = '{STAND_IN}'", "relocatable = false",
            "trusted = true", *(f"requires = '{name}'" for name in each.requires),
        ]  # fmt: skip
        found[f"{each.name}.control"] = "\n".join([*lines, ""])
        found[f"{each.name}--{STAND_IN}.sql"] = each.script
    return found


def recognise(scripts: Sequence[Script]) -> tuple[str, str]:
    """The platform that the scripts were written for, and by what it was recognised."""
    for script in scripts:
        if "supabase" in script.path.absolute().parts:
            return "supabase", f"by the folder {script.path.parent}"
    own = any(_OWN_SCHEMA.search(script.source, 0, _LOOKED_AT) for script in scripts)
    for script in scripts:
        if found := (_CERTAIN if own else _TELLTALE).search(script.source, 0, _LOOKED_AT):
            return "supabase", f"by {found.group().decode().rstrip('( ')} in {script.path.name}"
    return "none", "nothing in the files is Supabase's"


def prelude(connection: psycopg.Connection[Any], default_privileges: str) -> list[str]:
    """Put everything that Supabase puts into a database there. The roles must be there.

    Gives the names of extensions for which a stand-in's script was run. Raises psycopg.Error.
    """
    name = connection.info.dbname
    (me,) = connection.execute("SELECT current_user").fetchone() or ("",)
    ran: list[str] = []
    with connection.transaction():
        connection.execute(_part("schemas").encode(), prepare=False)
        for extension, schema in _PREINSTALLED:
            if not create_extension(connection, extension, schema):
                ran.append(extension)
        for part in _PRELUDE[1:]:
            connection.execute(_part(part).encode(), prepare=False)
        for owner in dict.fromkeys((ROLE, str(me), "supabase_admin")):
            granted = sql.SQL(_part(default_privileges)).format(owner=sql.Identifier(owner))
            # On somebody else's server what this role makes is all that there will be.
            with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(granted)
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(_part("owners").encode(), prepare=False)
        for statement in _part("settings").split(";\n")[:-1]:
            setting = sql.SQL(statement).format(database=sql.Identifier(name))
            # A parameter that nobody knows is the superuser's to set, on somebody else's server.
            with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(setting)
    return ran


def _part(name: str) -> str:
    return queries.text(_PACKAGE, f"supabase/{name}.sql")


def create_extension(connection: psycopg.Connection[Any], name: str, schema: str | None) -> bool:
    """Create an extension; where the server lacks it, run its stand-in's script: then False.

    Raises psycopg.Error where there is no stand-in either, or not even its script may be run.
    """
    words = sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(name))
    if schema is not None:
        words += sql.SQL(" WITH SCHEMA {}").format(sql.Identifier(schema))
    try:
        with connection.transaction():
            connection.execute(words + sql.SQL(" CASCADE"))
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile, psycopg.errors.InsufficientPrivilege):
        if name not in stand_ins():
            raise
        run_stand_in(connection, name, schema)
        return False
    return True


def run_stand_in(connection: psycopg.Connection[Any], name: str, schema: str | None) -> None:
    """Run a stand-in's script, into `schema` (None: the first of the search_path)."""
    each = stand_ins()[name]
    if schema is None:
        (found,) = connection.execute("SELECT current_schema").fetchone() or (None,)
        schema = str(found or "public")
    quoted = sql.Identifier(schema).as_string(connection)
    with connection.transaction():
        (before,) = connection.execute("SELECT current_setting('search_path')").fetchone() or ("",)
        connection.execute(f"SET LOCAL search_path = {quoted}".encode())
        connection.execute(each.script.replace("@extschema@", quoted).encode(), prepare=False)
        connection.execute("SELECT set_config('search_path', %s, true)", [before])


def used(connection: psycopg.Connection[Any], also: Iterable[str] = ()) -> list[StandIn]:
    """The stand-ins that are in a database."""
    rows = connection.execute("SELECT extname FROM pg_extension WHERE extversion = %s", [STAND_IN]).fetchall()
    return [stand_ins()[name] for name in sorted({str(row[0]) for row in rows} | set(also))]
