"""Checking scenarios: setup -> serial orders -> explore and race -> judge -> a record.

Every scenario gets a database of its own, cloned from the template of migrations and seed. Its serial orders are run
first, then its sessions meet: `explore` tries the interleavings of their statements, `race` releases them together.
Each result is judged by verdict/serial.py, and the baseline is put back before the next one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import harness
from harness.checking import exploring
from harness.checking.conditions import Conditions
from harness.checking.orders import SerialOrders
from harness.checking.race import Race
from harness.checking.world import World
from harness.environment.choice import open_server, open_template
from harness.environment.database import Template
from harness.environment.postgrest import SupabaseRoles
from harness.environment.restore import Cloned, NotInPlaceError
from harness.environment.servers import ExternalServer, Server, command_line
from harness.errors import UsageError
from harness.options import OF_CALLS, OF_CONTRACTS, Options, as_words, check_outputs
from harness.records import AppliedFile, Record, RunRecord, Source
from harness.scenarios.acting import ends_open
from harness.scenarios.scenario import Scenario
from harness.scenarios.telling import Result, Told, findings_of, serial_orders
from harness.sources import sources
from harness.sqltext.scripts import Script
from harness.verdict.expected import masked
from harness.verdict.findings import Truth, pluralize
from harness.verdict.observed import Answer, Observed, Unit, canonical
from harness.verdict.serial import Judgement, Rules, judge

WAYS = ("explore", "race")

NOTHING_RACED = "nothing happened that could race"
"""How the note begins of a scenario that holds, and proves nothing."""

SETS_LEVEL = re.compile(
    r"\bset\s+(?:(?:local|session)\s+)?(?:transaction\s+isolation\s+level|(?:default_)?transaction_isolation\b)"
    r"|\bset_config\s*\(\s*'(?:default_)?transaction_isolation'",
    re.IGNORECASE,
)
"""A function that sets the isolation level, which only a procedure can do with success."""

_DBLINK = re.compile(r"\bdblink\w*\s*\(", re.IGNORECASE)


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
        seconds: float = exploring.SECONDS,
    ) -> RunRecord:
        """Check one scenario on a database of its own. Raises UsageError for one that cannot be run.

        `replay` carries out one schedule and no other; without `reduction`, orders that differ only in steps that
        commute are all tried. Exploring ends after `seconds`.
        """
        other = self._named.setdefault(scenario.name, scenario.path)
        if other != scenario.path:  # two files of one name: each finding must be known by its own
            scenario = replace(scenario, title=f"{scenario.path.parent.name}/{scenario.name}")
        world = World(scenario, self.options, self.template, isolation)
        check = _Check(world, by, isolation, replay=replay, reduction=reduction, seconds=seconds)
        check.said = self.said
        try:
            run = check.checked()
            run = replace(run, touched=world.touched(), test=self.test)
        finally:
            world.close()
        self.runs.append(run)
        return self.runs[-1]

    def aside(
        self, scenario: Scenario, *, by: Sequence[str], seconds: float, settings: str = ""
    ) -> tuple[RunRecord, Mapping[str, int]]:
        """Check a scenario once more, for the matrix; it does not become one of the runs.

        `settings` are options of the sessions' connections. Statistics are made once and pinned. Also gives, by
        schedule or round, how often a session had to run something again. Raises UsageError where a function that the
        sessions call sets the isolation level.
        """
        world = World(scenario, self.options, self.template, "")
        world.settings, world.pinned = settings, True
        try:
            run = _Check(world, by, "", replay="", reduction=True, seconds=seconds).checked()
            if chosen := next(filter(None, map(SETS_LEVEL.search, world.reach.texts)), None):
                raise UsageError(
                    f"{scenario.path}: a function that the sessions call chooses its isolation level itself, so that "
                    "no other can be tried.",
                    tried=chosen[0],
                    next_step="check the scenario without --matrix",
                )
            return run, world.retried
        finally:
            world.close()

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
        """The functions that steps are in, and the scenarios, those first that did not hold."""
        applied = (*self.template.migrations, *self.template.seeds)
        found: dict[Source, None] = {}
        for run in sorted(self.runs, key=lambda run: run.truth is Truth.HELD):
            scenario = Script.read(Path(run.plan["file"]))
            # Two scenarios may define one function each in its own way: every run's are looked for by themselves.
            found.update(dict.fromkeys(sources((*applied, scenario), [run])))
            found[Source("", str(scenario.path), 1, scenario.text)] = None
        return tuple(found)


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


class _Check:
    """The check of one scenario: its parts, the judging of what they come to, and the record."""

    def __init__(
        self, world: World, by: Sequence[str], isolation: str, *, replay: str, reduction: bool, seconds: float
    ) -> None:
        self.world = world
        self.by = tuple(by)
        self.isolation = isolation
        self.results: dict[object, Result] = {}
        self.tries = self.red = 0
        self.said: Callable[[int, int], object] = lambda tries, red: None  # noqa: ARG005
        self.conditions: Conditions
        self.orders: SerialOrders
        self.race: Race
        self.exploring = exploring.Exploring(world, self._judged, seconds=seconds, replay=replay, reduction=reduction)

    def checked(self) -> RunRecord:
        self._begin()
        try:
            return self._checked()
        except NotInPlaceError as error:
            self._begin(str(error))
            return self._checked()

    def _begin(self, why_clone: str = "") -> None:
        """From the setup on; nothing that was found before counts."""
        self.world.set_up(why_clone)
        self.results.clear()
        self.conditions = Conditions(self.world)
        self.orders = SerialOrders(self.world, self.conditions)
        self.race = Race(self.world, self.orders, self._judged)

    def _checked(self) -> RunRecord:
        self._note_open_ends()
        self.orders.alone()
        self.orders.beforehand()
        ways = self._ways()
        if "explore" in ways:
            self.exploring.run(self._repeat())
        if "race" in ways:
            self.race.run()
        return self._record(ways)

    def _note_open_ends(self) -> None:
        for session, open_ in zip(self.world.sessions, map(ends_open, self.world.sessions), strict=True):
            if open_:
                where = f"{self.world.scenario.path}:{session.statements[-1].line}"
                self.world.note(f"{where}: {session.name} ends in a transaction, which is rolled back")

    def _ways(self) -> tuple[str, ...]:
        if len(self.world.sessions) == 1:
            self.world.note("one session meets nobody: it was run alone")
            return ()
        ways = ("explore",) if self.exploring.replay else self.by
        reason = self._not_explored()
        if "explore" not in ways or not reason:
            return ways
        self.world.note(reason)
        return tuple(way for way in ways if way != "explore") or ("race",)

    def _not_explored(self) -> str:
        """Why the orders of these sessions cannot be tried one by one; empty where they can."""
        number, texts = len(self.world.sessions), self.world.reach.texts
        if number > exploring.MOST_SESSIONS:
            return f"with {number} sessions there are too many orders to try each: race alone was made"
        if any("pg_terminate_backend" in text for text in texts):
            return "a session that ends a backend is raced, and not explored"
        if any(_DBLINK.search(text) for text in texts):
            return "what acts through dblink is raced, and not explored: its connection cannot be made to wait its turn"
        if isinstance(self.world.baseline, Cloned):
            return "orders are not explored where each needs a clone of the database: race alone was made"
        return ""

    def _judged(
        self,
        answers: Mapping[Unit, tuple[Answer, ...]],
        way: str,
        *,
        hung: Mapping[Unit, str] | None = None,
        used_up: frozenset[Unit] = frozenset(),
    ) -> Result:
        """Judge what is in the database now; alike results are judged once."""
        state = self.world.state()
        busy = {unit: places for unit, given in answers.items() if (places := self.conditions.busy(given))}
        observed = Observed(answers, state, busy, hung or {}, used_up)
        violated = self.conditions.violated()
        key = canonical(observed, self._is_now, self.world.constants), violated
        known = self.results.get(key)
        if known is None:
            if self.world.scenario.judge == "queries only":
                judgement = Judgement(Truth.HELD, "queries only")
            else:
                judgement = judge(observed, self.world.lengths, self.orders, self._rules())
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
            value = value.replace(tzinfo=UTC) + (self.world.began - self.world.local)
        return self.world.began <= value <= self.world.began + timedelta(seconds=time.monotonic() - self.world.started)

    def _rules(self) -> Rules:
        assert self.world.baseline is not None
        return Rules(
            judge=self.world.scenario.judge,
            ordered=self.world.reach.ordered,
            starts={
                s.name: s.last if s.called else s.last - 1 for s in self.world.baseline.sequences if s.increment > 0
            },
            reads=self.orders.reads,
            writes=self.orders.writes,
            chooses=bool(self.world.reach.chooses),
            gathers=self.world.reach.gathers,
        )

    def _nothing_races(self) -> bool:
        """Nobody changed anything, and each was told the same in every order: it holds, and proves nothing."""
        states = [each.observed.state for each in self.results.values()]
        states += [run.state for runs in self.orders.runs_of.values() for run in runs]
        return len(self.world.sessions) > 1 and len(self.results) == 1 and not any(states)

    def _record(self, ways: tuple[str, ...]) -> RunRecord:
        scenario = self.world.scenario
        own = () if self.exploring.explored is None else self.exploring.explored.findings
        broken = {} if self.exploring.explored is None else dict(self.exploring.explored.broken)
        if (undecided := broken.pop("undecided", None)) is not None:
            broken.setdefault("one_after_another", undecided)
        told = Told(
            scenario=scenario,
            sessions=self.world.sessions,
            results=tuple(self.results.values()),
            serial_violations=self.orders.violations,
            lengths=self.world.lengths,
            ways=ways,
            rounds=self.race.rounds,
            met=self.race.met,
            repeat=self._repeat(),
            explored=own,
            schedules={name: each.replay for name, each in broken.items()},
        )
        if self._nothing_races():
            self.world.note(
                f"{NOTHING_RACED}: nobody changed anything that is compared, and each was told the "
                "same in every order; are the rows there that the sessions need, and may they see them (as:)?"
            )
        masked_columns = self._masked()
        for how in dict.fromkeys(masked_columns.values()):
            names = [name for name, each in masked_columns.items() if each == how]
            self.world.note(f"{how}: {', '.join(names)}")
        for ignored in scenario.ignored:
            self.world.note(f"not compared: {ignored.name}, because {ignored.because}")
        checked = Checked(
            name=scenario.title,
            scenario=scenario.claim,
            file=str(scenario.path),
            sessions=tuple(session.name for session in self.world.sessions),
            by=ways,
            serial_orders=len(self.orders.runs_of),
            rounds=self.race.rounds,
            met=self.race.met,
            schedules=self.exploring.schedules,
            results=len(self.results),
            exhausted=self.exploring.exhausted,
            masked=masked_columns,
            ignored={i.name: i.because for i in scenario.ignored},
            allowed={a.anomaly: a.because for a in scenario.allowed},
            restored=self.world.restored,
            not_covered=() if self.exploring.explored is None else self.exploring.explored.not_covered,
            disagreement=self._disagreement(),
        )
        return RunRecord(
            kind="check",
            target="sql",
            plan={"file": str(scenario.path), "by": list(ways), "isolation": self.isolation or None},
            metrics=None,
            overlap=None,
            findings=findings_of(told),
            notes=tuple(self.world.notes),
            repeat=self._repeat(),
            details={
                "check": checked,
                "sessions": [session.name for session in self.world.sessions],
                "statements": {session.name: [s.text for s in session.statements] for session in self.world.sessions},
                "serial_orders": serial_orders(told),
                "exploration": {"broken": {f"{scenario.title}.{name}": each for name, each in broken.items()}},
            },
        )

    def _disagreement(self) -> str:
        """What one way broke and the other, which was made as well, did not."""
        red = [r for r in self.results.values() if r.judgement.truth is Truth.BROKEN or r.violated]
        raced, explored = sum(r.times["race"] for r in red), sum(r.times["explore"] for r in red)
        found = self.exploring.explored
        if found is None or not self.race.rounds or bool(raced) == bool(explored):
            return ""
        title = self.world.scenario.title
        rounds, orders = pluralize(self.race.rounds, "round"), pluralize(self.exploring.schedules, "interleaving")
        if raced:
            left = "; ".join([*found.undecided, *found.not_covered][:4])
            whole = "all there are" if self.exploring.exhausted else "not all there are"
            return (
                f"{title}: racing breaks, in {raced} of {rounds}, what holds in {orders}, {whole}. "
                f"Exploring did not try: {left}"
            )
        return (
            f"{title}: exploring breaks, in {explored} of {orders}, what holds in {rounds}, of which "
            f"{self.race.met} met. The race did not try: orders that the clock did not make"
        )

    def _masked(self) -> dict[str, str]:
        """What could not be compared as it is, by the name of the column."""
        found = {}
        for (table, unit, at, column), how in masked(self.orders.runs_of.values()).items():
            if unit is None:
                found[f"{table}.{column}"] = how
            elif unit[1] < 0:
                statement = self.world.sessions[unit[0]].statements[at]
                found[f"{column} of line {statement.line}"] = how
        return found

    def _repeat(self) -> str:
        words = ["harness", "check", str(self.world.scenario.path)]
        if self.by != WAYS:
            words += ["--by", *self.by]
        if self.exploring.seconds != exploring.SECONDS:
            words += ["--seconds", f"{self.exploring.seconds:g}"]
        if self.isolation:
            words += ["--isolation", self.isolation]
        return command_line([*words, *as_words(self.world.options, OF_CONTRACTS | OF_CALLS)])
