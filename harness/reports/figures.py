"""Every figure of a record, in the sections of the original load test's summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.records import Record, RunRecord
from harness.reports import rows, terminal
from harness.reports.layout import paragraph
from harness.reports.rows import SIGNS
from harness.schedules.result import Exploration, Schedule
from harness.text import printable
from harness.verdict.findings import Finding, Truth, flatten, pluralize
from harness.verdict.overlap import would_have_been_seen

_STYLES = {Truth.HELD: "green", Truth.BROKEN: "bold red", Truth.UNDECIDED: "magenta"}

FINDINGS = 500
"""Findings told of a record; each of its runs has a share of them, broken ones first."""

PROOFS = 30
"""Of them those whose proof is told."""

VIOLATIONS = 20
"""Pieces of evidence of one proof, and calls of one piece."""

_SHARE = 3
"""What a run has at least, however many runs there are."""


def print_record(record: Record, console: Console) -> None:
    """Print every figure of every run, then the verdict."""
    console.print(_configuration(record))
    for run in record.runs:
        shares = (max(most // len(record.runs), _SHARE) for most in (FINDINGS, PROOFS))
        console.print(_run(run, console.width - 4 if console.is_terminal else None, *shares), crop=False)
    console.print(_text(rows.verdict(record), _STYLES[record.truth]))


def _configuration(record: Record) -> RenderableType:
    environment = record.environment
    settings = ", ".join(f"{name}={value}" for name, value in environment.settings.items())
    rows = {
        "server": f"{environment}, {pluralize(environment.cores, 'core')}",
        "settings": settings,
        "migrations": ", ".join(f"{f.path} ({f.sha256[:8]})" for f in record.migrations),
        "seed": ", ".join(f"{f.path} ({f.sha256[:8]})" for f in record.seeds),
        **({"prelude": "\n".join(record.prelude)} if record.prelude else {}),
        "contract": record.contract,
        "profile": record.profile,
    }
    return _section("configuration", _pairs(rows))


def _run(run: RunRecord, width: int | None, findings: int, proofs: int) -> RenderableType:
    plan = ", ".join(f"{name}={_plan_value(value)}" for name, value in run.plan.items() if _worth_showing(name, value))
    title = f"{run.kind} through {run.target}: {plan}" + (f"  [{run.test}]" if run.test else "")
    parts: list[RenderableType] = [_text(f"\n{title}", "bold")]
    if run.metrics is not None:
        parts.append(_section("scan results", _results(run)))
        parts.append(_section("response times (ms)", _times(run)))
    if "http" in run.details:
        parts.append(_section("http", _http(run.details["http"])))
    if run.overlap is not None:
        parts.append(_section("race handling", _race(run)))
    explored = rows.exploration(run)
    if explored is not None:
        parts.append(_section("interleavings", _exploration(explored, run.truth)))
    elif run.kind == "check":
        parts.append(_section("scenario", _scenario(run)))
    if (matrix := rows.matrix(run)) is not None:
        table = Table(*matrix.head, box=None, pad_edge=False)
        for cells in matrix.body:
            table.add_row(*map(_text, cells))
        parts.append(_section("isolation levels", Group(table, _text(matrix.sentence))))
    for title, found in (
        ("thresholds", [f for f in run.findings if f.id.startswith("threshold.")]),
        ("claims", [f for f in run.findings if not f.id.startswith("threshold.")]),
    ):
        if found:
            shown = _worst(found, findings)
            parts.append(_section(title, Group(findings_table(shown), *_more(len(found) - findings, "finding"))))
    parts += [line for note in run.notes for line in _paragraph("  note: ", note, width, _STYLES[Truth.UNDECIDED])]
    doubted = [f for f in run.findings if f.truth is not Truth.HELD]
    proven = _worst(doubted, proofs)
    parts += [_proof(f, run.unit, width) for f in proven]
    parts += _more(len(doubted) - proofs, "proof")
    parts += _schedules(run, {f.id: f for f in proven}, None if explored is None else explored.replayed, width)
    if run.interrupted:
        parts.append(_text("  interrupted: what follows rests on the calls made until then", _STYLES[Truth.UNDECIDED]))
    return Group(*parts)


def _worst(findings: Sequence[Finding], most: int) -> list[Finding]:
    """So many of them in their order; where there are more, broken before undecided before held."""
    if len(findings) <= most:
        return list(findings)
    order = (Truth.BROKEN, Truth.UNDECIDED, Truth.HELD)
    return sorted(findings, key=lambda f: order.index(f.truth))[:most]


def _more(number: int, thing: str) -> list[Text]:
    """What is left out is said."""
    if number <= 0:
        return []
    return [_text(f"  and {pluralize(number, f'more {thing}')}: the record (--record FILE) has all of them", "bold")]


def _text(text: str, style: str = "") -> Text:
    """Text of whatever origin: nothing in it steers the terminal."""
    return Text(printable(text), style)


def _worth_showing(name: str, value: Any) -> bool:
    """Whether a line of the plan tells a reader something; the record has all of it."""
    return name != "command" and value is not None and value is not False


def _plan_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        if any(isinstance(part, dict) for part in value):  # patterns side by side
            return " + ".join(map(_plan_value, value))
        return f"({', '.join(map(_plan_value, value))})"
    if isinstance(value, dict):
        return f"({', '.join(f'{name}={_plan_value(each)}' for name, each in value.items())})"
    return str(value)


def _results(run: RunRecord) -> RenderableType:
    metrics = run.metrics
    assert metrics is not None
    rows = {name: f"{count}" for name, count in metrics.counts.items()}
    rows = {"calls": f"{metrics.calls} in {metrics.seconds:.2f} s ({_per_second(run)})"} | rows
    rows |= {f"check: {name}": _check(passed, failed) for name, (passed, failed) in metrics.checks.items()}
    return _pairs(rows)


def _per_second(run: RunRecord) -> str:
    assert run.metrics is not None
    return f"{run.metrics.calls / run.metrics.seconds:.0f}/s" if run.metrics.seconds else "no time measured"


def _times(run: RunRecord) -> RenderableType:
    metrics = run.metrics
    assert metrics is not None
    table = Table(box=None, pad_edge=False)
    for column in ("outcome", "calls", "avg", "min", "med", "p90", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column == "outcome" else "right")
    for label, trend in metrics.trends.items():
        values = (trend.avg, trend.min, trend.med, trend.p90, trend.p95, trend.p99, trend.max)
        table.add_row(_text(label), str(trend.count), *("-" if v is None else f"{v:.2f}" for v in values))
    left_out = metrics.calls - metrics.trends["all"].count
    if not left_out:
        return table
    return Group(table, _text(f"{pluralize(left_out, 'call')} not timed: made to wait on purpose, or in doubt", "dim"))


def _http(told: Mapping[str, Any]) -> RenderableType:
    checks = told["checks"].items()
    rows = {f"check: {name}": _check(each["passed"], each["failed"]) for name, each in checks}
    rows |= {f"status {status}" if status != "0" else "no answer": str(n) for status, n in told["statuses"].items()}
    return _pairs({"through": f"{_served_by(told)} at {told['url']}, {told['connections']} connections"} | rows)


def _served_by(told: Mapping[str, Any]) -> str:
    served = told["postgrest"]
    return f"PostgREST {served['version']} ({served['how']}; pool of {served['pool']})" if served else "PostgREST"


def _race(run: RunRecord) -> RenderableType:
    overlap = run.overlap
    assert overlap is not None
    assert run.metrics is not None
    rows: dict[str, str] = {}
    clients = run.plan.get("clients")
    refused = Counter(r.refused for r in overlap.rounds if r.callers == clients and r.keys == 1)
    if clients and refused:
        rounds = pluralize(refused.total(), "plain round")
        rows["expected"] = (
            f"{max(clients - overlap.capacity, 0)} of {clients} refused in each of {rounds} of all clients on one key"
        )
        rows["observed"] = ", ".join(
            f"{n} of {clients} in {pluralize(times, 'round')}" for n, times in sorted(refused.items())
        )
    rows |= {
        "rounds": f"{len(overlap.rounds)} plain, {overlap.held_rounds} with a transaction held open",
        "overlapped on the server": f"{overlap.overlapped} of {len(overlap.rounds)} plain rounds, "
        f"{_rounded(overlap.at_once_p50)} calls in progress at once (median)",
        "inside the function at once": f"{overlap.inside} of them",
        "start spread": f"{_rounded(overlap.spread_p50_us)} us (median), {_rounded(overlap.spread_p95_us)} us (p95)",
    }
    if run.truth is not Truth.BROKEN and overlap.overlapped:
        rows["what may have escaped"] = f"{would_have_been_seen(overlap.escape_bound)}; such are those that overlapped"
    return _pairs(rows)


def _exploration(found: Exploration, truth: Truth) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for column in ("variant", "keys", "schedules", "before reduction", "tried all", "ended"):
        table.add_column(column, justify="right" if column in ("keys", "schedules", "before reduction") else "left")
    for case in found.cases:
        ended = "; ".join(f"{labels} x{count}" for labels, count in case.outcomes.items())
        tried = "yes" if case.exhausted else "no"
        counts = (case.keys, case.schedules, case.before_reduction)
        table.add_row(_text(case.variant), *map(str, counts), tried, _text(ended))
    seconds = f"{found.seconds:.1f} s; {found.search} search"
    not_covered = [_text(f"not covered: {each}", "dim") for each in found.not_covered]
    return Group(_text(f"{rows.explored(found, truth)} ({seconds})", _STYLES[truth]), table, *not_covered)


def _scenario(run: RunRecord) -> RenderableType:
    """How a scenario's sessions met, and what came of it."""
    made = rows.row(run)
    not_covered = [_text(f"not covered: {each}", "dim") for each in made.not_tried]
    return Group(_pairs({"claim": made.summary, "tried": made.tried, "results": made.answers}), *not_covered)


def _schedules(
    run: RunRecord, proven: Mapping[str, Finding], replayed: Schedule | None, width: int | None
) -> list[RenderableType]:
    """Each broken schedule once, as steps that a person can follow, with what was returned and what was left."""
    broken = {name: schedule for name, schedule in rows.schedules(run).items() if name in proven}
    claims: dict[str, list[str]] = {}
    schedules = {schedule.replay: schedule for schedule in broken.values()}
    for name, schedule in broken.items():
        claims.setdefault(schedule.replay, []).append(name)
    if replayed is not None:
        schedules.setdefault(replayed.replay, replayed)
    parts: list[RenderableType] = []
    for replay, schedule in schedules.items():
        parts.append(_text(f"\n  {replay} breaks {', '.join(claims[replay])}" if replay in claims else "", "bold"))
        names = rows.lanes(run, schedule)
        turn = rows.turn_of(proven[claims[replay][0]], schedule, names) if replay in claims else None
        lines = terminal.schedule(schedule, names, width, turn)
        parts += [_whole(f"  {line.text}", "bold" if line.style == "bold" else "") for line in lines]
    return parts


def findings_table(findings: Iterable[Finding]) -> RenderableType:
    """One line for each finding: its truth, its claim, what was observed."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        style = _STYLES[finding.truth]
        table.add_row(
            _text(f"{SIGNS[finding.truth]} {finding.truth.value}", style),
            _text(finding.claim),
            _text(finding.observed, "dim" if finding.truth is Truth.HELD else style),
        )
    return table


def _proof(finding: Finding, unit: str, width: int | None) -> RenderableType:
    """Everything that a person needs to believe an open finding, and to see it again; times are in `unit`."""
    style = _STYLES[finding.truth]
    lines: list[RenderableType] = [Text("")]
    lines += _paragraph(f"  {SIGNS[finding.truth]} ", f"{finding.id}: {finding.claim}", width, style)
    limit = f", limit {finding.limit}" if finding.limit else ""
    lines += _paragraph("    observed ", finding.observed + limit, width)
    for piece in finding.evidence[:VIOLATIONS]:
        lines += _paragraph("    - ", str(piece.get("reason") or flatten(piece)), width)
        for line in piece.get("lines") or ():
            lines += _paragraph("      ", line, width)
        operations = piece.get("operations") or ()
        if operations:
            lines.append(Padding(_operations(operations[:VIOLATIONS], unit, width), (0, 0, 0, 6)))
            lines += _more(len(operations) - VIOLATIONS, "call")
    lines += _more(len(finding.evidence) - VIOLATIONS, "violation")
    if finding.location is not None and str(finding.location):
        lines += _paragraph("    defined: ", str(finding.location), width)
    if finding.remedy:
        lines += _paragraph("    remedy: ", finding.remedy, width)
    if finding.replay:
        # A command is copied whole: it is not wrapped here.
        lines.append(_whole(f"    repeat: {finding.replay}", "cyan"))
    return Group(*lines)


def _paragraph(first: str, text: str, width: int | None, style: str = "") -> list[RenderableType]:
    """The text after `first`, in lines in which no word is cut."""
    made = paragraph(first, " ".join(printable(text).split()), width, rest=" " * (len(first) - len(first.lstrip()) + 2))
    return [_whole(line.text, style) for line in made]


def _whole(text: str, style: str = "") -> Text:
    """One line, however long."""
    made = _text(text, style)
    made.no_wrap, made.overflow = True, "ignore"
    return made


def _operations(operations: Sequence[Mapping[str, Any]], unit: str, width: int | None) -> RenderableType:
    if width is not None:  # a table would cut keys and answers into pieces
        return Group(
            *(
                line
                for o in operations
                for line in _paragraph("", f"on {o['key']}: {rows.operation(o, unit)}", width - 6)
            )
        )
    table = Table(box=None, pad_edge=False)
    for column in ("call", "client", "key", f"called ({unit})", f"returned ({unit})", "outcome", "answer"):
        table.add_column(column)
    for o in operations:
        returned = "never" if o["returned_ms"] is None else f"{o['returned_ms']:.10g}"
        outcome = o["outcome"] + (f" {o['code']}" if "code" in o else "")
        outcome += f" ({o['held_open']})" if "held_open" in o else ""
        row = (
            f"#{o['number']}",
            o["client"],
            o["key"],
            f"{o['called_ms']:.10g}",
            returned,
            outcome,
            flatten(o["answer"]),
        )
        table.add_row(*(_text(str(cell)) for cell in row))
    return table


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _section(title: str, body: RenderableType) -> RenderableType:
    return Group(_text(f"  {title}", "bold cyan"), Padding(body, (0, 0, 0, 4)))


def _pairs(rows: Mapping[str, str]) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows.items():
        if value:
            table.add_row(_text(name, "dim"), _text(value))
    return table


def _check(passed: int, failed: int) -> str:
    share = f"{passed / (passed + failed) * 100:.4g} %: " if passed + failed else ""
    return f"{share}{passed} passed, {failed} failed"
