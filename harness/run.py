"""A run: environment -> pattern -> history -> verdict -> record.

`open_harness` boots what the options ask for; the `Harness` it gives makes any number of runs, each on a database of
its own.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import harness
from harness import records
from harness.conduct import Actor, Fired, KeySource, Load, Progress, Told, conduct, judge, record_of, what_was_lost
from harness.contracts import invariants
from harness.contracts.contract import Contract
from harness.environment.choice import open_server, open_template
from harness.environment.database import Database, Template
from harness.environment.description import Touched
from harness.environment.postgrest import SupabaseRoles
from harness.environment.servers import (
    ExternalServer,
    Server,
    ServerDescription,
    command_line,
    free_connections,
)
from harness.environment.touched import Seen, seen, touched
from harness.errors import UsageError
from harness.history import History
from harness.load import patterns
from harness.load.pattern import PATTERNS, Pattern
from harness.options import Options, as_words, check_outputs
from harness.plain import from_plain
from harness.records import AppliedFile, Record, RunRecord
from harness.scenarios import loads
from harness.sources import sources
from harness.sqltext.definitions import definition
from harness.sqltext.scripts import Script
from harness.targets import conditions, state
from harness.targets.keys import missing_keys, new_keys
from harness.targets.sql import SqlTarget
from harness.targets.target import Target
from harness.verdict import thresholds
from harness.verdict.findings import Finding, Location, Truth, truth_of
from harness.verdict.metrics import Metrics

if TYPE_CHECKING:
    from harness.schedules import Exploration, Plan
    from harness.schedules import Progress as Far
    from harness.targets.http_serving import HttpOptions

_SPARE_CONNECTIONS = 5
"""Connections kept free for the harness itself: fresh keys, invariants, maintenance."""

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, repr=False)
class Verdict:
    """All findings of a run."""

    findings: tuple[Finding, ...]

    @property
    def truth(self) -> Truth:
        """Broken where one finding is, else undecided where one is, else held."""
        return truth_of(self.findings)

    @property
    def held(self) -> bool:
        """Whether every claim is held: the one word that a test asserts."""
        return self.truth is Truth.HELD

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings that are broken."""
        return tuple(f for f in self.findings if f.truth is Truth.BROKEN)

    def __getitem__(self, finding: str) -> Finding:
        """The finding with that id. Raises KeyError with the ids there are."""
        for each in self.findings:
            if each.id == finding:
                return each
        raise KeyError(f"{finding}; there are {', '.join(f.id for f in self.findings)}")

    def __repr__(self) -> str:
        """What a failed assertion shows, on one line."""
        return f"<Verdict {self.truth.value}{': ' if self.others else ''}{', '.join(f.id for f in self.others)}>"

    @property
    def others(self) -> tuple[Finding, ...]:
        """The findings that are not held."""
        return tuple(f for f in self.findings if f.truth is not Truth.HELD)

    def __str__(self) -> str:
        """Every claim that is not held, with what was observed."""
        lines = [f"verdict {self.truth.value}"]
        lines += [f"  {f.truth.value} {f.id}: {f.claim} observed: {f.observed}" for f in self.others]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What one run gives back: its verdict, its metrics, and the raw evidence."""

    record: RunRecord
    history: History

    def __repr__(self) -> str:
        return f"<Result of {self.record.kind}: {self.record.truth.value}>"

    @property
    def verdict(self) -> Verdict:
        """All findings of the run."""
        return Verdict(self.record.findings)

    @property
    def metrics(self) -> Metrics:
        """What its calls add up to: counts, rates, durations in milliseconds."""
        assert self.record.metrics is not None
        return self.record.metrics


@dataclass(frozen=True, slots=True, repr=False)
class Explored:
    """What an exploration gives back: its verdict, and every schedule that broke a claim."""

    record: RunRecord
    exploration: Exploration

    def __repr__(self) -> str:
        return f"<Explored: {self.record.truth.value}>"

    @property
    def verdict(self) -> Verdict:
        """All findings of the exploration."""
        return Verdict(self.record.findings)


class Harness:
    """Makes runs on one server and template. Each run has a fresh database and leaves a record in `runs`."""

    def __init__(
        self, options: Options, contract: Contract, server: Server, template: Template, progress: Progress | None = None
    ) -> None:
        self.options = options
        self.contract = contract
        self.template = template
        self.environment: ServerDescription = server.describe()
        self.runs: list[RunRecord] = []
        self.target = "sql"
        """The door that runs go through where none is named."""
        self.test = ""
        """The pytest test that is running; kept in each record."""
        self.server = server
        self._progress = progress
        self.invariants = invariants.load(options.invariants, contract)
        self._checked = False
        """Whether the invariants' queries were looked at by the server."""
        self._sql: SqlTarget | None = None
        """The target on a database of a run that was made: all are clones of one template."""

    def __getattr__(self, name: str) -> Callable[..., Result]:
        """`harness.burst(...)`, `harness.race(...)` and so on: runs that pattern, with its settings by keyword.

        `target` is the door that the calls go through, `beside` somebody who acts while they are fired. What is not
        given is as the options or the profile have it.
        """
        pattern = PATTERNS.get(name)
        if pattern is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def run(*, target: str | None = None, beside: Actor | None = None, **given: Any) -> Result:
            settings = [field.name for field in dataclasses.fields(pattern)]  # type: ignore[arg-type]
            if unknown := [each for each in given if each not in settings]:
                raise UsageError(f"{name} takes no {unknown[0]!r}.", next_step=f"give {', '.join(settings)} or target")
            return self.run(pattern.of(self.options.profile, self.options.load, given), target, beside=beside)

        run.__name__, run.__doc__ = name, pattern.__doc__
        return run

    def explore(
        self,
        *,
        calls: int = 2,
        search: str = "exhaustive",
        max_schedules: int | None = None,
        max_preemptions: int | None = None,
        seconds: float = 60.0,
        seed: int = 0,
        crash: bool = False,
        edges: bool = True,
        replay: str | None = None,
        times: int = 1,
        variants: Sequence[str] = (),
        jobs: int = 1,
        resume: Path | None = None,
        said: Callable[[Far], object] = lambda _: None,
    ) -> Explored:
        """Every interleaving of the statements inside `calls` concurrent calls, in every argument variant.

        `search` is exhaustive, random or pct (with `seed`); `seconds` bounds the whole; `crash` lets one call die at
        each step; `edges` adds to an exhaustive search what lies at the edges: keys that do not exist, arguments that
        are NULL, two keys of one owner, a call that dies or is cancelled and is made again, and three calls where two
        hold; `replay` carries out one schedule and no other, so many `times`; `variants` names the argument
        variants to take, of which none means each. With `jobs`, cases are tried side by side, each job in a process
        and a database of its own. `resume` is the record of an exploration that did not come to its end: it is gone on
        with, with its calls, search and variants. `said` is told how far it has come. Raises UsageError for what cannot
        be explored, and KeyboardInterrupt after keeping what there was.
        """
        from harness.schedules import Plan, gone_on, settled

        words = ["explore"] + (["--crash"] if crash else [])
        plan = Plan(
            calls,
            search,
            max_schedules,
            max_preemptions,
            seconds,
            seed,
            crash,
            replay,
            times,
            tuple(variants) or None,
            edges=edges,
            command=self.command(*words, timeout=Options().timeout),  # it has none
        )
        earlier = None
        if resume is not None:
            earlier, plan = self._earlier(resume, plan)
        exploration, touched = self._explored(plan, jobs, earlier, said)
        exploration = settled(exploration if earlier is None else gone_on(earlier, exploration))
        names = [variant.name for variant in self.contract.variants]
        cases = sorted(exploration.cases, key=lambda case: (_place(case.variant, names), case.keys, case.variant))
        exploration = dataclasses.replace(exploration, cases=tuple(cases))
        record = self.keep(
            RunRecord(
                kind="explore",
                target="sql",
                plan=dataclasses.asdict(plan),
                metrics=None,
                overlap=None,
                findings=exploration.findings,
                repeat=plan.command,
                unit="step",
                # The findings stand in the record already.
                details={"exploration": dataclasses.replace(exploration, findings=())},
                # Of what was gone on with, what it touched before is not known.
                touched=touched if earlier is None and not exploration.interrupted else None,
            )
        )
        if exploration.interrupted:
            raise KeyboardInterrupt
        return Explored(record, exploration)

    def _explored(
        self, plan: Plan, jobs: int, earlier: Exploration | None, said: Callable[[Far], object]
    ) -> tuple[Exploration, Touched | None]:
        """An exploration, in this process or in several, and the tables that the function touches."""
        from harness.jobs import dealt, explored
        from harness.schedules import cases_of, explore

        cases = cases_of(plan, self.contract) if jobs > 1 and plan.replay is None else ()
        if len(cases) < 2:
            with self.template.checkout() as database:
                together = self.template.together()
                found = explore(
                    database.dsn, self.contract, plan, self.invariants, earlier=earlier, said=said, together=together
                )
                return found, self._touched(database)
        if self.options.database is not None:
            raise UsageError(
                "--jobs takes a database for each job, and --database names one.",
                next_step="leave one of them out",
            )
        parts = dealt([name for name, _ in cases], [weight for _, weight in cases], jobs)
        with ExitStack() as stack:
            databases = [stack.enter_context(self.template.checkout()) for _ in parts]
            dsns = [database.dsn for database in databases]
            each = [self.template.together(number) for number in range(len(parts))]
            found = explored(self.options, dsns, plan, parts, earlier, said, each)
            return found, self._touched(*databases)

    def _earlier(self, path: Path, plan: Plan) -> tuple[Exploration, Plan]:
        """The exploration of a record that is to be gone on with, and the plan for that."""
        from harness.schedules import Exploration, cases_of

        found = [run for run in records.read(path).runs if run.kind == "explore"]
        if not found:
            raise UsageError(f"{path} is not a record of an exploration.", next_step="name one that --record wrote")
        run = found[-1]
        try:
            earlier = from_plain(Exploration, run.details["exploration"])
            names = ("calls", "search", "max_preemptions", "crash", "edges", "variants")
            kept = {name: run.plan[name] for name in names}
            ended = {prefix for prefix, case in earlier.unfinished.items() if case["exhausted"]}
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"The exploration of {path} cannot be gone on with.",
                tried=f"reading it: {error}",
                next_step="explore anew: it was written by another version",
            ) from error
        if not earlier.unfinished:
            raise UsageError(
                f"The exploration of {path} left nothing to go on with.",
                tried=f"reading it: {earlier.summary()}",
                next_step="explore anew; only an exhaustive search that was ended by time or a signal is gone on with",
            )
        kept["variants"] = None if kept["variants"] is None else tuple(kept["variants"])
        plan = dataclasses.replace(plan, **kept)
        cases = tuple(name for name, _ in cases_of(plan, self.contract) if name not in ended)
        earlier = dataclasses.replace(earlier, findings=run.findings)
        return earlier, dataclasses.replace(plan, cases=cases)

    def profile(self) -> Iterator[Pattern]:
        """The patterns of the contract's file, else of the options' profile, one after the other as they are run.

        One that calls keys that are not there is left out, and that is noted, where nobody says what such a key is.
        """
        for pattern in patterns.of_contract(self.contract, self.options.profile, self.options.load):
            if pattern.unknown_keys and self._sql is not None and self._missing(1) is None:
                self._note(f"the pattern {pattern.name} was left out: {self._no_missing}")
            else:
                yield pattern

    def _missing(self, count: int) -> Sequence[Hashable] | None:
        """So many keys that are not there; None where neither the contract nor the key's type says what such a key is.

        A contract that says nothing of them has `uuid4`, which is a key of few types.
        """
        if self.contract.unknown_key is not uuid.uuid4 or self._sql is None:
            return [self.contract.unknown_key() for _ in range(count)]
        return missing_keys(self._sql.codec.key_type, count)

    @property
    def _no_missing(self) -> str:
        function = self.contract.function
        kind = "" if self._sql is None else f" of the type {self._sql.codec.key_type.name}"
        return f"the contract has no unknown_key, and none{kind} can be made up for {function.key} of {function.name}"

    def _note(self, sentence: str) -> None:
        """Add a note to the last run."""
        if self.runs:
            self.runs[-1] = dataclasses.replace(self.runs[-1], notes=(*self.runs[-1].notes, sentence))

    def run(self, pattern: Pattern, target: str | None = None, *, beside: Actor | None = None) -> Result:
        """Run one pattern on a fresh database through `sql` or `http`, judge it, and keep its record.

        Without a `target` it goes through `self.target`; `beside` is played on a thread while it is fired. Raises
        HarnessError when the run cannot be made, and KeyboardInterrupt after keeping what there was.
        """
        name = target or self.target
        patterns.check_keys(self.contract, (pattern,))
        with self.template.checkout() as database, database.connect() as connection:
            self.check_connections(pattern, connection, name)
            with closing(self._door(name, database)) as door:
                if not self._checked:
                    state.check(self.invariants, connection)
                    conditions.check(connection, self.contract)
                    self._checked = True
                timeout, connect = self.options.timeout, database.connect
                load = Load(pattern, self.contract, (door,), timeout, self._progress, beside, connect)
                return conduct(load, self.keys(connection), lambda fired: self._result(fired, database))

    def keep(self, run: RunRecord) -> RunRecord:
        """Keep the record of a run, with the test that made it and the place of the function in each finding."""
        findings = tuple(
            f if f.location is not None else dataclasses.replace(f, location=self._location) for f in run.findings
        )
        kept = dataclasses.replace(run, findings=findings, test=self.test)
        self.runs.append(kept)
        return kept

    @cached_property
    def _scripts(self) -> tuple[Script, ...]:
        return (*self.template.migrations, *self.template.seeds)

    @cached_property
    def _location(self) -> Location:
        function = self.contract.function
        found = definition(self._scripts, function.name, len(function.parameters))
        if found is None and self.contract.declared is not None:
            return Location(str(self.contract.declared.path), self.contract.declared.line, function.name)
        if found is None:
            return Location(function=function.name)
        return Location(str(found.path), found.line, function.name)

    def record(self, command: str, *, interrupted: bool = False, cut_short: str = "") -> Record:
        """Everything so far as one record; `cut_short` is the error that ended it."""
        function = self.contract.function
        return Record(
            harness_version=harness.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            profile=self.options.profile,
            contract=self.contract.name,
            environment=self.environment,
            migrations=tuple(AppliedFile(str(s.path), s.sha256) for s in self.template.migrations),
            seeds=tuple(AppliedFile(str(s.path), s.sha256) for s in self.template.seeds),
            runs=tuple(self.runs),
            interrupted=interrupted or any(run.interrupted for run in self.runs),
            sources=tuple(sources(self._scripts, self.runs, {function.name: len(function.parameters)})),
            prelude=self.template.applied.prelude,
            cut_short=cut_short,
        )

    @property
    def http_options(self) -> HttpOptions:
        """How PostgREST is served beside the server."""
        from harness.targets.http_serving import HttpOptions

        options = self.options
        return HttpOptions(options.postgrest, options.postgrest_image, options.db_pool, options.timeout)

    def _door(self, name: str, database: Database) -> Target:
        options = self.options
        if name == "sql":
            if self._sql is None:
                dsn, contract = database.dsn, self.contract
                self._sql = SqlTarget(
                    dsn,
                    contract,
                    pool_size=options.pool_size,
                    timeout=options.timeout,
                    run_beside=self.server.run_beside,
                )
            return self._sql.on(database.dsn)
        if name == "http":
            from harness.targets.http_serving import open_http

            return open_http(self.server, database, self.contract, self.http_options)
        raise UsageError(f"There is no target {name!r}.", next_step="sql or http")

    def check_connections(self, pattern: Pattern, connection: Connection, target: str = "sql") -> None:
        """Raises UsageError when the server has too few free connections for the pattern's clients."""
        through = self.options.db_pool if target == "http" else self.options.pool_size
        needed = (through or pattern.clients) + _SPARE_CONNECTIONS
        free, most = free_connections(connection)
        if needed > free:
            raise UsageError(
                f"{pattern.clients} clients need {needed} connections, and the server has {free} free.",
                tried=f"max_connections = {most} (or a limit of role or database), less those reserved and in use",
                next_step="give fewer --clients, put a pool between with --pool-size, or raise max_connections",
            )

    def _result(self, fired: Fired, database: Database) -> Result:
        """Judge the run and keep its record; of one that was interrupted without another word to the database."""
        (door,) = fired.load.doors
        asked, lost = None, None
        if not fired.interrupted:
            self.template.prepare_next()
            lost = what_was_lost(fired, database.dsn)
            connect = lost.again if lost else database.connect
            asked = state.ask(self.invariants, fired.history.stream(), connect)
        judged = judge(fired, asked, self.invariants)
        details = door.details()
        told = Told(
            repeat=self.command(
                "run", *fired.load.pattern.words(), http=door.name == "http", pool_size=self.options.pool_size
            ),
            plan={"pool_size": self.options.pool_size, "timeout": self.options.timeout},
            notes=() if fired.interrupted else tuple(door.notes()),
            lost=lost,
            details={door.name: details} if details else {},
        )
        run = record_of(fired, judged, told)
        if door.name == "sql" and not fired.interrupted and lost is None:
            door.close()  # a pool's connections as well tell what they did when they end
            run = dataclasses.replace(run, touched=self._touched(database))
        return Result(self.keep(run), fired.history)

    def _touched(self, *databases: Database) -> Touched | None:
        """What was touched in the databases of a run that is over; None where that cannot be known."""
        found: Seen | None = Seen()
        for each in databases:
            more = seen(each.dsn)
            found = None if found is None or more is None else found | more
        texts = [*self.contract.texts, *(each.query for each in self.invariants)]
        return touched(databases[0].dsn, found, texts)

    def keys(self, connection: Connection) -> KeySource:
        """Fresh keys by the seed's function, on a connection that is closed before the load."""

        def make(count: int) -> list[Hashable]:
            return self.new_keys(connection, count)

        def missing(count: int) -> Sequence[Hashable]:
            made = self._missing(count)
            if made is None:
                raise UsageError(
                    "There are no keys to call that are not there.",
                    tried=self._no_missing,
                    next_step="give Contract(unknown_key=...), a function that gives one",
                )
            return made

        declared = self.contract.declared
        if declared is None or declared.missing_keys is None:
            return KeySource(make, make, connection.close, missing)
        query, limit = declared.missing_keys, self.options.apply_timeout
        return KeySource(make, make, connection.close, lambda count: new_keys(connection, query, count, limit))

    def new_keys(self, connection: Connection, count: int) -> list[Hashable]:
        """Fresh keys, made by the seed's function. Raises HarnessError when it is not there or makes too few."""
        return new_keys(connection, self.contract.new_keys, count, self.options.apply_timeout)

    def command(self, *words: str, **of_a_load: Any) -> str:
        """The command with these words, and every option of this harness that is not a default.

        What the project's files say otherwise, and no word of this command can take back, a variable takes back.
        """
        configured = self.options.configured
        variables = []
        if words[0] == "run":
            if "--profile" not in words and configured.get("profile", "quick") != "quick":
                variables.append("HARNESS_PROFILE=quick")
            if configured.get("http") and not of_a_load.get("http"):
                variables.append("HARNESS_HTTP=no")
        return command_line([*variables, "harness", *words, *as_words(self.options, **of_a_load)])


def _place(case: str, variants: Sequence[str]) -> int:
    """Where a case's variant stands among all; the case may say more than its name."""
    return next((at for at, name in enumerate(variants) if case == name or case.startswith(f"{name}, ")), len(variants))


def prepared(options: Options) -> tuple[Contract, Server, Template]:
    """What the options name, read and checked; nothing is booted yet.

    Raises HarnessError for what is seen to be wrong without a server: a path, an output, a contract, a threshold.
    """
    check_outputs(options)
    contract = loads.asked_for(options)
    server = open_server(options.server, options.postgres_image, options.database)
    server.call_timeout = options.timeout
    template = open_template(options, server, bare=contract.declared is not None)
    if contract.declared is not None and contract.declared.setup is not None:
        template.seeds = (*template.seeds, contract.declared.setup)
    invariants.load(options.invariants, contract)
    thresholds.check(contract)
    if options.http:
        from harness.targets.http_serving import check_identity

        check_identity(contract)
    return contract, server, template


@contextmanager
def open_harness(options: Options, progress: Progress | None = None) -> Iterator[Harness]:
    """Boot the server, build the template, and take everything away at the end."""
    contract, server, template = prepared(options)
    theirs = isinstance(server, ExternalServer)
    with ExitStack() as stack:
        stack.enter_context(server)
        if options.http or not theirs:
            # Migrations made for Supabase name its roles. On somebody else's server they are created only if asked for.
            stack.enter_context(SupabaseRoles(server))
        stack.enter_context(template)
        yield Harness(options, contract, server, template, progress)
