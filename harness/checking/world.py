"""The world of one scenario: its scratch database, what its sessions reach there, and the way back to the baseline."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from harness.checking.wording import message, short
from harness.environment import own
from harness.environment.database import Database, Template
from harness.environment.description import Touched
from harness.environment.restore import SMALL, Baseline, Changes, Cloned, NotInPlaceError
from harness.environment.servers import connect, free_connections
from harness.environment.touched import Seen, seen, touched
from harness.errors import HarnessError, UsageError
from harness.options import Options
from harness.scenarios import clock
from harness.scenarios.acting import Actor, Driver, keep, read_answer, transactions
from harness.scenarios.headings import distance
from harness.scenarios.reach import Reach, reach
from harness.scenarios.scenario import Scenario
from harness.scenarios.variables import known_after, substituted, unset_variable
from harness.sqltext import queries
from harness.sqltext.scripts import Statement
from harness.verdict.observed import Answer, Table, Unit
from harness.verdict.values import LIKE_UUID


class World:
    """The scratch database of one scenario, its sessions, and what a check notes of them."""

    def __init__(self, scenario: Scenario, options: Options, template: Template, isolation: str) -> None:
        """`isolation` is the level of the sessions that name none."""
        if scenario.now is not None:
            scenario = _at_its_moment(scenario)
        self.scenario = scenario
        self.options = options
        self.template = template
        self.variables: dict[str, str] = {}
        """psql variables that the setup leaves: the sessions and the conditions know them."""
        self.sessions = tuple(
            replace(session, isolation=session.isolation or isolation, given=self.variables)
            for session in scenario.sessions
        )
        self.notes: dict[str, None] = {}
        self.actors = [Actor(session, self.connect) for session in self.sessions]
        self.lengths = [transactions(session) for session in self.sessions]
        """Of each session the number of statements in each of its transactions."""
        self.database: Database
        self.began: datetime
        self.local: datetime
        """The server's time when the check began, and what it takes for the local one."""
        self.started = time.monotonic()
        self.superuser = False
        self.reach: Reach
        self.ignored: frozenset[str] = frozenset()
        """Tables and columns that are not compared, by the names that a baseline gives them."""
        self.constants: frozenset[str] | None = None
        """Every UUID that was there before the sessions began; None where there are too many rows to look."""
        self.baseline: Baseline | Cloned | None = None
        self.restored = "in place"
        self.seen: Seen | None = Seen()
        """What was touched in the databases that are gone."""
        self.stack = ExitStack()
        self.retried: dict[str, int] = {}
        """By schedule or round: how often a session ran something again."""
        self.pinned = False
        """Statistics are made once, and nothing renews them: what the planner chooses is the same in every try."""
        self.changes: dict[str, Changes] = {}
        """What differed from the baseline when the final state was last read, with what is ignored."""
        self.settings = ""
        """More of the sessions' connections, as options of a connection."""

    def note(self, note: str) -> None:
        """Keep a note for the report; one that is made again is the same."""
        self.notes[note] = None

    def connect(self) -> psycopg.Connection[Any]:
        """A connection that does not wait for the disk: what is looked for is what can happen, not how fast it is.

        For the same reason a deadlock is found at once, where the role may say so.
        """
        options = "-c synchronous_commit=off" + (" -c deadlock_timeout=20ms" if self.superuser else "")
        return connect(self.dsn(options))

    def dsn(self, options: str) -> str:
        """To the scratch database, with settings for all that the sessions do on it."""
        theirs = conninfo_to_dict(self.database.dsn).get("options", "")
        return make_conninfo(self.database.dsn, options=f"{theirs} {options} {self.settings}".strip())

    def _connect_unseen(self) -> psycopg.Connection[Any]:
        """A connection whose reading and writing is not counted: it is the harness's own."""
        connection = self.connect()
        self._unseen(connection)
        return connection

    def _unseen(self, connection: psycopg.Connection[Any]) -> None:
        """From here on what is read and written on a connection is not counted."""
        try:
            connection.execute("SET track_counts = off")
        except psycopg.errors.InsufficientPrivilege:
            self.seen = None  # ours and theirs cannot be told apart

    @property
    def control(self) -> psycopg.Connection[Any]:
        """The connection on which the baseline is put back and the final state is read."""
        assert self.baseline is not None
        return self.baseline.connection

    def _count(self) -> None:
        """Keep what the server counted in the database, which nobody uses any more."""
        if self.seen is not None:
            more = seen(self.database.dsn)
            self.seen = None if more is None else self.seen | more

    def touched(self) -> Touched | None:
        """What the scenario touched; the check is over."""
        self._disconnect()
        self._count()
        text = self.scenario.path.read_bytes()
        return touched(self.database.dsn, self.seen, [text.decode(errors="replace")], hashlib.sha256(text).hexdigest())

    def _disconnect(self) -> None:
        for actor in self.actors:
            actor.close()
        if self.baseline is not None:
            self.baseline.connection.close()

    def close(self) -> None:
        self._disconnect()
        self.stack.close()

    def set_up(self, why_clone: str = "") -> None:
        """A database with the setup's rows, and the means to put them back: a clone where there is a reason for it."""
        self.close()
        self.baseline = None
        self.database = self.stack.enter_context(self.template.checkout())
        with connect(self.database.dsn) as connection:
            self._check_connections(connection)
            if self.scenario.now is not None:
                self._stop_the_clock(connection, self.scenario.now)
            self._run_setup(connection)
            if self.scenario.now is not None:
                clock.replace_words(connection)  # in functions and tables that the setup made
            row = connection.execute(queries.own("harness.scenarios", "checks.sql")["session"]).fetchone()
            assert row is not None
            self.began, self.local, self.superuser = row[0], row[1].replace(tzinfo=UTC), row[2]
            if self.pinned:
                connection.execute(queries.own("harness.scenarios", "checks.sql")["pin_statistics"])
                connection.execute("ANALYZE")
            self._unseen(connection)  # the setup was the scenario's, what follows looks around
            self._check_ignored(connection)
            self.reach = self._reached(connection)
            self.constants = self._constants(connection)
            if self.scenario.now is not None:
                self._note_what_reads_the_real_clock(connection)
        if self.reach.defines:
            why_clone = "the sessions define or change tables, functions or large objects"
        if not why_clone:
            own = self._connect_unseen()
            try:
                self.baseline = Baseline(own, self.reach.written)
            except NotInPlaceError as error:
                own.close()
                why_clone = str(error)
        if why_clone and self.template.given:
            self.restored = f"by filling the given database again: {why_clone}"
            self.baseline = Cloned(self._connect_unseen, self._fill_again)
        elif why_clone:
            self.restored = f"by a clone of the database: {why_clone}"
            base = self.stack.enter_context(self.template.copy(self.database, f"{self.database.name}_base"))
            self.baseline = Cloned(self._connect_unseen, lambda: self._clone_anew(base))
        if isinstance(self.baseline, Cloned) and self.baseline.unreadable:
            self.note(f"not compared, since the role may not read them: {', '.join(self.baseline.unreadable)}")

    def _check_connections(self, connection: psycopg.Connection[Any]) -> None:
        free, most = free_connections(connection)
        if len(self.sessions) > free:  # the control's takes the place of this one
            raise HarnessError(
                f"{len(self.sessions)} sessions need {len(self.sessions) + 1} connections, and {free + 1} are free.",
                tried=f"a limit of {most} (max_connections, or of role or database), less those reserved and in use",
                next_step="raise that limit, or write fewer sessions",
            )

    def _clone_anew(self, base: Database) -> None:
        for actor in self.actors:
            actor.close()
        self._count()
        self.template.copy(base, self.database.name)

    def _fill_again(self) -> None:
        for actor in self.actors:
            actor.close()
        self._count()
        self.template.fill_again()
        with connect(self.database.dsn) as connection:
            self._run_setup(connection)

    def _stop_the_clock(self, connection: psycopg.Connection[Any], moment: datetime) -> None:
        if self.template.given:
            raise UsageError(
                f"{self.scenario.path}: `now:` replaces a database's clock functions, and would leave yours so.",
                next_step="leave --database out, so that a scratch database is made",
            )
        if not clock.may_replace(connection):
            raise UsageError(
                f"{self.scenario.path}: `now:` needs a superuser: it replaces clock functions of the scratch database.",
                tried=f"as {connection.info.user}",
                next_step="let the harness boot a server (--server embedded or container), or give a superuser's DSN",
            )
        clock.stop(connection, moment)
        clock.replace_words(connection)
        self.note(f"time stands still at {moment.isoformat(sep=' ')}, for {clock.EXACT}")

    def _note_what_reads_the_real_clock(self, connection: psycopg.Connection[Any]) -> None:
        words = {name.lower() for key in self.reach.tables for name in key}
        for what, sentence in clock.left_alone(connection, self.reach.texts):
            if not what or words & set(re.findall(r"\w+", what.lower())):
                self.note(sentence)

    def _run_setup(self, connection: psycopg.Connection[Any]) -> None:
        self.variables.clear()
        self.variables.update(self.scenario.variables)
        for statement in self.scenario.setup:
            self._check_variables(statement, self.variables)
            text = substituted(statement.text, self.variables)
            answer = self._set_up_by(connection, statement, text)
            if statement.then == "gexec":
                for inner in (value for row in answer.rows for value in row if value is not None):
                    self._set_up_by(connection, statement, inner)
            keep(self.variables, statement.then, answer.columns, answer.rows)
        if connection.info.transaction_status != TransactionStatus.IDLE:
            last = self.scenario.setup[-1]
            raise UsageError(
                f"{last.path}:{last.line}: the setup begins a transaction and does not commit it.",
                next_step="end it with COMMIT, or leave BEGIN out: each statement of a setup commits by itself",
            )

    def _set_up_by(self, connection: psycopg.Connection[Any], statement: Statement, text: str) -> Answer:
        try:
            if statement.data is not None:
                with connection.cursor().copy(text.encode()) as copy:
                    copy.write(statement.data)
                return Answer()
            cursor = connection.execute(text.encode(), prepare=False)
        except psycopg.Error as error:
            if own.is_loss(error):
                raise
            raise UsageError(
                f"{statement.path}:{statement.line}: the setup fails: {message(error)}",
                tried=short(text),
                next_step="mend the setup, or the migrations and the seed that it builds on",
            ) from error
        return read_answer([] if cursor.pgresult is None else [cursor.pgresult], ordered=False)

    def _check_variables(self, statement: Statement, known: Collection[str]) -> None:
        """A variable that nothing sets would be a syntax error, of which nobody could tell whence it comes."""
        if name := unset_variable(statement.text, known):
            raise UsageError(
                f"{statement.path}:{statement.line}: the variable :{name} is not set here.",
                tried=short(statement.text),
                next_step="set it before: by \\gset behind a query, or by \\set; in a session, or in the setup for all",
            )

    def _check_ignored(self, connection: psycopg.Connection[Any]) -> None:
        """A table that is not there would be compared under its right name, and nobody would see why."""
        if not self.scenario.ignored:
            return
        query = queries.own("harness.scenarios", "checks.sql")["columns"]
        tables = {name: (set(columns), set(parts)) for name, columns, parts in connection.execute(query).fetchall()}
        for ignored in self.scenario.ignored:
            name = ignored.name.removeprefix("public.")
            table, _, column = name.rpartition(".")
            if name in tables:
                self.ignored |= {name} | tables[name][1]
            elif table in tables and column in tables[table][0]:
                self.ignored |= {name} | {f"{part}.{column}" for part in tables[table][1]}
            else:
                among = tables[table][0] if table in tables else tables
                wanted = column if table in tables else name
                near = min(among, key=lambda each: distance(each, wanted), default="")
                is_near = near and distance(near, wanted) <= max(2, len(wanted) // 3)
                what = f"{table} has no column {column}" if table in tables else f"there is no table {name}"
                raise UsageError(
                    f"{self.scenario.path}:{ignored.line}: `ignore:` names what is not there: {what}.",
                    next_step=f"did you mean {near}?" if is_near else "give its name as it is in the database",
                )

    def _reached(self, connection: psycopg.Connection[Any]) -> Reach:
        texts = []
        for session, lengths in zip(self.sessions, self.lengths, strict=True):
            if session.retry is not None and session.retry.session and len(lengths) > 1:
                raise UsageError(
                    f"{self.scenario.path}:{session.line}: `retry session:` would run what is committed once more: "
                    f"the session {session.name} has {len(lengths)} transactions.",
                    next_step="write `retry:`, which runs one transaction again, or make it one transaction",
                )
        for session in self.sessions:
            known: set[str] | None = set(session.variables)
            for statement in session.statements:
                if known is not None:
                    self._check_variables(statement, known)
                    known = known_after(statement, known)
                text = substituted(statement.text, session.variables)
                if refusal := _cannot_be_in_a_session(text):
                    raise UsageError(
                        f"{statement.path}:{statement.line}: {refusal[0]}",
                        tried=short(statement.text),
                        next_step=refusal[1],
                    )
                texts.append(text)
        return reach(connection, texts)

    def _constants(self, connection: psycopg.Connection[Any]) -> frozenset[str] | None:
        """UUIDs in the file, in the texts behind it and in the rows of the tables that they name."""
        texts = [self.scenario.path.read_text(encoding="utf-8-sig"), *self.reach.texts]
        for names in self.reach.tables:
            query = sql.SQL("SELECT t::text FROM (SELECT * FROM {} LIMIT {}) AS t").format(
                sql.Identifier(*names), sql.Literal(SMALL + 1)
            )
            try:
                rows = connection.execute(query).fetchall()
            except psycopg.Error:
                return None  # a view that fails, a role without the right
            if len(rows) > SMALL:
                return None
            texts += [row[0] for row in rows]
        return frozenset(found for text in texts for found in LIKE_UUID.findall(text))

    def counters(self) -> dict[str, tuple[int, int]]:
        """Scans and changes of every table so far, as the server counts them; nothing before PostgreSQL 15."""
        if self.control.info.server_version < 150000:
            return {}  # they come whenever they come
        rows = self.control.execute(queries.own("harness.scenarios", "checks.sql")["counters"]).fetchall()
        return {name: (scans, changes) for name, scans, changes in rows}

    def sequences(self) -> dict[str, int | None]:
        """Where every sequence stands."""
        row = self.control.execute(queries.own("harness.scenarios", "checks.sql")["sequences"]).fetchone()
        assert row is not None
        found: dict[str, int | None] = row[0]
        return found

    def state(self) -> dict[str, Table]:
        """The final state, without what is ignored: the rows in which each table differs from the baseline."""
        assert self.baseline is not None
        found = {}
        self.changes = self.baseline.changes()
        for name, changes in self.changes.items():
            table = self._without_ignored(name, changes)
            if table is not None:
                found[name] = table
        return found

    def _without_ignored(self, name: str, changes: Changes) -> Table | None:
        if name in self.ignored:
            return None
        kept = [at for at, column in enumerate(changes.columns) if f"{name}.{column}" not in self.ignored]
        if len(kept) == len(changes.columns):
            return Table(changes.columns, changes.types, changes.rows)
        # A row that differs in what is ignored alone is there with + and with -.
        counts: Counter[tuple[str | None, ...]] = Counter()
        for row in changes.rows:
            counts[tuple(row[at] for at in kept[1:])] += 1 if row[0] == "+" else -1
        rows = [("+" if n > 0 else "-", *row) for row, n in counts.items() for _ in range(abs(n))]
        if not rows:
            return None
        return Table(tuple(changes.columns[at] for at in kept), tuple(changes.types[at] for at in kept), tuple(rows))

    def lost(self, actor: Actor) -> bool:
        """Whether the environment took a session's connection, and no statement of the scenario did."""
        code = actor.answers[-1].code if actor.answers else None
        if code is None or not own.LOST.fullmatch(code):
            return False
        return not any("pg_terminate_backend" in text for text in self.reach.texts)

    def driver(self) -> Driver:
        """Drives the sessions' actors; one that hangs is told whom it waits for."""

        def blockers(pid: int) -> str:
            query = queries.own("harness.scenarios", "checks.sql")["waits_for"]
            names = {actor.pgconn.backend_pid: actor.session.name for actor in self.actors if not actor.lost}
            rows = self.control.execute(query, [pid]).fetchall()
            waits = [f"{names.get(by, f'process {by}')} ({what})" for by, what in rows]
            return ", ".join(waits)

        def cancel(pid: int) -> None:
            self.control.execute("SELECT pg_cancel_backend(%s)", [pid])

        return Driver(self.options.timeout, cancel, blockers)

    def unit(self, unit: Unit) -> str:
        """What reports call a unit: its session, and which of its transactions."""
        session = self.sessions[unit[0]].name
        return session if unit[1] < 0 else f"{session}'s transaction {unit[1] + 1}"


def _at_its_moment(scenario: Scenario) -> Scenario:
    """The scenario with the clock's words of the grammar as calls, which can be replaced."""

    def still(statements: Sequence[Statement]) -> tuple[Statement, ...]:
        return tuple(replace(each, text=clock.standing_still(each.text)) for each in statements)

    return replace(
        scenario,
        setup=still(scenario.setup),
        sessions=tuple(replace(session, statements=still(session.statements)) for session in scenario.sessions),
        conditions=tuple(replace(each, sql=clock.standing_still(each.sql)) for each in scenario.conditions),
    )


def _cannot_be_in_a_session(text: str) -> tuple[str, str] | None:
    """What cannot be judged, and what to do about it."""
    plain = re.sub(r"--[^\n]*|/\*.*?\*/", " ", text, flags=re.S).strip()
    if re.match(r"copy\b.*\b(from\s+stdin|to\s+stdout)\b", plain, re.I | re.S):
        return "COPY from or to the client has no client here.", "write INSERT statements, or SELECT"
    if re.match(r"(prepare\s+transaction|commit\s+prepared|rollback\s+prepared)\b", plain, re.I):
        return "A prepared transaction outlives its session, and is not supported.", "write COMMIT or ROLLBACK"
    return None
