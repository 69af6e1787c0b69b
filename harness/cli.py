"""The console command `harness`."""

from __future__ import annotations

import sys

from harness.signals import defer_until_handled

if sys.argv[0].endswith("harness"):  # this process is the command's own, and imports take a while
    defer_until_handled()

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import harness
from harness.arguments import (
    NUMBER,
    OF_A_CALL,
    OF_A_LOAD,
    SECONDS,
    TABLE,
    changed_options,
    given_of_load,
    resolved,
    shared_options,
)
from harness.console import attach_streams, guarded, make_runs, publish, say, say_environment
from harness.errors import ExitStatus, HarnessError, UsageError, explained
from harness.load import patterns
from harness.load.pattern import PATTERNS
from harness.options import (
    FEWEST_PAIRS,
    MOST,
    OF_CALLS,
    OF_CONTRACTS,
    OUTPUTS,
    Options,
    as_words,
    check_outputs,
    outputs,
)
from harness.progress import Bar
from harness.records import read as read_record
from harness.text import harmless

if TYPE_CHECKING:
    from harness.scenarios.scenario import Scenario


class _Commands(click.Group):
    """Also what click prints itself, help and version, may find no room."""

    def main(self, *words: Any, **how: Any) -> Any:
        try:
            return super().main(*words, **how)
        except OSError as error:
            told = explained(error)
            say(f"error: {told}")
            sys.exit(told.exit_status)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(harness.__version__, prog_name="harness")
def main() -> None:
    """Say with evidence whether a PostgreSQL function keeps its promise under concurrency, and how fast it is.

    Exit status: 0 every claim held, 1 one is broken, 2 wrong usage, 3 the environment failed, 4 undecided,
    130 ended by Ctrl-C, 143 by SIGTERM or SIGHUP.
    """
    attach_streams()
    try:
        here = str(Path.cwd())
    except OSError as error:
        gone = HarnessError("The current folder is not there.", tried=str(error), next_step="go to one that is: cd")
        say(f"error: {gone}")
        sys.exit(gone.exit_status)
    if here not in sys.path:
        # A contract of one's own may lie here; after what is installed, so that nothing of that is replaced by it.
        sys.path.append(here)


@main.command(epilog="\b\nPatterns:\n" + "\n".join(f"  {name:<9} {each.summary()}" for name, each in PATTERNS.items()))
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE.race.sql]")
@click.option(
    "--pattern",
    "chosen",
    multiple=True,
    type=click.Choice(list(PATTERNS)),
    help="only this pattern; repeatable; default: those of the profile",
)
@click.option("--http-url", metavar="URL", help="scan real tickets through this API instead of booting a server")
@click.option("--tickets", type=click.Path(path_type=Path), metavar="FILE", help="their ids (JSON), for --http-url")
@click.option("--yes", is_flag=True, help="do not ask before real tickets are scanned")
@click.option("--dry-run", is_flag=True, help="only say what would run; nothing is booted, and the exit status is 0")
@changed_options
@shared_options
def run(
    file: Path | None,
    chosen: tuple[str, ...],
    http_url: str | None,
    tickets: Path | None,
    yes: bool,
    dry_run: bool,
    changed_since: str | None,
    last_record: Path | None,
    **given: Any,
) -> None:
    """Boot a server, run the profile's patterns, print the verdict.

    FILE.race.sql says under `load:` what is called, in place of a --contract.

    With --http-url or --tickets: burst and race against an API that is there, with real tickets.
    """
    with guarded():
        options = resolved(given, patterns.options())
        said = {name for name, value in given.items() if value}
        if file is not None:
            options = _of_a_file(file, options, said)
        if http_url is not None or tickets is not None:
            if dry_run:
                raise UsageError(
                    "--dry-run is not for --http-url and --tickets.",
                    next_step="leave it and --yes out: what would be scanned is said, and asked, before anything is",
                )
            said |= {"changed_since"} if changed_since is not None else set()
            if unused := sorted((said | {"pattern"} if chosen else said) - _OF_STAGING):
                flag = "--" + unused[0].replace("_", "-")
                raise UsageError(f"{flag} is not for --http-url and --tickets.", next_step="leave it out")
            _staging(http_url, tickets, options, yes=yes)
        if yes:
            raise UsageError("--yes is for --http-url and --tickets.", next_step="leave it out")
        patterns.check_used(said, chosen, options.profile)
        _only_if_changed(changed_since, last_record, options)
        targets = ("sql", "http") if options.http else ("sql",)
        plans = [PATTERNS[name].of(options.profile, options.load) for name in chosen]
        if dry_run:
            from harness.dry_run import lines

            for line in lines(options, plans, targets):
                click.echo(line)
            return
        from harness.run import Harness, open_harness

        def runs(harness_: Harness) -> None:
            for target in targets:
                for plan in plans or harness_.profile():
                    harness_.run(plan, target)
            if options.http:
                from harness.experiments.overhead import overhead

                overhead(harness_, harness_.http_options, pairs=6, seconds=0.4, rounds=100)

        with Bar() as bar, open_harness(options, bar.calls) as opened:
            bar.stop()
            say_environment(opened.environment, opened.template.applied.prelude)
            make_runs(opened, options, runs, bar)


def _of_a_file(file: Path, options: Options, said: Set[str]) -> Options:
    """The options with the load of a scenario file for a contract."""
    from harness.scenarios.scenario import SUFFIX

    if "contract" in said:
        raise UsageError(f"{file} and --contract are two contracts.", next_step="give one of them")
    if not file.name.endswith(SUFFIX):
        raise UsageError(f"{file} is not a scenario.", next_step=f"name a file that ends in {SUFFIX}")
    return replace(options, contract=str(file))


@main.command()
@click.option("--pairs", type=click.IntRange(FEWEST_PAIRS, MOST), default=8, show_default=True, help="pairs of blocks")
@click.option("--seconds", type=SECONDS, default=1.0, show_default=True, help="of each block")
@partial(shared_options, without=OF_A_LOAD - {"clients", "rounds", "timeout"} | {"http"})
def overhead(pairs: int, seconds: float, **given: Any) -> None:
    """Measure what PostgREST adds: blocks by SQL and by HTTP in turn, then races by both doors."""
    with guarded():
        options = resolved(given | {"http": "yes"}, patterns.options())
        from harness.experiments.overhead import overhead
        from harness.run import open_harness

        plan = given_of_load(options, "clients", "rounds")
        with open_harness(options) as opened:
            say_environment(opened.environment, opened.template.applied.prelude)
            make_runs(opened, options, lambda it: overhead(it, it.http_options, pairs=pairs, seconds=seconds, **plan))


@main.command("compare", hidden=True, context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def compare(context: click.Context, words: tuple[str, ...]) -> None:
    """The name that `overhead` had in 0.1."""
    click.echo("compare is now called overhead; the old name goes away with the next release", err=True)
    with overhead.make_context("overhead", list(words), parent=context.parent) as renamed:
        overhead.invoke(renamed)


@main.command()
@click.option(
    "--pool-timeout",
    type=SECONDS,
    default=1.0,
    show_default=True,
    help="seconds that PostgREST lets a request wait for a connection",
)
@partial(shared_options, without=OF_A_LOAD - {"clients", "rounds", "timeout"} | {"http"})
def overload(pool_timeout: float, **given: Any) -> None:
    """Race more clients than PostgREST has connections, and ask the database what became of every call."""
    with guarded():
        options = resolved(given | {"http": "yes"}, patterns.options())
        from harness.experiments.overload import overload
        from harness.run import open_harness

        plan = given_of_load(options, "clients", "rounds")
        with open_harness(options) as opened:
            say_environment(opened.environment, opened.template.applied.prelude)
            http = replace(opened.http_options, pool_timeout=pool_timeout)
            make_runs(opened, options, lambda it: overload(it, http, **plan))


@main.command()
@click.option("--calls", type=click.IntRange(1, 4), default=2, show_default=True, help="concurrent calls")
@click.option(
    "--search",
    type=click.Choice(("exhaustive", "random", "pct")),
    default="exhaustive",
    show_default=True,
    help="every order, or samples of a large space",
)
@click.option("--max-schedules", type=NUMBER, help="the most schedules of one case")
@click.option("--max-preemptions", type=click.IntRange(min=0), help="the most interruptions of a call in one schedule")
@click.option("--seconds", type=SECONDS, default=60.0, show_default=True, help="for all cases")
@click.option("--random-seed", type=int, default=0, show_default=True, help="of a random or pct search")
@click.option("--crash", is_flag=True, help="let one call die at each step")
@click.option(
    "--edges/--no-edges",
    default=True,
    show_default=True,
    help="also keys that do not exist, NULL, one owner's keys, a call made again, three calls",
)
@click.option("--replay", metavar="TEXT", help="carry out this schedule, such as AABBA, and no other")
@click.option("--times", type=NUMBER, default=1, show_default=True, help="how many times to run a replay")
@click.option("--variant", "variants", multiple=True, metavar="NAME", help="only this argument variant; repeatable")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="cases tried side by side; one keeps two processors busy",
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RECORD", help="go on where an exploration of a record ended"
)
@changed_options
@partial(shared_options, without=OF_A_LOAD)
def explore(random_seed: int, changed_since: str | None, last_record: Path | None, **given: Any) -> None:
    """Try every interleaving of the statements inside concurrent calls."""
    names = ("calls", "search", "max_schedules", "max_preemptions", "seconds", "crash", "edges", "replay", "times")
    plan = {name: given.pop(name) for name in (*names, "variants", "jobs", "resume")}
    with guarded():
        options = resolved(given)
        _only_if_changed(changed_since, last_record, options)
        from harness.run import open_harness

        bar = Bar()
        with open_harness(options) as opened:
            say_environment(opened.environment, opened.template.applied.prelude)
            make_runs(
                opened, options, lambda it: it.explore(seed=random_seed, said=bar.cases, **plan), bar, "exploring"
            )


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE|FOLDER...")
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(("explore", "race")),
    help="try orders one by one, or release the sessions together; repeatable  [default: both]",
)
@click.option(
    "--matrix", is_flag=True, help="at each isolation level too, without and with retry: what it mends, what it costs"
)
@click.option("--seconds", type=SECONDS, default=20.0, show_default=True, help="for the orders of one scenario")
@click.option("--replay", metavar="TEXT", help="carry out this schedule of one scenario, such as AABBA, and no other")
@changed_options
@partial(
    shared_options,
    without=((OF_A_LOAD | OF_CALLS) - {"timeout", "isolation"}) | OF_CONTRACTS,
)
def check(
    paths: tuple[Path, ...],
    by: tuple[str, ...],
    seconds: float,
    matrix: bool,
    replay: str | None,
    changed_since: str | None,
    last_record: Path | None,
    **given: Any,
) -> None:
    """Check scenario files: what several people run together must be explained by one after another."""
    with guarded():
        options = resolved(given)
        from harness.check import WAYS, Checks, open_checks
        from harness.matrix import check_at_each_level, refuse_own_level
        from harness.scenarios import reader

        found = reader.find(paths)
        last = _last_record(changed_since, last_record, options)
        if changed_since is not None:
            found = _changed(found, changed_since, options, last)
        scenarios = _with_sessions(reader.read(path) for path in found)
        if replay is not None and len(scenarios) != 1:
            raise UsageError("--replay is a schedule of one scenario.", next_step="name one file")
        if matrix and (replay is not None or options.isolation):
            other = "--isolation" if replay is None else "--replay"
            raise UsageError("--matrix tries every level and every order.", next_step=f"leave {other} out")
        for scenario in scenarios if matrix else ():
            refuse_own_level(scenario)

        bar = Bar()

        def runs(checks: Checks) -> None:
            for number, scenario in enumerate(scenarios):
                done = f"{number} of {len(scenarios)} checked"
                bar.show(scenario.name, done, number / len(scenarios))
                checks.said = partial(bar.tries, scenario.name, done, number / len(scenarios))
                if matrix:
                    check_at_each_level(checks, scenario, by=by, seconds=seconds)
                    continue
                checks.check(
                    scenario,
                    by=by or WAYS,
                    isolation=options.isolation or "",
                    replay=replay or "",
                    seconds=seconds,
                )

        with open_checks(options) as opened:
            say_environment(opened.environment, opened.template.applied.prelude)
            make_runs(opened, options, runs, bar)


def _with_sessions(found: Iterable[Scenario]) -> list[Scenario]:
    """Those that can be checked; a file that holds a load in their place is named, and left out."""
    scenarios: list[Scenario] = []
    loads: list[Scenario] = []
    for scenario in found:
        (scenarios if scenario.load is None else loads).append(scenario)
    if loads and not scenarios:
        raise UsageError(
            f"{loads[0].path} holds a load, and no sessions to check.", next_step=f"run it: harness run {loads[0].path}"
        )
    for scenario in loads:
        click.echo(f"left out, it holds a load: harness run {scenario.path}", err=True)
    return scenarios


def _last_record(since: str | None, given: Path | None, options: Options) -> Path | None:
    """The record that says what was touched; of its own accord that which this command is to write anew."""
    if given is not None:
        if since is None:
            raise UsageError("--last-record is for --changed-since.", next_step="give both, or leave it out")
        return given
    if since is None or options.record is None or not options.record.exists():
        return None
    try:
        read_record(options.record)
    except UsageError as error:
        say(f"{error.what} What changed is looked up by text.")
        return None
    return options.record


def _only_if_changed(since: str | None, given: Path | None, options: Options) -> None:
    """End where the changes cannot matter to the contract's function; says why it goes on, or does not."""
    last = _last_record(since, given, options)
    if since is None:
        return
    from harness.changed import matters
    from harness.scenarios import loads

    contract = loads.asked_for(options)
    wanted, why = matters(contract, since, options, last)
    if not wanted:
        say(f"left out, the changes do not reach it: {contract.function.name}; {why}")
        sys.exit(ExitStatus.HELD)
    say(f"{contract.function.name} is called: {why}")


def _changed(paths: tuple[Path, ...], since: str, options: Options, last: Path | None) -> tuple[Path, ...]:
    """Those that the changes can matter to; says what is left out, and ends where nothing is left."""
    from harness.changed import choose

    chosen = choose(paths, since, options, last)
    click.echo(f"{len(chosen.wanted)} of {len(paths)} scenarios are checked: {chosen.why}", err=True)
    for path in chosen.left_out:
        click.echo(f"left out, the changes do not reach it: {path}", err=True)
    if not chosen.wanted:
        sys.exit(ExitStatus.HELD)
    return chosen.wanted


@main.command()
@partial(shared_options, without=OF_A_CALL, shown=False)
def apply(**given: Any) -> None:
    """Apply prelude, migrations and seed to a scratch database, and say what became of each file.

    Exit status: 0 every file was applied, 3 one was not.
    """
    with guarded():
        options = resolved(given)
        from harness.environment.choice import applied
        from harness.reports.applied import lines

        with applied(options) as (server, template):
            say_environment(server.describe())
            for line in lines(template.applied):
                click.echo(harmless(line))
            whole = template.applied.whole
    sys.exit(ExitStatus.HELD if whole else ExitStatus.ENVIRONMENT)


@main.command()
@click.option("--server", metavar="DSN", help="look there; default: on this machine")
@click.option("--dry-run", is_flag=True, help="only say what would be removed")
def clean(*, server: str | None, dry_run: bool) -> None:
    """Remove what runs left that were killed: their databases and roles, or servers, folders and containers here.

    Nothing of a run that goes on is touched, and nothing that the harness did not make.
    """
    with guarded():
        from harness.environment.cleaning import clean

        removed = 0
        for removed, leftover in enumerate(clean(server, dry_run=dry_run), 1):  # noqa: B007
            click.echo(f"{'would remove' if dry_run else 'removed'}  {leftover}")
        if not removed:
            click.echo("nothing is left")


@main.command()
@click.argument("functions", nargs=-1, metavar="[FUNCTION [FUNCTION]]")
@click.option("--example", metavar="NAME", help="copy a scenario that is shipped instead")
@click.option(
    "--from-log",
    type=click.Path(path_type=Path),
    metavar="LOG",
    help="make the sessions of PostgreSQL's log (stderr, csvlog, jsonlog) a scenario",
)
@click.option(
    "--from", "since", metavar="TIME", default="", help="of the log, only from this time on, spelled as there"
)
@click.option("--to", "until", metavar="TIME", default="", help="of the log, only up to this time")
@click.option(
    "--log-line-prefix", metavar="PREFIX", default="", help="of the log, where it is not found from the lines"
)
@click.option("--anonymize", is_flag=True, help="replace the log's personal data one to one")
@click.option("--into", type=click.Path(path_type=Path), metavar="FILE", help="where to  [default: NAME.race.sql]")
@partial(shared_options, without=OF_A_LOAD | OF_CONTRACTS | {*OUTPUTS, "github_summary"}, shown=False)
def new(
    functions: tuple[str, ...],
    example: str | None,
    from_log: Path | None,
    since: str,
    until: str,
    log_line_prefix: str,
    anonymize: bool,
    into: Path | None,
    **given: Any,
) -> None:
    """Write a scenario to start from, for one function or two, or from a log; without either, list those shipped."""
    with guarded():
        from harness.scenarios import examples

        if sum((example is not None, bool(functions), from_log is not None)) > 1:
            raise UsageError("A function, --example and --from-log are scenarios each.", next_step="give one of them")
        if len(functions) > 2:
            raise UsageError(f"{len(functions)} functions are too many to start from.", next_step="give one or two")
        if from_log is None and (since or until or log_line_prefix or anonymize):
            raise UsageError(
                "--from, --to, --log-line-prefix and --anonymize are for --from-log.", next_step="name the log"
            )
        if example is None and from_log is None and not functions:
            click.echo("\n".join(examples.names()))
            return
        bare = [function.partition("(")[0].rpartition(".")[2] for function in functions]
        name = example or "_".join(bare)
        if from_log is not None:
            name = re.sub(r"\W+", "_", from_log.stem).strip("_") or "incident"
        path = into or Path(f"{name}.race.sql")
        if path.exists():
            raise UsageError(f"{path} is there already.", next_step="give another name with --into")
        notes: list[str] = []
        if example is not None:
            text = examples.text(example)
        else:
            text, notes = _started(functions, from_log, (since, until, log_line_prefix), given, anonymize=anonymize)
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be written.", tried=str(error), next_step="give another --into") from error
        for note in notes:
            say(note)
        from harness.environment.servers import command_line

        words = as_words(resolved(given), OF_CALLS | OF_CONTRACTS)
        click.echo(f"{path} is written; check it: {command_line(['harness', 'check', str(path), *words])}")


def _started(
    functions: Sequence[str],
    source: Path | None,
    part: tuple[str, str, str],
    given: Mapping[str, Any],
    *,
    anonymize: bool,
) -> tuple[str, list[str]]:
    """A scenario for functions, or from a log's part, and what is to be said of it."""
    from harness.scenarios import incident, logs
    from harness.scenarios.starting import scenario_for

    log = None if source is None else logs.read(source, *part)
    from harness.check import open_checks

    with open_checks(resolved(given)) as opened:
        say_environment(opened.environment, opened.template.applied.prelude)
        with opened.template.clone() as database, database.connect() as connection:
            if log is None or source is None:
                return scenario_for(connection, functions), []
            return incident.scenario_of(connection, log, source, anonymize=anonymize)


@main.command()
@click.argument("record", type=click.Path(path_type=Path))
@partial(shared_options, without={option.name for option in TABLE} - {*OUTPUTS, "github_summary"} | {"record"})
def report(record: Path, **given: Any) -> None:
    """Print a record that --record wrote as the run itself printed it, and end with its exit status.

    With --html, --markdown, --sarif or --code-quality it is written there as well.
    """
    with guarded():
        options = replace(resolved(given), record=None)
        check_outputs(options)
        found = read_record(record)
        for name, path in outputs(options).items():
            if path.exists() and path.samefile(record):
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} would overwrite the record {record}.", next_step="give it another name")
        try:
            publish(found, options)
        except HarnessError:
            raise
        except Exception as error:
            raise UsageError(
                f"{record} cannot be shown: what it says of its runs is not what this version writes.",
                tried=f"{type(error).__name__}: {error}",
                next_step="make the record again; if it is as a command wrote it, report this as a defect",
            ) from error
    sys.exit(found.exit_status)


@main.command()
@partial(
    shared_options,
    without={o.name for o in TABLE} - {"server", "postgres_image", "migrations", "postgrest", "http"},
    shown=False,
)
def doctor(**given: Any) -> None:
    """Say what is there that a run may need (servers, Docker, PostgREST, rights), and what to do for what is not.

    Exit status: 0 a run can be made, 3 something that it needs is not there.
    """
    with guarded():
        options = resolved(given)
        from harness import doctor as surgery

        missing = False
        click.echo(f"harness {harness.__version__}, {surgery.cores()}")
        for found in surgery.examine(options):
            missing |= found.needed and not found.there
            click.echo(surgery.told(found))
    sys.exit(ExitStatus.ENVIRONMENT if missing else ExitStatus.HELD)


def _staging(http_url: str | None, tickets: Path | None, options: Options, *, yes: bool) -> NoReturn:
    from harness import contracts
    from harness.environment.servers import command_line
    from harness.staging import confirm, read_staging, run_staging

    check_outputs(options)
    if options.contract.endswith(".race.sql"):
        raise UsageError(
            "--http-url and --tickets reach an API alone, and a file's conditions need a server to evaluate them.",
            next_step="give a --contract in Python, or run the file without them",
        )
    staging = read_staging(http_url, tickets)
    contract = contracts.asked_for(options)
    confirm(staging, yes=yes, ask=input if sys.stdin.isatty() else None)
    given = given_of_load(options, "clients", "pause")
    command = command_line(["harness", *sys.argv[1:]])
    record = run_staging(staging, contract, command=command, timeout=options.timeout, **given)
    publish(record, options)
    if record.interrupted:
        raise KeyboardInterrupt
    sys.exit(record.exit_status)


_OF_STAGING = frozenset({"clients", "pause", "timeout", "contract", "github_summary", *OUTPUTS})


if __name__ == "__main__":
    main()
