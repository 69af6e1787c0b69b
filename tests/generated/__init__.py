"""Functions drawn from a grammar, explored reduced and unreduced: the same set of endings, or the reduction is wrong.

In CI a fixed seed draws some; `python -m tests.generated 5000 --seed 7` draws more by hand, and prints each case that
differs as a script to start from.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from harness.environment.servers import connect
from harness.schedules import Plan, Session, SessionsExplored, SessionsRun, Statement, explore_sessions

TABLES = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE TABLE a (id integer PRIMARY KEY, n integer);
CREATE TABLE b (id integer PRIMARY KEY, a integer REFERENCES a ON DELETE {on_delete} {deferred}, n integer);
CREATE TABLE c (id integer PRIMARY KEY, n integer{unique});
CREATE SEQUENCE s;
CREATE VIEW v AS SELECT id, n FROM a;
CREATE FUNCTION plain(p integer) RETURNS integer LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT sum(n) FROM c); END';
"""

RESET = """
TRUNCATE a, b, c;
INSERT INTO a VALUES (1, 1), (2, 2); INSERT INTO b VALUES (1, 1, 1), (2, 2, 2); INSERT INTO c VALUES (1, 11), (2, 22);
SELECT setval('s', 10);
"""
RESTORE = RESET.replace("TRUNCATE a, b, c", "DELETE FROM b; DELETE FROM c; DELETE FROM a")

STATE = """
SELECT ARRAY(SELECT a::text FROM a ORDER BY id) || ARRAY(SELECT b::text FROM b ORDER BY id)
    || ARRAY(SELECT c::text FROM c ORDER BY id) || (SELECT last_value::text FROM s)
"""


@dataclass
class Case:
    """A schema and two calls."""

    seed: str
    setup: list[str]
    calls: tuple[str, ...]

    def script(self) -> str:
        lines = ";\n".join(part.strip().rstrip(";") for part in [*self.setup, RESET])
        return f"-- seed {self.seed}\n{lines};\n" + "\n".join(f"-- call: {call}" for call in self.calls)


@dataclass
class Drawn:
    """Draws statements; `depth` bounds those inside others."""

    random: random.Random
    most: tuple[int, ...] = (1, 2, 2, 3)
    """Statements of a function, at most, of which one is drawn for each case."""
    helpers: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)

    def one(self, *options: str) -> str:
        return self.random.choice(options)

    def table(self) -> str:
        return self.one("a", "b", "c")

    def key(self) -> str:
        return self.one("p", "p", "p", "1", "2")

    def case(self, seed: str) -> Case:
        self.setup.append(
            TABLES.format(
                on_delete=self.one("CASCADE", "NO ACTION", "SET NULL"),
                deferred=self.one("", "", "DEFERRABLE INITIALLY DEFERRED"),
                unique=self.one("", "", " UNIQUE"),
            )
        )
        for number in range(self.random.randrange(3)):
            self.helper(f"h{number}")
        if self.random.random() < 0.35:
            self.trigger()
        if self.random.random() < 0.15:
            self.check()
        if self.random.random() < 0.15:
            self.default()
        most = self.random.choice(self.most)
        names = [self.function(f"f{number}", most) for number in range(self.random.choice((1, 2)))]
        keys = self.one("1 1", "1 1", "1 2").split()
        calls = tuple(f"SELECT {self.random.choice(names)}({key})" for key in keys)
        return Case(seed, self.setup, calls)

    def function(self, name: str, most: int) -> str:
        body = "\n    ".join(self.statement(2) for _ in range(self.random.randint(1, most)))
        self.setup.append(
            f"CREATE FUNCTION {name}(p integer) RETURNS text LANGUAGE plpgsql AS $$\n"
            f"DECLARE x integer := 0; y integer; r record;\nBEGIN\n    {body}\n    RETURN concat(x, ',', y);\nEND $$"
        )
        return name

    def helper(self, name: str) -> None:
        if self.random.random() < 0.5:
            body = f"{self.simple()} {self.one('RETURN x;', f'RETURN (SELECT n FROM {self.table()} WHERE id = p);')}"
            self.setup.append(
                f"CREATE FUNCTION {name}(p integer) RETURNS integer LANGUAGE plpgsql AS $$\n"
                f"DECLARE x integer := 0; y integer; r record;\nBEGIN {body} END $$"
            )
        elif self.random.random() < 0.5:
            self.setup.append(
                f"CREATE FUNCTION {name}(p integer) RETURNS integer LANGUAGE sql "
                f"RETURN (SELECT n FROM {self.one('a', 'c', 'v')} WHERE id = p)"
            )
        else:
            table = self.table()
            self.setup.append(
                f"CREATE FUNCTION {name}(p integer) RETURNS integer LANGUAGE sql AS $$\n"
                f"UPDATE {table} SET n = n + 1 WHERE id = p; SELECT max(n) FROM {self.table()} $$"
            )
        self.helpers.append(name)

    def trigger(self) -> None:
        table = self.table()
        deferred = self.random.random() < 0.3
        event = self.one("INSERT", "UPDATE", "INSERT OR UPDATE", "DELETE")
        row = "OLD" if event == "DELETE" else "NEW"
        body = self.simple().replace("p", "p")
        self.setup.append(
            "CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$\n"
            f"DECLARE p integer := {row}.id; x integer := 0; y integer; r record;\nBEGIN\n"
            f"    IF pg_trigger_depth() < 2 THEN {body} END IF;\n    RETURN {row};\nEND $$"
        )
        when = self.one("BEFORE", "AFTER")
        kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
        timing = f"AFTER {event} ON {table} DEFERRABLE INITIALLY DEFERRED" if deferred else f"{when} {event} ON {table}"
        self.setup.append(f"CREATE {kind} fired {timing} FOR EACH ROW EXECUTE FUNCTION fired()")

    def check(self) -> None:
        table, other = self.table(), self.table()
        self.setup.append(
            f"CREATE FUNCTION fits(q integer) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$\n"
            f"BEGIN RETURN (SELECT count(*) FROM {other} WHERE n > 1000) = 0; END $$"
        )
        self.setup.append(f"ALTER TABLE {table} ADD CHECK (fits(n))")

    def default(self) -> None:
        self.setup.append(
            "CREATE FUNCTION following() RETURNS integer LANGUAGE sql VOLATILE AS "
            f"'SELECT coalesce(max(n), 0) + 1 FROM {self.table()}'"
        )
        default = self.one("following()", "nextval('s')")
        self.setup.append(f"ALTER TABLE {self.table()} ALTER n SET DEFAULT {default}")

    def statement(self, depth: int) -> str:
        kind = self.random.random()
        if depth == 0 or kind < 0.6:
            return self.simple()
        inner, other = self.statement(depth - 1), self.statement(depth - 1)
        match self.random.randrange(8):
            case 0:
                return f"IF x > {self.one('0', '1', '2')} THEN {inner} ELSE {other} END IF;"
            case 1:
                return f"IF EXISTS (SELECT FROM {self.table()} WHERE id = {self.key()} AND n > 1) THEN {inner} END IF;"
            case 2:
                return f"BEGIN {inner} EXCEPTION WHEN OTHERS THEN x := -1; END;"
            case 3:
                return f"BEGIN {inner} RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN {other} END;"
            case 4:
                return f"IF FOUND THEN {inner} END IF;"
            case 5:
                return f"CASE WHEN EXISTS (SELECT FROM {self.table()} WHERE n = 2) THEN {inner} ELSE NULL; END CASE;"
            case 6:
                return f"FOR r IN SELECT id FROM {self.table()} ORDER BY id LOOP {self.simple()} END LOOP;"
            case _:
                return f"WHILE (SELECT count(*) FROM {self.table()}) > 99 LOOP NULL; END LOOP; {inner}"

    def simple(self) -> str:
        table, key = self.table(), self.key()
        how = self.one("UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE")
        columns, values = ("id, a, n", "{0}, 1, {1}") if table == "b" else ("id, n", "{0}, {1}")
        match self.random.randrange(24):
            case 0 | 1:
                return f"SELECT n INTO x FROM {self.one(table, table, 'v')} WHERE id = {key};"
            case 2:
                return f"SELECT sum(n) INTO y FROM {table};"
            case 3 | 4:
                value = self.one("n + 1", "x + 1", "coalesce(y, 0) + n")
                return f"UPDATE {table} SET n = {value} WHERE id = {key}{self.one('', '', ' AND n = x', ' AND n > 1')};"
            case 5:
                return f"UPDATE {table} SET n = n + 1;"
            case 6:
                return f"INSERT INTO {table} ({columns}) VALUES ({values.format('p + 10', 'x')});"
            case 7:
                action = self.one("NOTHING", f"UPDATE SET n = {table}.n + 1")
                return (
                    f"INSERT INTO {table} ({columns}) VALUES ({values.format(self.one('p', '5'), '5')})"
                    f" ON CONFLICT (id) DO {action};"
                )
            case 8:
                return f"DELETE FROM {table} WHERE id = {key};"
            case 9 | 10:
                return f"SELECT n INTO x FROM {table} WHERE id = {key} FOR {how};"
            case 11:
                return f"SELECT n INTO x FROM {table} WHERE id = {key} FOR {how} {self.one('NOWAIT', 'SKIP LOCKED')};"
            case 12:
                return f"SELECT n INTO x FROM {table} ORDER BY id LIMIT 1 FOR {how} SKIP LOCKED;"
            case 13:
                return f"PERFORM pg_advisory_xact_lock({self.one('1', 'p')});"
            case 14:
                return f"IF NOT pg_try_advisory_xact_lock({self.one('1', 'p')}) THEN y := -7; END IF;"
            case 15:
                return "x := nextval('s');"
            case 16:
                return self.one("SELECT last_value INTO x FROM s;", "PERFORM setval('s', coalesce(x, 0) + 20);")
            case 17:
                return f"EXECUTE 'UPDATE {table} SET n = n + 1 WHERE id = {self.one('1', '2')}';"
            case 18:
                query = f"SELECT n FROM %I WHERE id = $1 {self.one('', 'FOR UPDATE')}"
                return f"EXECUTE format('{query}', '{table}') INTO x USING p;"
            case 19:
                return f"EXECUTE format('UPDATE %I SET n = $1 WHERE id = $2', '{table}') USING x + 1, {key};"
            case 20 | 21 if self.helpers:
                return self.one(f"x := {self.one(*self.helpers)}({key});", f"PERFORM {self.one(*self.helpers)}({key});")
            case 22:
                update = f"UPDATE {table} SET n = n + 1 WHERE id = {key} RETURNING n"
                return f"WITH {table} AS ({update}) SELECT n INTO x FROM {table};"
            case 23:
                return self.one("x := plain(1);", f"INSERT INTO {table} (id) VALUES (p + 20);")
            case _:
                return f"SELECT count(*) INTO y FROM {table} WHERE n > 1;"


def drawn(seed: int | str, most: tuple[int, ...] = (1, 2, 2, 3)) -> Case:
    """The case of a seed."""
    return Drawn(random.Random(seed), most).case(str(seed))


@dataclass
class Compared:
    """What a case showed."""

    case: Case
    reduced: SessionsExplored
    whole: SessionsExplored
    missing: list[str]
    """Endings of the whole search that the reduced one does not have."""
    more: list[str]

    @property
    def decided(self) -> bool:
        """Both searches came to their end, and each schedule ends the same when it is repeated."""
        both = (self.reduced, self.whole)
        return all(found.exhausted and not found.unsteady for found in both)


class Comparer:
    """Explores cases in one database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = connect(dsn)
        self.connection.execute("SET client_min_messages = error; SET synchronous_commit = off")

    def prepare(self, case: Case) -> None:
        for part in case.setup:
            self.connection.execute(part.encode())
        self.connection.execute(RESET.encode())

    def compared(
        self, case: Case, *, seconds: float = 60.0, most: int | None = None, level: str = "read committed"
    ) -> Compared | None:
        """None where there are too many schedules for `most`."""
        self.prepare(case)
        begin = f"BEGIN ISOLATION LEVEL {level}"
        sessions = [
            Session(str(number), (Statement(call),), begin=begin, isolation=level)
            for number, call in enumerate(case.calls)
        ]
        # Choice by choice, so that this judges the relays as well.
        plan = Plan(reduction=False, relays=False, seconds=seconds, max_schedules=most)
        whole, endings = self.explored(sessions, plan)
        if not whole.exhausted:
            return None
        reduced, found = self.explored(sessions, Plan(seconds=seconds))
        return Compared(case, reduced, whole, sorted(endings - found), sorted(found - endings))

    def explored(self, sessions: list[Session], plan: Plan) -> tuple[SessionsExplored, set[str]]:
        endings: set[str] = set()

        def judge(run: SessionsRun) -> tuple[str, ...]:
            state = self.connection.execute(STATE).fetchone()
            endings.add(str(([[(a.command, a.code, a.rows) for a in told] for told in run.answers], state)))
            return ()

        def restore() -> None:
            self.connection.execute(RESTORE)

        return explore_sessions(self.dsn, sessions, plan, restore=restore, judge=judge), endings

    def close(self) -> None:
        self.connection.close()


@contextmanager
def comparer(server_dsn: str, name: str = "generated") -> Iterator[Comparer]:
    """A database for comparing on a server."""
    with connect(server_dsn) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        admin.execute(f"CREATE DATABASE {name}".encode())
        made = Comparer(psycopg.conninfo.make_conninfo(server_dsn, dbname=name))
        try:
            # Triggers and foreign keys rest while the tables are filled again.
            made.connection.execute("SET session_replication_role = replica")
            yield made
        finally:
            made.close()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
