"""What `harness run` would do, in plain lines: everything is read and checked that can be without a server.

Nothing is booted, connected to or written. What only a server can tell (whether the files apply, how many connections
are free, how fast it is) is not told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.contracts.contract import Contract
from harness.environment.servers import ExternalServer, Server, without_password
from harness.load import patterns
from harness.load.burst import Burst
from harness.load.pattern import Pattern
from harness.load.race import Race
from harness.load.side_by_side import SideBySide
from harness.options import Options, outputs
from harness.run import prepared
from harness.verdict import thresholds
from harness.verdict.findings import pluralize


def lines(options: Options, plans: Sequence[Pattern], targets: Sequence[str]) -> Iterator[str]:
    """The plan, a line each; without `plans` those of the contract's file, or the profile's.

    Raises HarnessError for what could be seen to fail before anything is booted.
    """
    contract, server, template = prepared(options)
    plans = plans or patterns.of_contract(contract, options.profile, options.load)
    patterns.check_keys(contract, plans)
    yield f"server: {_server(server, options)}"
    yield f"platform: {template.platform}"
    if options.setup:
        yield f"set up first by: {options.setup}"
    for what, scripts in (("migrations", template.migrations), ("seed", template.seeds)):
        yield f"{what}: {pluralize(len(scripts), 'file')}"
        yield from (f"  {number}. {script.path}" for number, script in enumerate(scripts, 1))
    yield from (f"order: {order}" for order in template.order)
    yield f"contract: {contract.name}, which calls {contract.function.name}"
    for target in targets:
        for plan in plans:
            yield f"run: {plan.name} ({target}): {describe(plan)}"
            yield from (f"  threshold {each.metric}: {each.expression}" for each in _thresholds(plan, contract))
    if options.http:
        yield "run: overhead: what HTTP adds, 6 pairs of blocks of 0.4 s and 100 rounds"
    for name, path in outputs(options).items():
        yield f"would write --{name.replace('_', '-')}: {path}"
    yield "dry run: nothing was booted, and nothing was called"


def _server(server: Server, options: Options) -> str:
    if isinstance(server, ExternalServer):
        what = "scratch databases are created there and dropped"
        if server.database is not None:
            what = f"everything happens in {server.database}, which is emptied between runs and at the end"
        return f"{without_password(server.dsn)} ({server.why}); {what}"
    image = f" of {options.postgres_image}" if server.kind == "container" else ""
    return f"{server.kind}{image} ({server.why})"


def describe(plan: Pattern) -> str:
    """Clients, calls and seconds of a pattern, as far as they are planned."""
    if isinstance(plan, SideBySide):
        return "; beside it ".join(f"{part.name}: {describe(part)}" for part in plan.parts)
    parts = [pluralize(plan.clients, "client")]
    if isinstance(plan, Race):
        parts += [pluralize(plan.rounds, "round"), pluralize(sum(len(each.callers) for each in plan.plan(1)), "call")]
    elif plan.seconds is not None and isinstance(plan, Burst):
        parts.append("as many calls as are answered")
    else:
        parts.append(f"{'about ' if plan.seconds is not None else ''}{pluralize(round(plan.planned), 'call')}")
    limit = getattr(plan, "limit", None)
    if plan.seconds is not None:
        parts.append(f"{plan.seconds:g} s")
    elif isinstance(plan, Race) and plan.pace:
        parts.append(f"one every {plan.pace:g} s")
    elif limit is not None:
        parts.append(f"nothing is begun after {limit:g} s")
    else:
        parts.append("until all are answered")
    return ", ".join(parts)


def _thresholds(plan: Pattern, contract: Contract) -> list[thresholds.Threshold]:
    return thresholds.asked(contract, plan.expected(contract))
