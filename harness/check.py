"""Checking scenarios: setup -> serial orders -> explore and race -> judge -> a record.

Every scenario gets a database of its own, cloned from the template of migrations and seed. Its serial orders are run
first, then its sessions meet: `explore` tries the interleavings of their statements, `race` releases them together.
Each result is judged by verdict/serial.py, and the baseline is put back before the next one.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

import harness
from harness.environment.choice import open_server, open_template
from harness.environment.database import Database, Template
from harness.environment.description import Touched
from harness.environment.postgrest import SupabaseRoles
from harness.environment.restore import SMALL, Baseline, Changes, Cloned, NotInPlaceError
from harness.environment.servers import ExternalServer, Server, command_line, connect
from harness.environment.touched import Seen, seen, touched
from harness.errors import UsageError
from harness.options import OF_CALLS, OF_CONTRACTS, Options, as_words, check_outputs
from harness.records import AppliedFile, Record, RunRecord, Source
from harness.scenarios import clock, reader
from harness.scenarios.acting import Actor, Driver, ends_open, keep, transactions
from harness.scenarios.reach import Reach, reach
from harness.scenarios.reader import Busy, Condition, Scenario, columns_of, operators_of, substituted_by_any
from harness.scenarios.telling import Result, Told, findings_of, serial_orders
from harness.sources import sources
from harness.sqltext import queries
from harness.sqltext.scripts import Script, Statement
from harness.verdict.findings import Truth, counted
from harness.verdict.serial import (
    ALL_UP_TO,
    Answer,
    Judgement,
    Observed,
    Rules,
    SerialRun,
    Table,
    TooManyError,
    Unit,
    canonical,
    judge,
    masked,
)
from harness.verdict.values import LIKE_UUID

if TYPE_CHECKING:
    from harness import schedules
    from harness.schedules import SessionsExplored, SessionsRun, StatementAnswer
    from harness.schedules.program import Text

WAYS = ("explore", "race")

ROUNDS = 30
"""Rounds of a race in which the server shows that sessions met; then it has had its chance."""

MOST_ROUNDS = 200
RACE_SECONDS = 3.0
"""Of rounds that did not meet, so many, or for so long, are tried."""

SERIAL_SECONDS = 20.0
"""For all serial runs of one scenario; what needs more of them is undecided."""

EXPLORE_SECONDS = 20.0
"""For the orders of one scenario."""

MOST_EXPLORED = 4
"""Sessions of which every order is tried; with more there are too many."""

_STRIDE = 1009
"""How far sequences are set forward in every second serial run: each by another multiple, to be told apart."""

_DBLINK = re.compile(r"\bdblink\w*\s*\(", re.IGNORECASE)

_KEEPS_LOCKS = re.compile(r"\bpg_(?:try_)?advisory_lock", re.IGNORECASE)
"""Advisory locks that outlast their transaction."""

_KEEPS_SETTINGS = re.compile(
    r"(?:^|;|\bbegin\b|\bthen\b|\belse\b|\bloop\b)\s*(?:set\s+(?!local\b|transaction\b|constraints\b)|reset\b|listen\b|prepare\b)"
    r"|\bset_config\b|\bwith\s+hold\b",
    re.IGNORECASE,
)
"""What a backend keeps from one transaction to the next: settings, roles, channels, prepared statements, cursors."""

_CLOCK = re.compile(
    r"\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(|\bcurrent_(?:date|time)"
    r"|\blocaltime",
    re.IGNORECASE,
)

_WRONG_SQL = re.compile(r"42(?!501)...|26000|0A000")
"""SQLSTATEs of a statement that is wrong by itself: a syntax error, an unknown name, a feature that is not there."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What only the check of a scenario leaves in the record."""

    name: str
    scenario: str
    """Its claim."""
    file: str
    sessions: tuple[str, ...]
    by: tuple[str, ...]
    serial_orders: int
    """Distinct serial orders that were run."""
    rounds: int = 0
    met: int = 0
    """Rounds of the race in which the server shows that sessions overlapped."""
    schedules: int = 0
    """Interleavings that were tried one by one."""
    results: int = 0
    """Distinct results that were judged."""
    exhausted: bool = False
    masked: Mapping[str, str] = field(default_factory=dict)
    """What could not be compared as it is, and what was done instead."""
    ignored: Mapping[str, str] = field(default_factory=dict)
    allowed: Mapping[str, str] = field(default_factory=dict)
    restored: str = "in place"
    not_covered: tuple[str, ...] = ()
    disagreement: str = ""
    """Which of the two ways breaks what the other holds, and what that did not try; empty: they agree."""


class Checks:
    """Checks scenarios on one server and template; each leaves a record in `runs`."""

    def __init__(self, options: Options, server: Server, template: Template) -> None:
        self.options = options
        self.server = server
        self.template = template
        self.environment = server.describe()
        self.runs: list[RunRecord] = []
        self.test = ""
        self.said: Callable[[int, int], object] = lambda tries, red: None  # noqa: ARG005
        """Told after each try of a scenario: how many were judged, and how many of them did not hold."""
        self._named: dict[str, Path] = {}

    def check(
        self,
        scenario: Scenario,
        *,
        by: Sequence[str] = WAYS,
        isolation: str = "",
        replay: str = "",
        reduction: bool = True,
        seconds: float = EXPLORE_SECONDS,
    ) -> RunRecord:
        """Check one scenario on a database of its own. Raises UsageError for one that cannot be run.

        `replay` carries out one schedule and no other; without `reduction`, orders that differ only in steps that
        commute are all tried. Exploring ends after `seconds`.
        """
        other = self._named.setdefault(scenario.name, scenario.path)
        if other != scenario.path:  # two files of one name: each finding must be known by its own
            scenario = replace(scenario, title=f"{scenario.path.parent.name}/{scenario.name}")
        check = _Check(scenario, self.options, self.template, by, isolation, replay, reduction=reduction)
        check.seconds, check.said = seconds, self.said
        try:
            run = check.checked()
            run = replace(run, touched=check.touched(), test=self.test)
        finally:
            check.close()
        self.runs.append(run)
        return self.runs[-1]

    def aside(
        self, scenario: Scenario, *, by: Sequence[str], seconds: float, settings: str = ""
    ) -> tuple[RunRecord, Mapping[str, int]]:
        """Check a scenario once more, for the matrix; it does not become one of the runs.

        `settings` are options of the sessions' connections. Statistics are made once and pinned. Also gives, by
        schedule or round, how often a session had to run something again.
        """
        check = _Check(scenario, self.options, self.template, by, "", "", reduction=True)
        check.seconds, check.settings, check.pinned = seconds, settings, True
        try:
            return check.checked(), check.retried
        finally:
            check.close()

    def record(self, command: str, *, interrupted: bool = False, cut_short: str = "") -> Record:
        """Everything so far as one record; `cut_short` is the error that ended it."""
        return Record(
            harness_version=harness.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            profile="",
            contract="",
            environment=self.environment,
            migrations=tuple(AppliedFile(str(s.path), s.sha256) for s in self.template.migrations),
            seeds=tuple(AppliedFile(str(s.path), s.sha256) for s in self.template.seeds),
            runs=tuple(self.runs),
            interrupted=interrupted,
            sources=self._sources(),
            prelude=self.template.applied.prelude,
            cut_short=cut_short,
        )

    def _sources(self) -> tuple[Source, ...]:
        """The functions that steps are in, and the files of the scenarios that did not hold."""
        scripts = [Script.read(Path(run.plan["file"])) for run in self.runs]
        not_held = [s for s, run in zip(scripts, self.runs, strict=True) if run.truth is not Truth.HELD]
        applied = (*self.template.migrations, *self.template.seeds, *not_held)
        return (*sources(applied, self.runs), *(Source("", str(s.path), 1, s.text) for s in not_held))


@contextmanager
def open_checks(options: Options) -> Iterator[Checks]:
    """Boot the server, build the template, and take everything away at the end.

    Where the default folders of migrations and seed are not there, a scenario's own setup is all there is.
    """
    check_outputs(options)
    server = open_server(options.server, options.postgres_image, options.database)
    theirs = isinstance(server, ExternalServer)
    template = open_template(options, server, bare=True)
    with ExitStack() as stack:
        stack.enter_context(server)
        if not theirs:
            stack.enter_context(SupabaseRoles(server))
        stack.enter_context(template)
        yield Checks(options, server, template)


_GATES = ("", "SHARE", "", "EXCLUSIVE")
"""By turns, how a round's sessions are held up at once: SHARE stops whoever writes, EXCLUSIVE also who locks rows."""

_GATE_SECONDS = 0.1


class _Gate:
    """A lock on tables, held until every session that has not ended waits for it, or for another session.

    It delays sessions and does nothing else to them, so that whatever they do could have happened without it; and while
    it is held, the server says that they are under way at the same time.
    """

    def __init__(self, connection: psycopg.Connection[Any], tables: Sequence[sql.Identifier], mode: str) -> None:
        self._connection = connection
        self._until = time.monotonic() + _GATE_SECONDS
        self.waited = 0
        """How many waited at once."""
        lock = sql.SQL("BEGIN; LOCK TABLE {} IN {} MODE").format(sql.SQL(", ").join(tables), sql.SQL(mode))
        connection.execute(lock.as_bytes(connection), prepare=False)

    def __call__(self, running: Sequence[int]) -> bool:
        row = self._connection.execute(queries.own("harness.scenarios", "checks.sql")["waiting"], [running]).fetchone()
        assert row is not None
        self.waited = max(self.waited, row[0])
        if row[0] < len(running) and time.monotonic() < self._until:
            return False
        self.open()
        return True

    def open(self) -> None:
        """Let them go on."""
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            self._connection.execute("COMMIT")


class _Check:
    """The check of one scenario on one database."""

    def __init__(
        self,
        scenario: Scenario,
        options: Options,
        template: Template,
        by: Sequence[str],
        isolation: str,
        replay: str,
        *,
        reduction: bool,
    ) -> None:
        if scenario.now is not None:
            scenario = _at_its_moment(scenario)
        self.scenario = scenario
        self.options = options
        self.template = template
        self.by = tuple(by)
        self.replay = replay
        self.reduction = reduction
        self.sessions = tuple(
            replace(session, isolation=isolation) if isolation and not session.isolation else session
            for session in scenario.sessions
        )
        self.isolation = isolation
        self.seconds = EXPLORE_SECONDS
        self.notes: dict[str, None] = {}
        self.actors = [Actor(session, self._connect) for session in self.sessions]
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
        self.lengths = [transactions(session) for session in self.sessions]
        self.results: dict[object, Result] = {}
        self.serial: dict[tuple[Unit, ...], list[SerialRun]] = {}
        self.reads: dict[int, frozenset[str]] = {}
        self.writes: dict[int, frozenset[str]] = {}
        self.busy_known: dict[tuple[int, Answer], bool] = {}
        self.holds_known: dict[object, tuple[int, ...]] = {}
        self.serial_violations: dict[int, tuple[Unit, ...]] = {}
        self.rounds = self.met = self.schedules = 0
        self.tries = self.red = 0
        self.said: Callable[[int, int], object] = lambda tries, red: None  # noqa: ARG005
        self.retried: dict[str, int] = {}
        """By schedule or round: how often a session ran something again."""
        self.pinned = False
        """Statistics are made once, and nothing renews them: what the planner chooses is the same in every try."""
        self.settings = ""
        """More of the sessions' connections, as options of a connection."""
        self.exhausted = False
        self.serial_seconds = 0.0
        self.explored: SessionsExplored | None = None
        self.random = random.Random(16)  # noqa: S311 - pauses between sessions

    def _note(self, note: str) -> None:
        self.notes[note] = None

    # -- the database

    def _connect(self) -> psycopg.Connection[Any]:
        """A connection that does not wait for the disk: what is looked for is what can happen, not how fast it is.

        For the same reason a deadlock is found at once, where the role may say so.
        """
        options = "-c synchronous_commit=off" + (" -c deadlock_timeout=20ms" if self.superuser else "")
        return connect(self._dsn(options))

    def _dsn(self, options: str) -> str:
        """To the scratch database, with settings for all that the sessions do on it."""
        theirs = conninfo_to_dict(self.database.dsn).get("options", "")
        return make_conninfo(self.database.dsn, options=f"{theirs} {options} {self.settings}".strip())

    def _connect_unseen(self) -> psycopg.Connection[Any]:
        """A connection whose reading and writing is not counted: it is the harness's own."""
        connection = self._connect()
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

    def _set_up(self, why_clone: str = "") -> None:
        """A database with the setup's rows, and the means to put them back: a clone where there is a reason for it."""
        self.close()
        self.baseline = None
        self.serial.clear()
        self.results.clear()
        self.database = self.stack.enter_context(self.template.lent())
        with connect(self.database.dsn) as connection:
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
            self.reach = self._reach(connection)
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
            self._note(f"not compared, since the role may not read them: {', '.join(self.baseline.unreadable)}")

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
        self._note(f"time stands still at {moment.isoformat(sep=' ')}, for {clock.EXACT}")

    def _note_what_reads_the_real_clock(self, connection: psycopg.Connection[Any]) -> None:
        words = {name.lower() for key in self.reach.tables for name in key}
        for what, sentence in clock.left_alone(connection, self.reach.texts):
            if not what or words & set(re.findall(r"\w+", what.lower())):
                self._note(sentence)

    def _run_setup(self, connection: psycopg.Connection[Any]) -> None:
        for statement in self.scenario.setup:
            try:
                connection.execute(statement.text.encode(), prepare=False)
            except psycopg.Error as error:
                raise UsageError(
                    f"{statement.path}:{statement.line}: the setup fails: {_message(error)}",
                    tried=_short(statement.text),
                    next_step="mend the setup, or the migrations and the seed that it builds on",
                ) from error
        if connection.info.transaction_status != TransactionStatus.IDLE:
            last = self.scenario.setup[-1]
            raise UsageError(
                f"{last.path}:{last.line}: the setup begins a transaction and does not commit it.",
                next_step="end it with COMMIT, or leave BEGIN out: each statement of a setup commits by itself",
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
                near = min(among, key=lambda each: reader.distance(each, wanted), default="")
                is_near = near and reader.distance(near, wanted) <= max(2, len(wanted) // 3)
                what = f"{table} has no column {column}" if table in tables else f"there is no table {name}"
                raise UsageError(
                    f"{self.scenario.path}:{ignored.line}: `ignore:` names what is not there: {what}.",
                    next_step=f"did you mean {near}?" if is_near else "give its name as it is in the database",
                )

    def _reach(self, connection: psycopg.Connection[Any]) -> Reach:
        texts = []
        for session, lengths in zip(self.sessions, self.lengths, strict=True):
            if session.retry is not None and session.retry.session and len(lengths) > 1:
                raise UsageError(
                    f"{self.scenario.path}:{session.line}: `retry session:` would run what is committed once more: "
                    f"the session {session.name} has {len(lengths)} transactions.",
                    next_step="write `retry:`, which runs one transaction again, or make it one transaction",
                )
        for session in self.sessions:
            for statement in session.statements:
                text = reader.substituted(statement.text, session.variables)
                if refusal := _cannot_be_in_a_session(text):
                    raise UsageError(
                        f"{statement.path}:{statement.line}: {refusal[0]}",
                        tried=_short(statement.text),
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

    # -- runs

    def checked(self) -> RunRecord:
        self._set_up()
        try:
            return self._checked()
        except NotInPlaceError as error:
            self._set_up(str(error))
            return self._checked()

    def _checked(self) -> RunRecord:
        self._note_open_ends()
        self._alone()
        self._beforehand()
        ways = self._ways()
        if "explore" in ways:
            self._explore()
        if "race" in ways:
            self._race()
        return self._record(ways)

    def _note_open_ends(self) -> None:
        for session, open_ in zip(self.sessions, map(ends_open, self.sessions), strict=True):
            if open_:
                line = session.statements[-1].line
                self._note(f"{self.scenario.path}:{line}: {session.name} ends in a transaction, which is rolled back")

    def _ways(self) -> tuple[str, ...]:
        ways = ("explore",) if self.replay else self.by
        if len(self.sessions) == 1:
            self._note("one session meets nobody: it was run alone")
            return ()
        if "explore" in ways and len(self.sessions) > MOST_EXPLORED:
            self._note(f"with {len(self.sessions)} sessions there are too many orders to try each: race alone was made")
            ways = tuple(way for way in ways if way != "explore") or ("race",)
        if "explore" in ways and any("pg_terminate_backend" in text for text in self.reach.texts):
            self._note("a session that ends a backend is raced, and not explored")
            ways = tuple(way for way in ways if way != "explore") or ("race",)
        if "explore" in ways and any(_DBLINK.search(text) for text in self.reach.texts):
            self._note(
                "what acts through dblink is raced, and not explored: its connection cannot be made to wait its turn"
            )
            ways = tuple(way for way in ways if way != "explore") or ("race",)
        if "explore" in ways and isinstance(self.baseline, Cloned):
            self._note("orders are not explored where each needs a clone of the database: race alone was made")
            ways = tuple(way for way in ways if way != "explore") or ("race",)
        return ways

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        """Serial runs of an order; at least two, the second with the sequences set forward."""
        made = self.serial.setdefault(order, [])
        while len(made) < max(at_least, 2):
            if self.serial_seconds > SERIAL_SECONDS and len(order) > 1:
                if not made:
                    del self.serial[order]
                raise TooManyError
            began = time.monotonic()
            made.append(self._serial_run(order, len(made)))
            self.serial_seconds += time.monotonic() - began
        return made

    def _shifts(self, number: int) -> dict[str, int]:
        assert self.baseline is not None
        if number % 2 == 0:
            return {sequence.name: 0 for sequence in self.baseline.sequences}
        shifts = {}
        for place, sequence in enumerate(self.baseline.sequences):
            steps = _STRIDE * (place + 1)
            room = abs(sequence.most - sequence.last) // abs(sequence.increment)
            shifts[sequence.name] = steps if room > 2 * steps else 0
        return shifts

    def _serial_run(self, order: tuple[Unit, ...], number: int) -> SerialRun:
        assert self.baseline is not None
        steps = self._shifts(number)
        self.baseline.restore(steps)
        began = time.monotonic() - self.started
        increments = {sequence.name: sequence.increment for sequence in self.baseline.sequences}
        shifts = {name: step * increments[name] for name, step in steps.items()}
        driver = self._driver()
        if number and self.reach.tells_connections:
            for actor in self.actors:  # what a connection is called by must differ from run to run
                actor.close()
        answers: dict[Unit, tuple[Answer, ...]] = {}
        begun: set[int] = set()
        before = self._counters() if number == 0 else {}
        for at, (session, place) in enumerate(order):
            actor = self.actors[session]
            if session not in begun:
                begun.add(session)
                actor.begin()
            known = len(actor.answers)
            if place < 0:
                driver.drive([(actor, actor.play())])
            else:
                start = sum(self.lengths[session][:place])
                driver.drive([(actor, actor.play(start, start + self.lengths[session][place]))])
            answers[session, place] = tuple(actor.answers[known:])
            if driver.hung and place >= 0 and not all(driver.hung.values()):
                raise TooManyError  # it waits for nobody: it is slow, and its answer was cancelled
            if driver.hung and place < 0:
                raise UsageError(
                    f"{self.scenario.path}:{actor.session.line}: the session {actor.session.name} does not end when "
                    f"the sessions run one after another.",
                    tried=f"{' then '.join(self._unit(u) for u in order[: at + 1])}, {self.options.timeout:g} s",
                    next_step="mend the statement that waits, or give a longer --timeout",
                )
            if all(later != session for later, _ in order[at + 1 :]):
                actor.end()
            if number == 0:
                before = self._measure(actor, session, before)
        state = self._state()
        everybody = len({session for session, _ in order}) == len(self.sessions)
        if number == 0 and everybody and (self.scenario.judge == "transactions" or all(at < 0 for _, at in order)):
            # A final state is one in which everybody has ended: of some of the sessions alone nothing was claimed.
            for place in self._violated(state):
                self.serial_violations.setdefault(place, order)
        return SerialRun(answers, state, shifts, began)

    def _counters(self) -> dict[str, tuple[int, int]]:
        if self.control.info.server_version < 150000:
            return {}  # they come whenever they come
        rows = self.control.execute(queries.own("harness.scenarios", "checks.sql")["counters"]).fetchall()
        return {name: (scans, changes) for name, scans, changes in rows}

    def _measure(self, actor: Actor, session: int, before: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Note which tables a session touched, by the server's own counters, and give what these are now."""
        if self.control.info.server_version < 150000:
            return {}
        if not actor.lost:
            actor.pgconn.exec_(b"SELECT pg_stat_force_next_flush()")
        after = self._counters()
        scanned = {name for name, (scans, _) in after.items() if scans > before.get(name, (0, 0))[0]}
        changed = {name for name, (_, changes) in after.items() if changes > before.get(name, (0, 0))[1]}
        self.reads[session] = self.reads.get(session, frozenset()) | scanned
        self.writes[session] = self.writes.get(session, frozenset()) | changed
        return after

    def _state(self) -> dict[str, Table]:
        """The final state, without what is ignored: the rows in which each table differs from the baseline."""
        assert self.baseline is not None
        found = {}
        for name, changes in self.baseline.changes().items():
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

    def _driver(self) -> Driver:
        def blockers(pid: int) -> str:
            query = queries.own("harness.scenarios", "checks.sql")["waits_for"]
            names = {actor.pgconn.backend_pid: actor.session.name for actor in self.actors if not actor.lost}
            rows = self.control.execute(query, [pid]).fetchall()
            waits = [f"{names.get(by, f'process {by}')} ({what})" for by, what in rows]
            return ", ".join(waits)

        def cancel(pid: int) -> None:
            self.control.execute("SELECT pg_cancel_backend(%s)", [pid])

        return Driver(self.options.timeout, cancel, blockers)

    def _alone(self) -> None:
        """Each session alone: what fails already then is said first, and wrong SQL is no scenario."""
        for place, session in enumerate(self.sessions):
            answers = self.runs(((place, -1),))[0].answers[place, -1]
            for at, answer in enumerate(answers):
                if answer.code is None:
                    continue
                statement = session.statements[at]
                where = f"{statement.path}:{statement.line}: the session {session.name} fails already when it is alone"
                if _WRONG_SQL.fullmatch(answer.code):
                    raise UsageError(
                        f"{where}: {answer.message} (SQLSTATE {answer.code})",
                        tried=_short(statement.text),
                        next_step="mend the statement, or what it names",
                    )
                self._note(f"{where}: {answer.message} (SQLSTATE {answer.code}): {_short(statement.text)}")
                break
        for number, busy in enumerate(self.scenario.busy):
            self._ask_once(number, busy)

    def _ask_once(self, number: int, busy: Busy) -> None:
        """Have a condition of `busy:` evaluated before anything depends on it; say where no answer has its columns."""
        if not busy.sql:
            return
        answers = [a for runs in self.serial.values() for given in runs[0].answers.values() for a in given]
        columns = {column.lower() for answer in answers for column in answer.columns}
        for answer in answers:
            self._means_busy(number, busy, answer)
        missing = sorted(name for name in columns_of(busy.sql) if name.lower() not in columns)
        if missing:
            self._note(
                f"{self.scenario.path}:{busy.line}: `busy: when {busy.text}` can mean no answer: none has a column "
                f"{' or '.join(missing)}"
            )
        unknown = operators_of(busy.sql)
        known = self.control.execute(queries.own("harness.scenarios", "checks.sql")["operators"], [unknown]).fetchall()
        if wrong := sorted(set(unknown) - {row[0] for row in known}):
            raise UsageError(
                f"{self.scenario.path}:{busy.line}: the condition of `busy:` cannot be evaluated: there is no operator "
                f"{wrong[0]}",
                tried=busy.text,
                next_step="write SQL over the answer's columns",
            )

    def _beforehand(self) -> None:
        """Serial orders that are run before anybody meets.

        Of all sessions, from the first to the last and back, for what must never be so: then it is no race. Where
        clocks are read, every order that may explain a result: a value that drifts lies between runs before and after.
        """
        everybody = tuple((place, -1) for place in range(len(self.sessions)))
        orders = [everybody, everybody[::-1]]
        if any(_CLOCK.search(text) for text in self.reach.texts):
            if len(everybody) <= ALL_UP_TO:
                sizes = range(2, len(everybody) + 1)
                orders = [order for size in sizes for order in itertools.permutations(everybody, size)]
        elif not self.scenario.conditions:
            return
        for order in orders:
            with suppress(TooManyError):
                self.runs(order)

    # -- races

    def _race(self) -> None:
        driver = self._driver()
        until = time.monotonic() + RACE_SECONDS
        broken_since = 0
        while self.met < ROUNDS and self.rounds < MOST_ROUNDS and time.monotonic() < until:
            result = self._round(driver)
            self.rounds += 1
            broken_since += result.judgement.truth is Truth.BROKEN
            if broken_since and self.rounds >= 10:
                break

    def _round(self, driver: Driver) -> Result:
        """One round; by turns all at once, a little apart, and held up by a lock on the tables till all wait for it."""
        assert self.baseline is not None
        self.baseline.restore()
        for actor in self.actors:
            actor.begin()
        order = list(range(len(self.actors)))
        self.random.shuffle(order)
        plays = [(self.actors[place], self.actors[place].play()) for place in order]
        mode = _GATES[self.rounds % len(_GATES)]
        gate = self._gate(mode) if mode else None
        if gate is not None:
            try:
                driver.drive(plays, gate=gate)
            finally:
                gate.open()
        else:
            apart = 0.0 if self.rounds % 4 == 0 else self.random.choice((5e-5, 2e-4, 1e-3))
            driver.drive(plays, [self.random.uniform(0, apart) for _ in order])
        self.met += (gate is not None and gate.waited > 1) or self._overlapped(driver, order)
        answers = {(place, -1): tuple(actor.answers) for place, actor in enumerate(self.actors)}
        hung = {(order[at], -1): whom for at, whom in driver.hung.items()}
        used_up = frozenset((place, -1) for place, actor in enumerate(self.actors) if actor.used_up)
        self.retried[f"round {self.rounds}"] = sum(actor.repeated for actor in self.actors)
        for actor in self.actors:
            actor.end()
        return self._judged(answers, "race", hung=hung, used_up=used_up)

    def _gate(self, mode: str) -> _Gate | None:
        """A lock on the tables that the sessions write; None where there is none, or it cannot be had."""
        if not isinstance(self.baseline, Baseline):
            return None
        written = frozenset().union(*self.writes.values())
        tables = [table.quoted for table in self.baseline.tables if not self.writes or table.name in written]
        return _Gate(self.control, tables, mode) if tables else None

    def _overlapped(self, driver: Driver, order: Sequence[int]) -> bool:
        """Whether two sessions were under way at the same time, for which there are two proofs.

        Each had its first answer before the other's last statement was sent; or, by the server's clock, each one's last
        statement began before the other's ended.
        """
        pids = {self.actors[place].pgconn.backend_pid: at for at, place in enumerate(order)
                if not self.actors[place].lost}  # fmt: skip
        query = queries.own("harness.scenarios", "checks.sql")["last_statements"]
        rows = self.control.execute(query, [list(pids)]).fetchall()
        spans = {pids[pid]: (began, ended) for pid, began, ended in rows if began is not None and ended is not None}
        for one, other in itertools.combinations(range(len(order)), 2):
            first, last = driver.first_answer, driver.last_sent
            if one in first and other in first and first[one] < last[other] and first[other] < last[one]:
                return True
            if one in spans and other in spans and spans[one][0] < spans[other][1] and spans[other][0] < spans[one][1]:
                return True
        return False

    def _explore(self) -> None:
        """Every order of the statements of the sessions, and of those inside the functions that they call."""
        from harness.schedules import Plan, explore_sessions

        assert self.baseline is not None
        for actor in self.actors:  # a session of ours must not keep what another waits for
            actor.close()
        rewritten = False

        def restore() -> None:
            nonlocal rewritten
            assert self.baseline is not None
            if not rewritten:
                rewritten = True
                self.baseline.accept_catalogue()
            self.baseline.restore()

        plan = Plan(
            len(self.sessions),
            seconds=self.seconds,
            replay=self.replay or None,
            schedule_seconds=self.options.timeout,
            reduction=self.reduction,
            command=self._repeat(),
        )
        found = explore_sessions(
            self._dsn(""), [self._program(s) for s in self.sessions], plan, restore=restore, judge=self._scheduled
        )
        self.baseline.accept_catalogue()
        self.explored = found
        self.schedules, self.exhausted = found.schedules, found.exhausted

    def _program(self, session: reader.Session) -> schedules.Session:
        """A session as the explorer takes it."""
        from harness.environment.identity import Identity
        from harness.schedules import Session
        from harness.schedules import Statement as Step

        wanted = replace(session.identity, isolation=session.isolation or None)
        identity = None if wanted == Identity() else wanted.statements(self.control)
        statements = tuple(
            Step(self._text(session, at), s.line, substituted_by_any(s.text), s.text)
            for at, s in enumerate(session.statements)
        )
        retry = session.retry
        return Session(
            session.name,
            statements,
            begin="BEGIN" if identity is None else identity.begin,
            local="" if identity is None else "; ".join(t for t in (identity.set_transaction, identity.local) if t),
            outside="" if identity is None else identity.session,
            after="" if identity is None else identity.reset,
            isolation=session.isolation,
            retry=frozenset() if retry is None else retry.codes,
            retry_session=retry is not None and retry.session,
            retries=0 if retry is None else retry.times,
            stop_on_error=session.stop_on_error,
            leaves_locks=any(_KEEPS_LOCKS.search(text) for text in self.reach.texts),
            leaves_settings=any(_KEEPS_SETTINGS.search(text) for text in self.reach.texts),
        )

    def _text(self, session: reader.Session, at: int) -> Text:
        """A statement's text; where it depends on what was answered before, a function of that."""
        text = reader.substituted(session.statements[at].text, session.variables)
        if not reader.has_variables(text):
            return text

        def of(answers: Sequence[StatementAnswer]) -> str:
            variables = session.variables
            for statement, answer in zip(session.statements, answers, strict=False):
                keep(variables, statement.then, answer.columns, answer.rows)
            return reader.substituted(session.statements[at].text, variables)

        return of

    def _scheduled(self, run: SessionsRun) -> list[str]:
        """Judge one schedule; the names of what is wrong with it."""
        answers: dict[Unit, tuple[Answer, ...]] = {}
        for place, given in enumerate(run.answers):
            ordered = self.actors[place].ordered
            answers[place, -1] = tuple(
                Answer(a.columns, a.types, a.rows, a.command, a.code, a.message, ordered[at])
                for at, a in enumerate(given)
            )
        used_up = frozenset((place, -1) for place in run.used_up)
        self.retried[run.replay] = sum(max((a.tries - 1 for a in given), default=0) for given in run.answers)
        result = self._judged(answers, "explore", used_up=used_up)
        result.replays[run.replay] = None
        truth = result.judgement.truth
        names = [] if truth is Truth.HELD else ["one_after_another" if truth is Truth.BROKEN else "undecided"]
        return names + [f"{self.scenario.conditions[place].kind}_{place + 1}" for place in result.violated]

    # -- judging

    def _judged(
        self,
        answers: Mapping[Unit, tuple[Answer, ...]],
        way: str,
        *,
        hung: Mapping[Unit, str] | None = None,
        used_up: frozenset[Unit] = frozenset(),
    ) -> Result:
        """Judge what is in the database now; alike results are judged once."""
        state = self._state()
        busy = {unit: places for unit, given in answers.items() if (places := self._busy(given))}
        observed = Observed(answers, state, busy, hung or {}, used_up)
        violated = self._violated(state)
        key = canonical(observed, self._is_now, self.constants), violated
        known = self.results.get(key)
        if known is None:
            if self.scenario.judge == "queries only":
                judgement = Judgement(Truth.HELD, "queries only")
            else:
                judgement = judge(observed, self.lengths, self, self._rules())
            known = self.results[key] = Result(observed, judgement, violated)
        known.times[way] += 1
        self.tries += 1
        self.red += known.judgement.truth is Truth.BROKEN or bool(violated)
        self.said(self.tries, self.red)
        return known

    def _is_now(self, text: str) -> bool:
        """Whether a time is one that a clock showed since the check began: it tells no result from another."""
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            return False
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC) + (self.began - self.local)
        return self.began <= value <= self.began + timedelta(seconds=time.monotonic() - self.started)

    def _rules(self) -> Rules:
        assert self.baseline is not None
        return Rules(
            judge=self.scenario.judge,
            ordered=self.reach.ordered,
            starts={s.name: s.last if s.called else s.last - 1 for s in self.baseline.sequences if s.increment > 0},
            reads=self.reads,
            writes=self.writes,
            chooses=bool(self.reach.chooses),
        )

    def _busy(self, answers: Sequence[Answer]) -> frozenset[int]:
        return frozenset(
            at
            for at, answer in enumerate(answers)
            if any(self._means_busy(number, busy, answer) for number, busy in enumerate(self.scenario.busy))
        )

    def _means_busy(self, number: int, busy: Busy, answer: Answer) -> bool:
        if busy.code:
            like = "" if busy.like is None else _like(busy.like)
            return answer.code == busy.code and (not like or re.fullmatch(like, answer.message or "", re.S) is not None)
        if answer.code is not None:
            return False
        if busy.no_row:
            return bool(answer.columns) and not answer.rows
        if busy.nothing_changed:
            return answer.changed == 0
        if not answer.rows:
            return False
        key = (number, answer)
        if key not in self.busy_known:
            self.busy_known[key] = self._true_of_a_row(busy, answer)
        return self.busy_known[key]

    def _true_of_a_row(self, busy: Busy, answer: Answer) -> bool:
        """Ask the server whether a condition holds of one of an answer's rows."""
        rows = sql.SQL(", ").join(
            sql.SQL("({})").format(
                sql.SQL(", ").join(
                    sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(self._type_name(type_)))
                    for value, type_ in zip(row, answer.types, strict=True)
                )
            )
            for row in answer.rows
        )
        query = sql.SQL("SELECT coalesce(bool_or({}), false) FROM (VALUES {}) AS answer ({})").format(
            sql.SQL(f"({busy.sql})"),
            rows,
            sql.SQL(", ").join(map(sql.Identifier, answer.columns)),
        )
        try:
            row = self.control.execute(query).fetchone()
        except (psycopg.errors.UndefinedColumn, psycopg.errors.DuplicateAlias, psycopg.errors.AmbiguousColumn):
            return False  # another statement's answer
        except psycopg.Error as error:
            raise UsageError(
                f"{self.scenario.path}:{busy.line}: the condition of `busy:` cannot be evaluated: {_message(error)}",
                tried=busy.text,
                next_step="write SQL over the answer's columns",
            ) from error
        return bool(row and row[0])

    def _type_name(self, oid: int) -> str:
        row = self.control.execute("SELECT format_type(%s, NULL)", [oid]).fetchone()
        assert row is not None
        return "text" if row[0] in ("record", "void") else str(row[0])

    def _violated(self, state: Mapping[str, Table]) -> tuple[int, ...]:
        """The conditions that do not hold in the database now, by place."""
        if not self.scenario.conditions:
            return ()
        key = tuple(sorted((name, frozenset(Counter(table.rows).items())) for name, table in state.items()))
        if key not in self.holds_known:
            conditions = enumerate(self.scenario.conditions)
            self.holds_known[key] = tuple(place for place, each in conditions if not self._holds(each))
        return self.holds_known[key]

    def _holds(self, condition: Condition) -> bool:
        try:
            if self.seen is not None:
                self.control.execute("SET track_counts = on")
            rows = self.control.execute(condition.sql.encode(), prepare=False).fetchall()
            if self.seen is not None:
                self.control.execute("SET track_counts = off")
        except psycopg.Error as error:
            raise UsageError(
                f"{self.scenario.path}:{condition.line}: the query of `{condition.kind}:` fails: {_message(error)}",
                tried=_short(condition.sql),
                next_step="mend the query",
            ) from error
        if condition.kind == "never":
            return not rows
        return all(value is True for row in rows for value in row)

    # -- the record

    def _unit(self, unit: Unit) -> str:
        session = self.sessions[unit[0]].name
        return session if unit[1] < 0 else f"{session}'s transaction {unit[1] + 1}"

    def _note_what_cannot_race(self) -> None:
        """A scenario in which nobody does anything holds, and proves nothing."""
        states = [each.observed.state for each in self.results.values()]
        states += [run.state for runs in self.serial.values() for run in runs]
        if len(self.sessions) > 1 and len(self.results) == 1 and not any(states):
            self._note(
                "nothing happened that could race: nobody changed anything that is compared, and each was told the "
                "same in every order; are the rows there that the sessions need, and may they see them (as:)?"
            )

    def _record(self, ways: tuple[str, ...]) -> RunRecord:
        own = () if self.explored is None else self.explored.findings
        broken = {} if self.explored is None else dict(self.explored.broken)
        if (undecided := broken.pop("undecided", None)) is not None:
            broken.setdefault("one_after_another", undecided)
        told = Told(
            scenario=self.scenario,
            sessions=self.sessions,
            results=tuple(self.results.values()),
            serial_violations=self.serial_violations,
            lengths=self.lengths,
            ways=ways,
            rounds=self.rounds,
            met=self.met,
            repeat=self._repeat(),
            explored=own,
            schedules={name: each.replay for name, each in broken.items()},
        )
        self._note_what_cannot_race()
        masked_columns = self._masked()
        for how in dict.fromkeys(masked_columns.values()):
            names = [name for name, each in masked_columns.items() if each == how]
            self._note(f"{how}: {', '.join(names)}")
        for ignored in self.scenario.ignored:
            self._note(f"not compared: {ignored.name}, because {ignored.because}")
        checked = Checked(
            name=self.scenario.title,
            scenario=self.scenario.claim,
            file=str(self.scenario.path),
            sessions=tuple(session.name for session in self.sessions),
            by=ways,
            serial_orders=len(self.serial),
            rounds=self.rounds,
            met=self.met,
            schedules=self.schedules,
            results=len(self.results),
            exhausted=self.exhausted,
            masked=masked_columns,
            ignored={i.name: i.because for i in self.scenario.ignored},
            allowed={a.anomaly: a.because for a in self.scenario.allowed},
            restored=self.restored,
            not_covered=() if self.explored is None else self.explored.not_covered,
            disagreement=self._disagreement(),
        )
        return RunRecord(
            kind="check",
            target="sql",
            plan={"file": str(self.scenario.path), "by": list(ways), "isolation": self.isolation or None},
            metrics=None,
            overlap=None,
            findings=findings_of(told),
            notes=tuple(self.notes),
            repeat=self._repeat(),
            details={
                "check": checked,
                "sessions": [session.name for session in self.sessions],
                "statements": {session.name: [s.text for s in session.statements] for session in self.sessions},
                "serial_orders": serial_orders(told),
                "exploration": {"broken": {f"{self.scenario.title}.{name}": each for name, each in broken.items()}},
            },
        )

    def _disagreement(self) -> str:
        """What one way broke and the other, which was made as well, did not."""
        red = [r for r in self.results.values() if r.judgement.truth is Truth.BROKEN or r.violated]
        raced, explored = sum(r.times["race"] for r in red), sum(r.times["explore"] for r in red)
        if self.explored is None or not self.rounds or bool(raced) == bool(explored):
            return ""
        rounds, orders = counted(self.rounds, "round"), counted(self.schedules, "interleaving")
        if raced:
            left = "; ".join([*self.explored.undecided, *self.explored.not_covered][:4])
            whole = "all there are" if self.exhausted else "not all there are"
            return (
                f"{self.scenario.title}: racing breaks, in {raced} of {rounds}, what holds in {orders}, {whole}. "
                f"Exploring did not try: {left}"
            )
        return (
            f"{self.scenario.title}: exploring breaks, in {explored} of {orders}, what holds in {rounds}, of which "
            f"{self.met} met. The race did not try: orders that the clock did not make"
        )

    def _masked(self) -> dict[str, str]:
        """What could not be compared as it is, by the name of the column."""
        found = {}
        for (table, unit, at, column), how in masked(self.serial.values()).items():
            if unit is None:
                found[f"{table}.{column}"] = how
            elif unit[1] < 0:
                statement = self.sessions[unit[0]].statements[at]
                found[f"{column} of line {statement.line}"] = how
        return found

    def _repeat(self) -> str:
        words = ["harness", "check", str(self.scenario.path)]
        if self.by != WAYS:
            words += ["--by", *self.by]
        if self.seconds != EXPLORE_SECONDS:
            words += ["--seconds", f"{self.seconds:g}"]
        if self.isolation:
            words += ["--isolation", self.isolation]
        return command_line([*words, *as_words(self.options, OF_CONTRACTS | OF_CALLS)])


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


def _like(pattern: str) -> str:
    """A LIKE pattern as a regular expression."""
    return "".join(".*" if sign == "%" else "." if sign == "_" else re.escape(sign) for sign in pattern)


def _message(error: psycopg.Error) -> str:
    return f"{error.diag.message_primary or ' '.join(str(error).split())} (SQLSTATE {error.sqlstate or 'none'})"


def _short(text: str) -> str:
    """A statement on one line."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:97] + "..."
