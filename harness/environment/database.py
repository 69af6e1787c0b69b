"""Scratch databases: a template that holds migrations and seed, and a clone of it for each run.

Runs share nothing, and what the template costs is paid once.
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.environment import migrations as files
from harness.environment import platforms, setup
from harness.environment.applied import Applied, Failure
from harness.environment.applying import Applier
from harness.environment.given import GivenDatabase
from harness.environment.leftovers import create_database, drop_database
from harness.environment.own import Connection, is_loss
from harness.environment.roles import SupabaseRoles
from harness.environment.servers import ExternalServer, Server, connect
from harness.environment.supplying import Supplier, roles_created
from harness.errors import HarnessError, UsageError
from harness.signals import uninterrupted
from harness.sqltext import queries
from harness.sqltext.scripts import Script

_SQL = queries.own("harness.environment")


@dataclass(frozen=True, slots=True)
class Database:
    """A scratch database; leaving the context drops it, whoever is still connected."""

    dsn: str
    name: str
    _maintenance: str
    _release: Callable[[], None] | None = None
    """Called in place of dropping a database that was given."""

    def engine(self) -> Any:
        """A SQLAlchemy engine on this database, without a pool of its own."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine("postgresql+psycopg://", creator=lambda: Connection.connect(self.dsn), poolclass=NullPool)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection. Raises HarnessError when the server is gone."""
        return connect(self.dsn)

    def drop(self) -> None:
        """Drop it now, whoever is still connected. Raises HarnessError when the server is gone."""
        if self._release is not None:
            self._release()
            return
        with connect(self._maintenance) as connection:
            drop_database(connection, self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A server that is gone has taken the database with it, or out of reach; the run itself says so.
        with uninterrupted(), suppress(HarnessError, psycopg.OperationalError):
            self.drop()


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """How files become a template."""

    platform: str = "auto"
    """What the files were written for: auto, supabase or none."""
    default_privileges: str = "open"
    """Of Supabase's `public`: open or closed."""
    keep_going: bool = False
    """Apply what can be applied, and list what failed."""
    limit: float = 600.0
    """Seconds that one file may take."""
    setup: str | None = None
    """A command of the shell that builds the schema, before the files."""
    raising: bool = True
    """Whether a failure is raised; else it stands in what was applied, and nothing comes after it."""


_KEPT = 8
"""Databases of runs that are over, kept until there are more."""


class Template:
    """The database that runs are cloned from: migrations, then seed, each file in one transaction."""

    def __init__(
        self,
        server: Server,
        migrations: Sequence[Path],
        seeds: Sequence[Path],
        *,
        server_goes: bool = False,
        plan: ApplyPlan = ApplyPlan(),
    ) -> None:
        """Nothing is created yet. `server_goes`: the server is thrown away right after, so nothing needs dropping.

        Raises HarnessError when a path is missing or a folder is empty.
        """
        self._server = server
        self._server_goes = server_goes
        self._given: GivenDatabase | None = None
        if isinstance(server, ExternalServer) and server.database is not None:
            self._given = GivenDatabase(server.dsn, server.database)
        self._filled = self._in_use = False
        """Of a given database: whether it is as a run expects it, and whether one has it."""
        self._ours = not isinstance(server, ExternalServer)
        self._plan = plan
        found = files.find(migrations, "migrations", "--migrations", keep_going=plan.keep_going)
        seeded = files.find(seeds, "seed", "--seed", keep_going=plan.keep_going)
        self.migrations: tuple[Script, ...] = found.scripts
        self.seeds: tuple[Script, ...] = seeded.scripts
        self._order = (*found.order, *seeded.order)
        self._unreadable = [
            Failure(path, 0, error.what, None, error.tried, error.next_step)
            for path, error in (*found.unreadable, *seeded.unreadable)
        ]
        self._platform = (plan.platform, "asked for")
        if plan.platform == "auto":
            self._platform = platforms.recognise(self.migrations)
        self._applied: Applied | None = None
        self._owner: str | None = None
        """Whom the databases belong to, where that is not who is connected."""
        self._kept_settings: list[str] = []
        """Statements that give a clone what CREATE DATABASE does not copy; the clone's name is {}."""
        self._roles: SupabaseRoles | None = None
        self._roles_before: set[str] = set()
        self._roles_made: set[str] = set()
        self._role: str | None = None
        """As whom migrations run, where that is not who is connected."""
        self._prefix = f"harness_{os.getpid()}_{secrets.token_hex(6)}"
        self._numbers = itertools.count(1)
        self._made: Future[Database] | None = None
        self._finished: list[Database] = []
        self._preparing: threading.Thread | None = None

    @property
    def platform(self) -> str:
        """What the migrations were written for, and why that is taken for it."""
        return f"{self._platform[0]} ({self._platform[1]})"

    @property
    def order(self) -> tuple[str, ...]:
        """For each folder, a sentence: in which order its files are taken, and what is left out."""
        return self._order

    @property
    def applied(self) -> Applied:
        """What became of the files. They are applied when the context is entered."""
        assert self._applied is not None
        return self._applied

    @property
    def _database(self) -> Database:
        if self._given is not None:
            return Database(self._given.dsn, self._given.name, self._given.dsn, self._released)
        return self._named(f"{self._prefix}_template")

    def clone(self) -> Database:
        """A fresh database with everything that the template holds.

        A given database is that for one run at a time: raises UsageError where another has it.
        """
        if self._given is not None:
            return self._given_filled()
        made, self._made = self._made, None
        if made is None or made.exception() is not None:
            return self._clone()  # and what went wrong on the thread is said now, if it still does
        return made.result()

    def copy(self, database: Database, name: str) -> Database:
        """A database of that name with everything that one of ours has, to which nobody may be connected meanwhile.

        It replaces one of that name. Raises HarnessError.
        """
        made = self._named(name)
        made.drop()
        self._create(made, database.name)
        return made

    def together(self, number: int | None = None) -> Callable[[int], None] | None:
        """What lets backends run on one processor (Server.together); by default on one that other processes, which may
        explore at the same time, do not take."""
        return self._server.together(os.getpid() if number is None else number)

    @contextmanager
    def checkout(self) -> Iterator[Database]:
        """A clone for one run.

        On a server that is thrown away it is dropped later, in `prepare_next`: a drop is a checkpoint, which takes
        its time.
        """
        with ExitStack() as stack:
            database = self.clone()
            if self._server_goes:
                stack.callback(self._finished.append, database)
            else:
                stack.enter_context(database)
            yield database

    def prepare_next(self) -> None:
        """Make the next clone, drop old ones, on a thread: called while the server has little to do."""
        if self._made is None and self._given is None:
            self._made = made = Future[Database]()
            self._preparing = threading.Thread(target=self._prepare_next, args=(made,), name="next clone", daemon=True)
            self._preparing.start()

    def _prepare_next(self, made: Future[Database]) -> None:
        try:
            while len(self._finished) > _KEPT:
                self._finished.pop(0).drop()
            made.set_result(self._clone())
        except BaseException as error:
            made.set_exception(error)

    @property
    def given(self) -> bool:
        """Whether there is one database for all runs, which is filled again for each, and none is cloned."""
        return self._given is not None

    def fill_again(self) -> None:
        """Put the given database back to what the files make of it, whoever is still connected."""
        assert self._given is not None
        self._filled = False
        self._given.empty()
        self._fill(self._role)
        self._filled = True

    def _given_filled(self) -> Database:
        if self._in_use:
            raise UsageError(
                "A run has the given database already.",
                tried=f"--database {self._given.name if self._given else ''}, in which one run follows the other",
                next_step="let one end before the other begins, or give a role that may create databases",
            )
        if not self._filled:
            self.fill_again()
        self._in_use = True
        return self._database

    def _released(self) -> None:
        self._filled = self._in_use = False

    def _clone(self) -> Database:
        database = self._named(f"{self._prefix}_{next(self._numbers)}")
        self._create(database, self._database.name)
        return database

    def _create(self, database: Database, template: str) -> None:
        names = [sql.Identifier(database.name), sql.Identifier(template)]
        command = sql.SQL(_SQL["create_database"]).format(*names)
        if self._owner is not None:
            command = sql.SQL(_SQL["create_database_of"]).format(*names, sql.Identifier(self._owner))
        with connect(self._server.dsn) as connection:
            try:
                if not self._ours and template != "template0":
                    # A pooler in session mode keeps sessions for whoever comes next, and a template may have none.
                    connection.execute(_SQL["own_sessions_in"], [template])
                if self._ours:
                    connection.execute(command)
                else:
                    create_database(connection, command, database.name)
                for statement in self._kept_settings:
                    connection.execute(statement.replace("{}", names[0].as_string(connection), 1).encode())
            except psycopg.Error as error:
                raise HarnessError(
                    "No scratch database can be created on the server.",
                    tried=f"CREATE DATABASE: {' '.join(str(error).split())} (SQLSTATE {error.sqlstate or 'none'})",
                    next_step="give the DSN of a server, and a role, that can create one",
                ) from error

    def __enter__(self) -> Self:
        try:
            if self._given is not None:
                self._given.__enter__()
            self._role = self._migrate_as()
            if not self._server_goes:
                # A signal may strike between two contexts that clean up, and only one of them would.
                atexit.register(self._drop_all)
            if self._given is None:
                self._create(self._database, "template0")
            self._applied = self._fill(self._role)
            self._filled = True
            with self._database.connect() as connection:
                rows = connection.execute(queries.text("harness.environment", "kept_settings.sql").encode())
                self._kept_settings = [str(row[0]) for row in rows]
            if self._plan.raising:
                self.prepare_next()  # the first run's, too, is made while something else is done
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _migrate_as(self) -> str | None:
        """Have the platform's roles created; whom migrations run as, where that is not who is connected."""
        supabase = self._platform[0] == "supabase"
        if supabase or not self._ours:
            self._roles = SupabaseRoles(self._server, create=supabase)
            self._roles.__enter__()
            self._roles_before = self._roles.names()
        with connect(self._server.dsn) as connection:
            who = connection.execute(_SQL["who"]).fetchone()
        assert who is not None
        self._me, self._superuser, there = str(who[0]), bool(who[1]), bool(who[2])
        if not (supabase and self._superuser and there) or self._given is not None:
            return None  # a given database is its owner's
        self._owner = platforms.ROLE
        return platforms.ROLE

    def _made_roles(self, supplier: Supplier) -> set[str]:
        """Roles that were created; of those in a DO block, those that are new on the server and that a file names."""
        assert self._roles is not None
        named = {name for script in self.migrations for name in roles_created(script)}
        return supplier.roles_made | (named & (self._roles.names() - self._roles_before))

    def _fill(self, role: str | None) -> Applied:
        """Prelude, migrations and seed into the template."""
        stood_in: list[str] = []
        notes: list[str] = []
        if self._platform[0] == "supabase":
            with self._database.connect() as connection:
                try:
                    stood_in = platforms.prelude(connection, self._plan.default_privileges)
                except psycopg.Error as error:
                    if is_loss(error):
                        raise
                    raise HarnessError(
                        "The Supabase prelude cannot be applied.",
                        tried=f"as {self._me}: {' '.join(str(error).split())} (SQLSTATE {error.sqlstate})",
                        next_step="give the DSN of a superuser, or of a role that may create roles and databases; "
                        "or --platform none",
                    ) from error
            if role is None:
                kind = "a superuser" if self._superuser else f"{self._me}, which has not {platforms.ROLE}'s rights"
                if self._me == platforms.ROLE and not self._superuser:
                    kind = f"{self._me}, without what the platform adds to its rights"
                notes.append(f"the migrations ran as {kind}: SECURITY DEFINER and ownership mean what they do for it")
        if self._given is not None:
            notes.append(
                f"everything happens in {self._given.description}: runs follow one another in it, each after it was "
                "emptied and filled again, and it is left as it was found"
            )
        if self._plan.setup is not None:
            notes.append(self._set_up(self._plan.setup, role))
        with self._database.connect() as connection:
            connection.prepare_threshold = None  # DISCARD ALL would take a prepared statement away under psycopg
            supplier = Supplier(
                connection,
                beyond=self._platform[0] == "supabase",
                ours=self._ours,
                stood_in=set(stood_in),
                roles_made=set(self._roles_made),
            )
            applier = Applier(supplier, keep_going=self._plan.keep_going, limit=self._plan.limit)
            whole = [0, 0]
            try:
                for number, script in enumerate((*self.migrations, *self.seeds)):
                    # The seed is the harness's own: it runs as who is connected.
                    supplier.role = role if number < len(self.migrations) else None
                    whole[number >= len(self.migrations)] += applier.apply(script)
            except HarnessError as error:
                if self._plan.raising:
                    raise
                applier.failures.append(Failure(script.path, 0, error.what, None, error.tried, error.next_step))
            finally:
                if not connection.closed:
                    connection.execute("DISCARD ALL")
                if self._roles is not None and not self._ours:
                    self._roles_made = self._made_roles(supplier)
                    self._roles.made(self._roles_made)
            return Applied(
                files=len(self.migrations) + len(self._unreadable),
                applied=whole[0],
                seeds=(whole[1], len(self.seeds)),
                platform=self.platform,
                role=role or self._me,
                order=self._order,
                stand_ins=tuple(platforms.used(connection, supplier.stood_in)),
                notes=(
                    *notes,
                    *(f"{note} ({count} x)" if count > 1 else note for note, count in supplier.notes.items()),
                ),
                failures=(*self._unreadable, *applier.failures),
            )

    def _set_up(self, command: str, role: str | None) -> str:
        """Run the command that builds the schema. Raises HarnessError where it fails or does nothing."""
        parts = conninfo_to_dict(self._database.dsn)
        if role is not None:
            password = secrets.token_hex(16)
            with connect(self._server.dsn) as connection:
                words = sql.SQL(_SQL["let_log_in"]).format(sql.Identifier(role), sql.Literal(password))
                connection.execute(words)
            parts |= {"user": role, "password": password}
        with self._database.connect() as connection:
            before = connection.execute(_SQL["objects"]).fetchone()
            said = setup.run(command, make_conninfo("", **parts), self._plan.limit)
            if connection.execute(_SQL["objects"]).fetchone() == before:
                raise HarnessError(
                    "The setup command changed nothing in the database.",
                    tried=f"{command}\n{said}",
                    next_step="let it take the database from DATABASE_URL, or PGHOST, PGPORT, PGUSER, PGPASSWORD and "
                    "PGDATABASE",
                )
        return f"setup: {command}\n{said}".rstrip()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if not self._server_goes:
                self._drop_all()
                atexit.unregister(self._drop_all)
        finally:
            if self._roles is not None:
                if self._server_goes:
                    self._roles.close()
                else:
                    self._roles.__exit__(kind, error, traceback)

    def _drop_all(self) -> None:
        if self._given is not None:
            self._given.__exit__(None, None, None)
            return
        with uninterrupted(), suppress(HarnessError, psycopg.OperationalError), connect(self._server.dsn) as connection:
            if self._preparing is not None:
                self._preparing.join()  # else a clone might appear after the others are gone
            # Clones, too: Ctrl-C may come when one is made and its own context not yet entered.
            names = connection.execute(_SQL["databases_of_a_template"], [f"{self._prefix}_"]).fetchall()
            for (name,) in names:
                drop_database(connection, str(name))

    def _named(self, name: str) -> Database:
        dsn = self._server.dsn
        parts = conninfo_to_dict(dsn)
        return Database(make_conninfo("", **{**parts, "dbname": name}), name, dsn)
