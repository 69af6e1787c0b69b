"""The runs on the page: a table of all of them, and of each its pictures."""

from __future__ import annotations

import re

from harness.records import Record, RunRecord
from harness.reports import rows, svg
from harness.reports.markup import Child, Markup, join, tag
from harness.reports.page_parts import Limits, left_out, page_table, scroll_box
from harness.verdict.findings import Finding, pluralize


def runs_section(record: Record, limits: Limits) -> Markup:
    """All runs in a table, the matrices, and what is to be noted."""
    most = limits.runs * 7
    made = [rows.row(run) for run in record.runs[:most]]
    head, *body = rows.columns(made)
    return tag(
        "section",
        tag("h2", "The runs", id="runs"),
        page_table("The runs", head, body, truths=[r.truth for r in made]),
        [tag("p", f"{r.name}: {r.summary}") for r in made if r.summary],
        [_matrix(found) for run in record.runs[:most] if (found := rows.matrix(run)) is not None],
        [tag("p", note) for note in rows.notes(record)[:most]],
        left_out(len(record.runs) - most, "row"),
        aria_labelledby="runs",
    )


def _matrix(found: rows.MatrixTable) -> Markup:
    return join([tag("h3", found.title), page_table(found.title, found.head, found.body), tag("p", found.sentence)])


def draw_round(run: RunRecord, name: str, finding: Finding | None = None) -> list[Child]:
    """The calls of one round as a picture, if the record has them; with a finding, the round that proves it."""
    bars = run.charts.round if run.charts is not None else ()
    if not bars:
        return []
    let_in = sum(bar.applied for bar in bars)
    function = next((f.location.function for f in run.findings if f.location is not None and f.location.function), None)
    keys = list(dict.fromkeys(bar.key for bar in bars))
    on = [" on the key ", tag("code", keys[0])] if len(keys) == 1 else [f" on {pluralize(len(keys), 'key')}"]
    return [
        tag("h3", "One round: who was inside when" if finding is None else "The round in which it went wrong"),
        tag(
            "p",
            f"{pluralize(len(bars), 'client')} called {function or 'the function'} at the same time",
            on,
            f": {let_in} let in (✓). {_ROUND}",
        ),
        scroll_box(svg.calls_of_a_round(bars, name), "The calls of one round"),
    ]


def pictures_section(run: RunRecord, number: int, limits: Limits, *, told: bool) -> Markup:
    """The run's charts; `told`: its round is drawn already."""
    name = f"run{number}"
    charts = run.charts
    made: list[Child] = [] if told else draw_round(run, f"{name}-round")
    if charts is not None and charts.percentiles:
        made.append(tag("h3", "Latency"))
        made.append(scroll_box(svg.latency(charts, _thresholds(run), f"{name}-latency"), "Latency"))
        made.append(_trends(run))
    if charts is not None and any(charts.outcomes.values()) and run.kind != "race":
        made.append(tag("h3", "Throughput"))
        made.append(scroll_box(svg.throughput(charts, f"{name}-throughput"), "Throughput"))
        if limits.clients and len(charts.clients) > 1:
            picture = svg.clients(charts, f"{name}-clients")
            made.append(tag("details", tag("summary", "By client"), scroll_box(picture, "Calls by client")))
    added = [each for each in run.details.get("added") or [] if None not in (each["added"], each["low"], each["high"])]
    if added:
        made.append(tag("h3", "What HTTP adds"))
        made.append(scroll_box(svg.overhead(added, f"{name}-overhead"), "What HTTP adds"))
    if not made:
        return Markup()
    test = [" in ", tag("code", run.test)] if run.test else []
    return tag("section", tag("h2", f"{run.kind} ({run.target})", test, id=name), made, aria_labelledby=name)


_ROUND = (
    "Time is the server's clock. A solid bar is the time inside the function; the thin bar after it is the time for "
    "which its transaction was still open, as calls that began meanwhile saw it. Until its end nobody sees what it "
    "changed, and who wants a row that it has locked waits or is turned away."
)


def _thresholds(run: RunRecord) -> dict[str, float]:
    """The limits on a duration, in milliseconds, as `p(95)<200`."""
    found = {}
    for finding in run.findings:
        limit = re.fullmatch(r"threshold\.\w+\.(\w+(?:\(\d+\))?<=?(\d+(?:\.\d+)?))", finding.id)
        if limit is not None and not limit[1].startswith(("rate", "count")):
            found[f"limit {limit[1]}"] = float(limit[2])
    return found


def _trends(run: RunRecord) -> Child:
    if run.metrics is None:
        return None
    names = ("avg", "min", "med", "p90", "p95", "p99", "max")
    body = [
        (label, str(trend.count), *("-" if (v := getattr(trend, name)) is None else f"{v:.2f}" for name in names))
        for label, trend in run.metrics.trends.items()
    ]
    return page_table("Response times in milliseconds", ("outcome", "calls", *names), body)
