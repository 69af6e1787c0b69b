"""The pytest plugin: fixtures `harness` and `harness_database`, a summary section, and properties in JUnit XML.

Files named `*.race.sql` are collected as tests, one each; `--harness-no-scenarios` leaves them alone.

Loaded by its entry point in every suite of an environment where the harness is installed. It does nothing, and imports
nothing heavy, until a test asks for one of its fixtures, or there is a scenario.
"""

from __future__ import annotations

import atexit
import gc
import re
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pytest
from _pytest._code.code import ExceptionRepr
from _pytest.fixtures import TopRequest

from harness import configuration
from harness.errors import HarnessError, UsageError
from harness.load import patterns
from harness.options import FILE, OF_CALLS, OPTIONS, Option, Options, resolve
from harness.signals import ended_by, ending
from harness.text import harmless

if TYPE_CHECKING:
    from harness.check import Checks
    from harness.contracts.contract import Contract
    from harness.contracts.declared import Load
    from harness.environment.database import Database
    from harness.records import Record, RunRecord
    from harness.run import Harness
    from harness.scenarios.scenario import Scenario

_TABLE = (*OPTIONS, *patterns.options())

_MARKED = ("contract", "contract_option", "invariants", *sorted(OF_CALLS))
"""Options that the marker `harness` gives for a test."""

_OPTIONS = pytest.StashKey[Options]()
_FOLDERS = pytest.StashKey[list[str]]()
"""Where a contract's module may lie, as for the command."""
_MADE = pytest.StashKey[Callable[[], "Sequence[RunRecord]"]]()
"""The runs that a test has made so far."""
_RUNS = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Every option of the table, as `--harness-NAME` and as `harness_NAME` of the ini file."""
    group = parser.getgroup("harness", "database-level concurrency harness")
    for option in _TABLE:
        group.addoption(
            f"--harness-{option.flag[2:]}",
            dest=f"harness_{option.name}",
            help=f"{option.help} (ini: harness_{option.name}, environment: {option.variable})",
            **_how(option),
        )
        kind: Literal["linelist", "string"] = "linelist" if option.repeatable else "string"
        parser.addini(f"harness_{option.name}", option.help, type=kind, default=None)
    group.addoption("--harness-no-scenarios", action="store_true", help="do not collect *.race.sql")


def _how(option: Option) -> dict[str, Any]:
    if option.switch:
        return {"action": "store_const", "const": "yes"}
    return {"action": "append" if option.repeatable else "store", "metavar": option.kind.metavar}


def pytest_configure(config: pytest.Config) -> None:
    """Read the options once; a wrong one ends the session with its sentence."""
    given = {option.name: config.getoption(f"harness_{option.name}") for option in _TABLE}
    ini = {option.name: _ini(config, option) for option in _TABLE}
    try:
        project, home = configuration.of_project(config.rootpath, _TABLE)
        config.stash[_OPTIONS] = resolve(given, ini, of_patterns=patterns.options(), project=project)
        ours = [each for each in (home, config.rootpath) if each is not None]
        ours += [config.rootpath / each for each in config.getini("testpaths")]
        config.stash[_FOLDERS] = [str(each) for each in configuration.module_folders(ours)]
    except HarnessError as error:
        raise pytest.UsageError(_said(error)) from error
    config.addinivalue_line(
        "markers",
        f"harness(contract='module:NAME', ...): another contract for this test; also {', '.join(_MARKED[1:])}",
    )
    config.addinivalue_line("markers", "harness_targets(*names): with --harness-http, only through these targets")
    config.pluginmanager.register(_Collector(), "harness-collector")


def _ini(config: pytest.Config, option: Option) -> Any:
    """What the ini file says; its paths are relative to it, wherever pytest is called."""
    found = config.getini(f"harness_{option.name}")
    if not found or option.kind is not FILE or config.inipath is None:
        return found
    folder = config.inipath.parent
    return [str(folder / each) for each in found] if option.repeatable else str(folder / found)


class _Session:
    """What one pytest process boots, on first use, for all its tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = config.stash[_OPTIONS]
        self._stack = ExitStack()
        self._harness: Harness | None = None
        self._checks: Checks | None = None
        self._loads: list[Harness] = []
        self._marked: dict[str, Harness] = {}
        """Of tests that have a contract of their own, by what their markers say."""
        self._error: HarnessError | None = None
        self._interrupted = False

    def pytest_keyboard_interrupt(self) -> None:
        """Comes before fixtures are torn down."""
        self._interrupted = True

    def harness(self) -> Harness:
        if self._error is not None:
            raise self._error  # booting again would fail again, once for every test
        if self._harness is None:
            from harness.run import open_harness

            sys.path += [folder for folder in self.config.stash[_FOLDERS] if folder not in sys.path]
            try:
                self._harness = self._stack.enter_context(open_harness(self.options))
            except HarnessError as error:
                self._error = error
                raise
        return self._harness

    def marked(self, marker: pytest.Mark | None) -> Harness:
        """The harness for a test: with a marker, for another contract on the same server and template.

        One in a file of SQL needs what such a file needs where it is collected: no migrations, if its setup makes all.
        """
        if marker is None:
            return self.harness()
        options, said = _of_marker(marker, self.options), repr(marker.kwargs)
        if said not in self._marked:
            from harness.run import Harness
            from harness.scenarios import loads
            from harness.scenarios.scenario import SUFFIX
            from harness.verdict import thresholds

            if options.contract.endswith(SUFFIX):
                self._marked[said] = self._declared(loads.asked_for(options), options)
            else:
                first, contract = self.harness(), loads.asked_for(options)
                thresholds.check(contract)
                self._marked[said] = Harness(options, contract, first.server, first.template)
        return self._marked[said]

    def checks(self) -> Checks:
        """Scenarios are checked on the server that there is, else on one that is booted for them."""
        if self._error is not None:
            raise self._error
        if self._checks is None:
            from harness.check import Checks, open_checks

            try:
                if self._harness is not None:
                    self._checks = Checks(self.options, self._harness.server, self._harness.template)
                else:
                    self._checks = self._stack.enter_context(open_checks(self.options))
            except HarnessError as error:
                self._error = error
                raise
        return self._checks

    def load(self, load: Load) -> Harness:
        """A file's load is run where scenarios are checked; with a setup of its own, on a template of its own."""
        from harness.scenarios import loads

        options = replace(self.options, contract=str(load.path))
        self._loads.append(self._declared(loads.declared(load, options), options))
        return self._loads[-1]

    def _declared(self, contract: Contract, options: Options) -> Harness:
        checks = self.checks()
        from harness.environment.choice import open_template
        from harness.run import Harness

        template = checks.template
        if contract.declared is not None and contract.declared.setup is not None:
            template = open_template(options, checks.server, bare=True)
            template.seeds = (*template.seeds, contract.declared.setup)
            self._stack.enter_context(template)
        return Harness(options, contract, checks.server, template)

    def close(self) -> None:
        with self._stack:
            record = self._record()
            if record is None:
                return
            from harness.reports import outputs

            # Under pytest-xdist each worker has a server, and so a record, of its own.
            outputs.write(record, self.options, self._say, getattr(self.config, "workerinput", {}).get("workerid", ""))

    def _say(self, line: str) -> None:
        """A workflow command must stand at the beginning of a line of its own; a worker has no terminal to print to."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(line)

    def _record(self) -> Record | None:
        from harness.environment.servers import command_line

        command = command_line(["pytest", *sys.argv[1:]])
        made = [
            opened.record(command, interrupted=self._interrupted)
            for opened in (self._harness, self._checks, *self._marked.values(), *self._loads)
            if opened is not None
        ]
        return None if not made else replace(made[0], runs=tuple(run for record in made for run in record.runs))


def _of_marker(marker: pytest.Mark, options: Options) -> Options:
    """The options with what a marker says otherwise. Raises UsageError for what it cannot say."""
    known = {option.name: option for option in OPTIONS if option.name in _MARKED}
    given: dict[str, Any] = {}
    for name, value in marker.kwargs.items():
        option, values = known.get(name), value if isinstance(value, (list, tuple)) else [value]
        if option is None or not all(isinstance(each, (str, Path)) for each in values):
            wrong = f"{name}={value!r}"
            break
        read = tuple(option.read(str(each), f"{name} of the marker harness") for each in values)
        given[name] = read if option.repeatable else read[-1]
    else:
        wrong = "" if given and not marker.args else "nothing by name"
    if wrong:
        raise UsageError(
            f"The marker harness is given {wrong}.",
            tried="@pytest.mark.harness(...)",
            next_step=f"write @pytest.mark.harness(contract='module:NAME'); it takes {', '.join(_MARKED)}, as text",
        )
    return replace(options, **given)


@pytest.fixture(scope="session")
def _harness_session(pytestconfig: pytest.Config) -> Iterator[_Session]:
    session = _Session(pytestconfig)

    def terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        raise KeyboardInterrupt(signal.Signals(number).name)

    pytestconfig.pluginmanager.register(session, "harness-session")
    # An interpreter that ends need not look for garbage in everything that it holds.
    atexit.register(gc.freeze)
    # pytest ends fixtures after Ctrl-C, would not after the others, and takes a second Ctrl-C for one in the fixtures.
    with ended_by(terminate):
        try:
            yield session
        finally:
            session.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Scenario files; those that are shipped as examples only where one is named."""
    if not file_path.name.endswith(".race.sql") or parent.config.getoption("harness_no_scenarios"):
        return None
    named = any(Path(arg.partition("::")[0]).absolute() == file_path for arg in parent.config.args)
    of_gate = file_path.parent == _GATE and parent.config.stash[_OPTIONS].contract == Options().contract
    if _EXAMPLES.parent.parent in file_path.parents and not named and not of_gate:
        return None
    found: pytest.Collector = _ScenarioFile.from_parent(parent, path=file_path)
    return found


_EXAMPLES = Path(__file__).parent / "scenarios" / "examples"
_GATE = Path(__file__).parent / "gate"


class _ScenarioFile(pytest.File):
    """A scenario file: one test, which has the claim for a name."""

    def collect(self) -> Iterator[pytest.Item]:
        from harness.scenarios import reader

        try:
            scenario = reader.read(self.path)
        except HarnessError as error:
            raise self.CollectError(_said(error)) from error
        kind = _ScenarioItem if scenario.load is None else _LoadItem
        item: _ScenarioItem = kind.from_parent(self, name=scenario.claim)
        item.scenario = scenario
        yield item


class _ScenarioItem(pytest.Item):
    """A scenario as a test: it passes where everything held."""

    scenario: Scenario

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        # As doctests do it: this is what an item needs to ask for fixtures.
        self.obj = None
        self.funcargs: dict[str, object] = {}
        self._fixtureinfo = self.session._fixturemanager.getfixtureinfo(node=self, func=None, cls=None)
        self.fixturenames = self._fixtureinfo.names_closure
        self._request = TopRequest(self, _ispytest=True)  # type: ignore[arg-type]

    def setup(self) -> None:
        self._request._fillfixtures()

    def runtest(self) -> None:
        checks = self._request.getfixturevalue("_harness_session").checks()
        checks.test = self.nodeid
        self._tell([checks.check(self.scenario, isolation=checks.options.isolation or "")], checks.environment)

    def _tell(self, runs: Sequence[RunRecord], environment: object) -> None:
        from harness.plain import to_plain

        self.stash[_RUNS] = [{"server": str(environment), "run": to_plain(run)} for run in runs]
        times: Counter[str] = Counter()
        for run in runs:
            times[run.kind] += 1
            self.user_properties += _properties(run, times[run.kind])
        if any(run.truth.value != "held" for run in runs):
            raise _NotHeldError(runs)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if not isinstance(excinfo.value, _NotHeldError):
            return super().repr_failure(excinfo, style)
        from harness.reports import terminal

        return "\n".join(harmless(line.text) for line in terminal.findings(excinfo.value.runs, None))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


class _LoadItem(_ScenarioItem):
    """A load as a test: it passes where everything held, in every pattern."""

    def runtest(self) -> None:
        assert self.scenario.load is not None
        opened = self._request.getfixturevalue("_harness_session").load(self.scenario.load)
        opened.test = self.nodeid
        for target in ("sql", "http") if opened.options.http else ("sql",):
            for plan in opened.profile():
                opened.run(plan, target)
        self._tell(opened.runs, opened.environment)


class _NotHeldError(Exception):
    """A scenario that did not hold."""

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        super().__init__(", ".join(f"{run.kind} {run.truth.value}" for run in runs))
        self.runs = runs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With --harness-http, tests that use `harness` run once for each target."""
    if "_harness_target" in metafunc.fixturenames and metafunc.config.stash[_OPTIONS].http:
        marker = metafunc.definition.get_closest_marker("harness_targets")
        metafunc.parametrize("_harness_target", ("sql", "http") if marker is None else marker.args, indirect=True)


@pytest.fixture
def _harness_target(request: pytest.FixtureRequest) -> str:
    target: str = getattr(request, "param", "sql")
    return target


@pytest.fixture
def harness(_harness_session: _Session, _harness_target: str, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Runs patterns against the function of the contract; each run has a fresh database.

    `harness.burst(...)`, `harness.race(...)`, `harness.arrivals(...)`, `harness.rescan(...)` and `harness.unknown(...)`
    return a result whose `verdict` can be asserted.
    """
    from harness.plain import to_plain

    opened = _harness_session.marked(request.node.get_closest_marker("harness"))
    before = len(opened.runs)
    opened.test, opened.target = request.node.nodeid, _harness_target
    request.node.stash[_MADE] = lambda: opened.runs[before:]
    yield opened
    made = opened.runs[before:]
    # Plain values: a worker of pytest-xdist sends them to the controller.
    request.node.stash[_RUNS] = [{"server": str(opened.environment), "run": to_plain(run)} for run in made]
    times: Counter[str] = Counter()
    for run in made:
        times[run.kind] += 1
        request.node.user_properties += _properties(run, times[run.kind])


@pytest.fixture
def harness_overhead(harness: Harness, pytestconfig: pytest.Config) -> Callable[..., RunRecord]:
    """Measures what PostgREST adds: both doors in alternating blocks, then races. Skips without --harness-http."""
    if not pytestconfig.stash[_OPTIONS].http:
        pytest.skip("compares SQL with PostgREST, which --harness-http asks for")
    from harness.experiments.overhead import overhead

    return lambda **plan: overhead(harness, harness.http_options, **plan)


@pytest.fixture
def harness_compare(harness_overhead: Callable[..., RunRecord]) -> Callable[..., RunRecord]:
    """The name that `harness_overhead` had in 0.1."""
    warnings.warn("harness_compare is now called harness_overhead", DeprecationWarning, stacklevel=2)
    return harness_overhead


@pytest.fixture
def harness_database(_harness_session: _Session) -> Iterator[Database]:
    """A fresh database with migrations and seed: `dsn`, `connect()` and a SQLAlchemy `engine()`."""
    with _harness_session.harness().template.clone() as database:
        yield database


def _said(error: HarnessError) -> str:
    """The error, with options as they are spelled here."""
    flags = "|".join(option.flag[2:] for option in _TABLE)

    def spelled(text: str) -> str:
        return re.sub(rf"(?<!\S)--({flags})\b", r"--harness-\1", text)

    # What was tried may be somebody else's words.
    return str(HarnessError(spelled(error.what), tried=error.tried, next_step=spelled(error.next_step)))


_OF_A_VERDICT = re.compile(r"<Verdict (broken|undecided)|\bverdict (broken|undecided)\n")
"""What an assertion on a verdict shows: its repr, or its text as the message."""


def _tell(shown: Any, runs: Sequence[RunRecord]) -> None:
    """Show proof, remedy and the command that repeats it in place of `assert False`; beside any other failure."""
    if all(run.truth.value == "held" for run in runs) or not isinstance(shown, ExceptionRepr):
        return
    from harness.reports import rows, terminal

    told = [harmless(line.text) for line in terminal.findings(runs, None)]
    crash, entry = shown.reprcrash, shown.reprtraceback.reprentries[-1]
    if not told or crash is None:  # an interrupted run has no finding to show
        return
    why = [line for line in entry.lines if line.startswith("E")]
    if why and _OF_A_VERDICT.search(crash.message + "\n"):
        entry.lines = [
            *(line for line in entry.lines if line not in why),
            *(f"E   {line}".rstrip() for line in told),
        ]
        first = rows.told(runs)[0].finding
        crash.message = f"{first.truth.value}: {first.claim} ({first.id})"
    else:
        shown.addsection("harness: what was not held", "\n".join(told), "-")


def _counts(run: RunRecord) -> dict[str, int]:
    if run.kind == "check":
        found = run.details["check"]
        return {"interleavings tried": found["schedules"], "rounds": found["rounds"]}
    if "exploration" in run.details:
        return {"interleavings tried": sum(case["schedules"] for case in run.details["exploration"]["cases"])}
    return {} if run.metrics is None else {name: n for name, n in run.metrics.counts.items() if n}


def _properties(run: RunRecord, time: int) -> list[tuple[str, object]]:
    """Flat properties for JUnit XML: what a CI server can plot. `time`: which of the test's runs of this pattern."""
    name = f"harness.{run.kind}" + (f".{time}" if time > 1 else "")
    found: list[tuple[str, object]] = [(f"{name}.verdict", run.truth.value)]
    found += [(f"{name}.{each.replace(' ', '_')}", str(count)) for each, count in _counts(run).items()]
    if run.metrics is not None:
        found.append((f"{name}.calls", str(run.metrics.calls)))
        trend = run.metrics.trends["all"]
        if trend.count:
            found += [(f"{name}.{each}_ms", f"{getattr(trend, each):.3f}") for each in ("med", "p95", "p99", "max")]
    return found


class _Collector:
    """Gathers what the tests' reports carry, in the controller when workers run the tests, and prints the summary."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.servers: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for each in getattr(report, "harness_runs", ()):
            self.runs.append(each["run"])
            self.servers[each["server"]] = None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What `harness run` prints: findings first, then a row for each run, under the name of its test."""
        if not self.runs:
            return
        from harness.plain import from_plain
        from harness.records import RunRecord
        from harness.reports import terminal
        from harness.verdict.findings import pluralize

        runs = [from_plain(RunRecord, each) for each in self.runs]
        width = shutil.get_terminal_size().columns if terminalreporter.isatty else None
        terminalreporter.section("harness")
        lines = terminal.findings(runs, width)
        lines += [terminal.Line(server) for server in self.servers]
        lines += terminal.by_test(runs, width)
        truths = [run.truth.value for run in runs]
        verdict = next((t for t in ("broken", "undecided") if t in truths), "held")
        lines.append(terminal.Line(f"verdict: {verdict} ({pluralize(len(truths), 'run')})", verdict))
        for text, style in lines:
            terminalreporter.write_line(harmless(text), **_COLOURS[style])


_COLOURS: dict[str, dict[str, bool]] = {
    "": {},
    "bold": {"bold": True},
    "dim": {},
    "held": {"green": True},
    "broken": {"red": True, "bold": True},
    "undecided": {"purple": True},  # yellow cannot be read on white
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """An interrupt ends the session and fails no test, whatever error came of it where it struck."""
    try:
        return (yield)
    except Exception as error:
        if ending():
            raise KeyboardInterrupt from error
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the proof of a verdict that was not held in place of `assert False`."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, HarnessError):
        report.longrepr = _said(call.excinfo.value)  # where in the harness it was found out helps nobody
    elif call.when == "call" and call.excinfo is not None and _MADE in item.stash:
        _tell(report.longrepr, item.stash[_MADE]())
    if call.when == "teardown" and _RUNS in item.stash:
        report.harness_runs = item.stash[_RUNS]
    return report
