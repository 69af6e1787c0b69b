"""One HTML file with everything that a record says, in pictures where there is one.

It asks for nothing: style and script stand in it, and its policy lets in no others. Without JavaScript all of it can be
read; with it a schedule can be gone through step by step, and commands are copied by a button.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from harness.records import Record, RunRecord, Source
from harness.reports import places, rows, svg
from harness.reports.markup import Child, Markup, join, tag
from harness.reports.rows import SIGNS, Told
from harness.schedules.result import Move, Schedule
from harness.verdict.findings import Finding, Truth, counted, flat

LARGEST = 2_000_000
"""Bytes of a page."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a record a page shows; the next smaller ones are taken where it would be too large."""

    findings: int
    runs: int
    calls: int
    characters: int
    clients: bool


_LIMITS = (
    Limits(findings=30, runs=30, calls=12, characters=20_000, clients=True),
    Limits(findings=10, runs=8, calls=8, characters=4_000, clients=False),
    Limits(findings=3, runs=3, calls=4, characters=1_000, clients=False),
)


def page(record: Record) -> str:
    """The page. It is smaller than `LARGEST` bytes; what it leaves out for that, it says."""
    for limits in _LIMITS:
        made = _page(record, limits)
        if len(made.encode()) <= LARGEST:
            return made
    return made


def _page(record: Record, limits: Limits) -> str:
    style, script = (
        resources.files("harness.reports").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    told = rows.told(record.runs)
    shown = told[: limits.findings]
    pictured = shown[0].run if shown and _has_round(shown[0]) else None
    body = [
        tag("a", "To the content", href="#content", class_="skip"),
        _header(record),
        tag(
            "main",
            [_finding(each, n, limits, record.sources) for n, each in enumerate(shown)],
            _left_out(len(told) - limits.findings, "finding"),
            _runs(record, limits),
            [_pictures(run, n, limits, told=run is pictured) for n, run in enumerate(record.runs[: limits.runs])],
            _left_out(len(record.runs) - limits.runs, "run's picture"),
            _sql(record, told, limits),
            _not_tried(record),
            _claims(record, limits),
            _settings(record, limits),
            _commands(record, told, limits),
            id="content",
        ),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{record.truth.value}: {record.command or 'harness'}"),
        tag("style", Markup(style)),
    )
    script_tag = tag("script", Markup(script))
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", body, script_tag), lang="en") + "\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _left_out(number: int, thing: str) -> Markup:
    """A page that leaves something out says so."""
    if number <= 0:
        return Markup()
    return tag("p", f"This page leaves out {counted(number, thing)} that the record has.", class_="left-out")


def _header(record: Record) -> Markup:
    truth = record.truth
    found = {each: sum(f.truth is each for run in record.runs for f in run.findings) for each in Truth}
    claims = ", ".join(f"{n} {each.value}" for each, n in found.items() if n) or "none was judged"
    rests = (
        f"It rests on {counted(len(record.runs), 'run')} and {counted(sum(found.values()), 'judged claim')}: {claims}."
    )
    said = {
        Truth.HELD: "Every claim held in what was tried.",
        Truth.BROKEN: "At least one claim is broken: what follows shows how.",
        Truth.UNDECIDED: "It could not be decided: what follows says what would decide it.",
    }[truth]
    if record.unfinished:
        said = f"It did not come to its end ({record.unfinished}): what follows was found until then."
    return tag(
        "header",
        tag("p", "pg-concurrency-harness", class_="product"),
        tag("h1", f"{SIGNS[truth]} {truth.value}", class_=truth.value),
        tag("p", said, " ", rests),
        [tag("p", f"Two ways disagree: {said}") for said in rows.disagreements(record.runs)],
        tag("p", rows.server(record), tag("br"), rows.applied(record), tag("br"), record.created, class_="muted"),
    )


# A finding, and its schedule.


def _finding(each: Told, number: int, limits: Limits, sources: Sequence[Source]) -> Markup:
    found, run = each.finding, each.run
    name = f"finding{number}"
    more = f"; also in {counted(each.also, 'other run')}" if each.also else ""
    limit = f" (limit {found.limit})" if found.limit and found.limit != "none" else ""
    return tag(
        "section",
        tag(
            "h2",
            tag("span", f"{SIGNS[found.truth]} {found.truth.value}", class_=found.truth.value),
            " ",
            rows.title(each),
            id=name,
        ),
        tag("p", "The claim that is ", found.truth.value, ": ", tag("strong", found.claim, id=f"{name}-claim"))
        if run.kind == "check"
        else None,
        tag("p", tag("code", found.id), f", {run.kind} ({run.target}): {found.observed}{limit}{more}"),
        tag("p", "In the test ", tag("code", run.test)) if run.test else None,
        _proof(each, number, limits),
        tag(
            "dl",
            _term("Anomaly", rows.anomaly(found)) if found.anomaly else None,
            _term("Where", tag("code", where)) if (where := places.told(each, sources)) else None,
            _term("What to do", found.remedy) if found.remedy else None,
            _term("See it again", _command(found.replay)) if found.replay else None,
        ),
        # Findings of one scenario have one heading: their claims tell them apart.
        aria_labelledby=f"{name} {name}-claim" if run.kind == "check" else name,
        class_=f"finding {found.truth.value}",
    )


def _has_round(each: Told) -> bool:
    """Whether the picture of its run's round proves a finding."""
    charts = each.run.charts
    drawn = {bar.number for bar in charts.round} if charts is not None else set()
    calls = each.finding.evidence[0].get("operations") or () if each.finding.evidence else ()
    return bool(calls) and all(call["number"] in drawn for call in calls)


def _proof(each: Told, number: int, limits: Limits) -> list[Child]:
    """The first finding is shown; those after it, which the same fault often causes, can be opened."""
    name = f"finding{number}"
    if each.schedule is not None:
        made = _schedule(each.schedule, each.run, each.finding, name)
        told = {order.get("differs") for order in _serial(each.run, each.finding.id)}
        # What came of it first, then how it came; what would have come of it otherwise stands beside the picture.
        made = [*(_reason(piece, without=told) for piece in each.finding.evidence[:1]), *made]
    else:
        made = _evidence(each.finding, each.run, limits)
    if number == 0 and each.schedule is None and _has_round(each):
        made = [made[0], *_round(each.run, f"{name}-round", each.finding), *made[1:]]
    if number == 0:
        return made
    return [tag("details", tag("summary", "The proof"), made)] if made else []


def _term(name: str, value: Child) -> list[Child]:
    return [tag("dt", name), tag("dd", value)]


def _command(text: str) -> Markup:
    return tag("span", tag("code", text), class_="command")


def _evidence(found: Finding, run: RunRecord, limits: Limits) -> list[Child]:
    made: list[Child] = []
    for piece in found.evidence[:3]:
        calls = piece.get("operations") or ()
        made.append(_reason(piece))
        if calls:
            made.append(_operations(calls[: limits.calls], run.unit))
            made.append(_left_out(len(calls) - limits.calls, "call"))
    made.append(_left_out(len(found.evidence) - 3, "violation"))
    return made


def _reason(piece: Mapping[str, Any], without: Collection[str | None] = ()) -> list[Child]:
    """Why, or the row that is wrong, and what was observed line by line, but for lines told elsewhere."""
    rest = {name: value for name, value in piece.items() if name not in ("operations", "lines")}
    lines = [str(line) for line in piece.get("lines") or () if line not in without]
    rows_told = any(" in the end: " in line for line in lines)
    signs = " (+ is a row that is there now, - one that is there no more)" if rows_told else ""
    return [
        tag("p", str(piece.get("reason") or flat(rest)).removesuffix(":"), signs, ":" if lines else None),
        _scroll(tag("pre", "\n".join(lines)), "What was observed") if lines else None,
    ]


def _operations(calls: Sequence[Mapping[str, Any]], unit: str) -> Markup:
    head = ("call", "client", "key", f"called ({unit})", f"answered ({unit})", "outcome", "answer")
    body = [
        (
            f"#{o['number']}", str(o["client"]), str(o["key"]), f"{o['called_ms']:.10g}",
            "never" if o["returned_ms"] is None else f"{o['returned_ms']:.10g}",
            " ".join(filter(None, (o["outcome"], o.get("code"), o.get("held_open")))), flat(o["answer"]),
        )
        for o in calls
    ]  # fmt: skip
    return _table("The calls that prove it", head, body, data=True)


def _schedule(found: Schedule, run: RunRecord, finding: Finding, name: str) -> list[Child]:
    names = rows.lanes(run, found)
    turn = rows.turn_of(finding, found, names)
    steps = tag(
        "ol",
        [
            tag(
                "li",
                tag("strong", names[move.call]),
                f", {place}: " if (place := rows.place(move, found)) else ": ",
                tag("code", " ".join(move.text.split())),
                [tag("span", f" → {result}", class_="result") for result in move.results],
                tag("span", f" {turn.mark[0]} {turn.text}", class_="doubt" if turn.doubt else "wrong")
                if turn is not None and turn.step == move.number
                else None,
                data_step=str(move.number),
            )
            for move in found.moves
        ],
        class_="steps",
    )
    answers = [
        (
            names[call.call] if call.call < len(names) else f"call {rows.letter(call.call)}",
            call.key,
            call.label,
            flat(call.answer),
        )
        for call in found.calls
    ]
    return [
        tag("p", _story(found, run, names, turn)),
        _what_they_run(run, names),
        tag(
            "div",
            tag(
                "div",
                tag("button", "First", type="button", data_go="first"),
                tag("button", "← Back", type="button", data_go="back"),
                tag("button", "Next →", type="button", data_go="next"),
                tag("button", "Last", type="button", data_go="last"),
                tag("button", "Whole", type="button", data_go="all"),
                tag("span", "or the arrow keys", class_="muted"),
                class_="controls",
                hidden=True,
            ),
            tag("p", "", class_="now", role="status"),
            tag(
                "div",
                _scroll(svg.lanes(found, names, f"{name}-lanes", turn), "The schedule as a picture"),
                tag(
                    "div",
                    _rows(found),
                    _serial_orders(_serial(run, finding.id)),
                    class_="beside",
                ),
                class_="stage",
            ),
            tag("h3", "Step by step"),
            steps,
            class_="schedule",
            data_steps=str(len(found.moves)),
        ),
        tag("h3", "What each was told") if answers else None,
        _table("What each call was told", ("call", "key", "outcome", "answer"), answers, data=True)
        if answers
        else None,
        [_state(left, f"What is left in {table}") for table, left in found.state.items()],
    ]


def _story(found: Schedule, run: RunRecord, names: Sequence[str], turn: rows.Turn | None) -> Child:
    """For somebody who has never seen such a picture."""
    key = next((call.key for call in found.calls), "")
    people = [rows.spoken(name) for name in names]
    who = ", ".join(people[:-1]) + f" and {people[-1]}" if len(people) > 1 else people[0]
    on = [" on the key ", tag("code", key)] if key and found.keys == 1 else []
    when = "one after the other" if rows.one_by_one(found) else "at the same time"
    what = f"run {when}" if run.kind == "check" else f"call the function {when}"
    how = ". Each box is one step on the server, time goes down, and a step stands in the column of who makes it."
    how += (
        " A dashed line with an arrow is somebody who waits, and for whom." if any(map(rows.waits, found.moves)) else ""
    )
    parts: list[Child] = [f"Here {who} {what}", on, how]
    if turn is not None:
        parts.append(tag("strong", f" {turn.said[0].upper()}{turn.said[1:]}."))
    return parts


def _what_they_run(run: RunRecord, names: Sequence[str]) -> Child:
    """Of each session its statements: inside of a function that it calls, the steps alone do not say them."""
    found = run.details.get("statements") or {}
    sessions = run.details.get("sessions") or ()
    items = [
        tag(
            "li",
            tag("strong", name),
            " runs ",
            join([[", then " if n else "", tag("code", " ".join(text.split()))] for n, text in enumerate(statements)]),
        )
        for name, session in zip(names, sessions, strict=False)
        if (statements := found.get(session, ())[:_MOST_STATEMENTS])
    ]
    return tag("ul", items, class_="who") if items else None


_MOST_STATEMENTS = 8


def _rows(found: Schedule) -> list[Child]:
    """After each step that changed them, the rows that everybody can see."""
    shown = [move for move in found.moves if move.rows]
    if not shown:
        return []
    # There is little room beside the picture: columns that differ between rows or steps come first.
    seen: dict[str, dict[str, set[str]]] = {}
    for move in shown:
        for table, left in move.rows.items():
            for row in left:
                for column, value in row.items():
                    seen.setdefault(table, {}).setdefault(column, set()).add(_value(value))
    order = {table: sorted(columns, key=lambda name: len(columns[name]) < 2) for table, columns in seen.items()}
    return [tag("h3", "The rows, as everybody else sees them"), [_rows_at(move, order) for move in shown]]


def _rows_at(move: Move, order: Mapping[str, Sequence[str]]) -> Markup:
    made = [
        join(
            [
                tag("p", tag("code", table), f" after step {move.number}"),
                _state_table(sorted(left, key=_in_order), f"{table} after step {move.number}", order.get(table, ())),
            ]
        )
        if left
        else tag("p", tag("code", table), f" after step {move.number}: no row")
        for table, left in move.rows.items()
    ]
    return tag("div", made, class_="rows", data_rows=str(move.number))


def _state(left: Sequence[Mapping[str, Any]], title: str) -> Markup:
    return join([tag("h3", title), _state_table(left, title)])


def _state_table(left: Sequence[Mapping[str, Any]], title: str, order: Sequence[str] = ()) -> Markup:
    columns = list(order) or list(dict.fromkeys(name for row in left for name in row))
    body = [tuple(_value(row.get(name)) for name in columns) for row in left]
    return _table(title, columns, body, data=True)


def _in_order(row: Mapping[str, Any]) -> list[tuple[bool, float, str]]:
    """So that a row stays in its place while others, or its last columns, change."""
    return [(v is None, v if isinstance(v, int | float) else 0, _value(v)) for v in row.values()]


def _value(value: Any) -> str:
    """As psql shows it."""
    return "NULL" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _serial(run: RunRecord, finding: str) -> Sequence[Mapping[str, Any]]:
    """What would have come of it one after another, as far as the page tells it, nearest first."""
    return ((run.details.get("serial_orders") or {}).get(finding) or [])[:3]


def _serial_orders(found: Sequence[Mapping[str, Any]]) -> list[Child]:
    made: list[Child] = [tag("h3", "Had they come one after another")] if found else []
    for each in found:
        order = str(each.get("order", "")).replace(", ", ", then ")
        made.append(tag("h4", order))
        if each.get("differs"):
            made.append(tag("p", str(each["differs"]).removeprefix(f"after {order}: ")))
        answers = [(str(who), str(said)) for who, said in (each.get("answers") or {}).items()]
        if answers:
            made.append(_table(f"Answers in the order {each.get('order', '')}", ("session", "answer"), answers))
        for table, left in (each.get("state") or {}).items():
            if left and all(isinstance(row, Mapping) for row in left):
                made.append(_state(left, f"{table}, in the order {each.get('order', '')}"))
    return made


# Runs.


def _runs(record: Record, limits: Limits) -> Markup:
    most = limits.runs * 7
    made = [rows.row(run) for run in record.runs[:most]]
    head, *body = rows.columns(made)
    return tag(
        "section",
        tag("h2", "The runs", id="runs"),
        _table("The runs", head, body, truths=[r.truth for r in made]),
        [tag("p", f"{r.name}: {r.summary}") for r in made if r.summary],
        [_matrix(found) for run in record.runs[:most] if (found := rows.matrix(run)) is not None],
        [tag("p", note) for note in rows.notes(record)[:most]],
        _left_out(len(record.runs) - most, "row"),
        aria_labelledby="runs",
    )


def _matrix(found: rows.MatrixTable) -> Markup:
    return join([tag("h3", found.title), _table(found.title, found.head, found.body), tag("p", found.sentence)])


def _round(run: RunRecord, name: str, finding: Finding | None = None) -> list[Child]:
    bars = run.charts.round if run.charts is not None else ()
    if not bars:
        return []
    let_in = sum(bar.applied for bar in bars)
    function = next((f.location.function for f in run.findings if f.location is not None and f.location.function), None)
    keys = list(dict.fromkeys(bar.key for bar in bars))
    on = [" on the key ", tag("code", keys[0])] if len(keys) == 1 else [f" on {counted(len(keys), 'key')}"]
    return [
        tag("h3", "One round: who was inside when" if finding is None else "The round in which it went wrong"),
        tag(
            "p",
            f"{counted(len(bars), 'client')} called {function or 'the function'} at the same time",
            on,
            f": {let_in} let in (✓). {_ROUND}",
        ),
        _scroll(svg.calls_of_a_round(bars, name), "The calls of one round"),
    ]


def _pictures(run: RunRecord, number: int, limits: Limits, *, told: bool) -> Markup:
    """The run's charts; `told`: its round is drawn already."""
    name = f"run{number}"
    charts = run.charts
    made: list[Child] = [] if told else _round(run, f"{name}-round")
    if charts is not None and charts.percentiles:
        made.append(tag("h3", "Latency"))
        made.append(_scroll(svg.latency(charts, _thresholds(run), f"{name}-latency"), "Latency"))
        made.append(_trends(run))
    if charts is not None and any(charts.outcomes.values()) and run.kind != "race":
        made.append(tag("h3", "Throughput"))
        made.append(_scroll(svg.throughput(charts, f"{name}-throughput"), "Throughput"))
        if limits.clients and len(charts.clients) > 1:
            picture = svg.clients(charts, f"{name}-clients")
            made.append(tag("details", tag("summary", "By client"), _scroll(picture, "Calls by client")))
    added = [each for each in run.details.get("added") or [] if None not in (each["added"], each["low"], each["high"])]
    if added:
        made.append(tag("h3", "What HTTP adds"))
        made.append(_scroll(svg.overhead(added, f"{name}-overhead"), "What HTTP adds"))
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
    return _table("Response times in milliseconds", ("outcome", "calls", *names), body)


# The SQL.

_LOCKS = re.compile(
    r"\bFOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|SHARE)\b|\bFOR\s+KEY\s+SHARE\b|\bNOWAIT\b|\bSKIP\s+LOCKED\b|\bLOCK\s+TABLE\b"
    r"|\bpg_(?:try_)?advisory\w*",
    re.IGNORECASE,
)
_GUARDS = re.compile(
    r"\bON\s+CONFLICT\b|\bEXCEPTION\s+WHEN\b|\bEXCEPTION\b|\bWHEN\s+\w*violation\b|\block_not_available\b|\bUNIQUE\b"
    r"|\bIF\s+(?:NOT\s+)?FOUND\b",
    re.IGNORECASE,
)


def _sql(record: Record, told: Sequence[Told], limits: Limits) -> Markup:
    if not record.sources:
        return Markup()
    first = next((each for each in told if each.schedule is not None), None)
    # A function that stands in a scenario is shown there.
    whole = {source.path for source in record.sources if not source.function}
    shown = [source for source in record.sources if not source.function or source.path not in whole]
    texts = [(source, _steps_on(source, record, first, limits)) for source in shown[:10]]
    of = (
        f" (a letter is a column of schedule {first.schedule.replay}, a number its step)"
        if first is not None and first.schedule is not None
        else ""
    )
    return tag(
        "section",
        tag("h2", "The SQL", id="sql"),
        tag(
            "p",
            "Marked: ",
            tag("mark", "words that lock", class_="lock"),
            ", ",
            tag("mark", "words that guard", class_="guard"),
            f", and in the margin the steps that can be interleaved{of}." if any(marks for _, marks in texts) else ".",
        ),
        [_source(source, marks, limits) for source, marks in texts],
        _left_out(len(shown) - 10, "text"),
        aria_labelledby="sql",
    )


def _steps_on(source: Source, record: Record, told: Told | None, limits: Limits) -> dict[int, list[str]]:
    """By line of the text, from 0: that a step begins there, and which ones of the schedule do."""
    first = places.body_line(source.text[: limits.characters])  # lines of a body count from where it begins
    marks: dict[int, list[str]] = {}
    if first is not None and source.function:
        for run in record.runs:
            for step in (run.details.get("exploration") or {}).get("steps", ()):
                name, _, rest = str(step).partition(":")
                line = rest.partition(":")[0]
                if name.partition("(")[0] == source.function and line.isdigit():
                    marks.setdefault(first + int(line) - 1, [])
    if told is not None and told.schedule is not None:
        for move in told.schedule.moves:
            place = places.of_a_step(move, record.sources, told.finding) if move.line else None
            if place is not None and place[0] == source.path and place[1] >= source.line:
                marks.setdefault(place[1] - source.line, []).append(f"{rows.letter(move.call)}{move.number}")
    return marks


def _source(source: Source, marks: Mapping[int, Sequence[str]], limits: Limits) -> Markup:
    text = source.text[: limits.characters]
    lines = [
        tag(
            "tr",
            tag("td", str(source.line + n), class_="number"),
            tag("td", "step " + " ".join(marks[n]) if n in marks else "", class_="margin") if marks else None,
            tag("td", tag("code", _marked(line))),
            class_="at-step" if n in marks else None,
        )
        for n, line in enumerate(text.split("\n"))
    ]
    title = f"The definition of {source.function}" if source.function else f"The scenario {source.path}"
    head = tag("tr", [tag("th", name, scope="col") for name in (("line", "step", "SQL") if marks else ("line", "SQL"))])
    made = tag("table", tag("caption", title, class_="hidden"), tag("thead", head), tag("tbody", lines), class_="sql")
    return join(
        [
            tag("h3", f"{source.function}, {source.path}:{source.line}" if source.function else source.path),
            _scroll(made, title),
            _left_out(len(source.text) - limits.characters, "character"),
        ]
    )


def _marked(line: str) -> Iterator[Child]:
    """The line with its words that lock or guard marked."""
    found = sorted(
        [(m.start(), m.end(), "lock") for m in _LOCKS.finditer(line)]
        + [(m.start(), m.end(), "guard") for m in _GUARDS.finditer(line)]
    )
    at = 0
    for start, end, kind in found:
        if start >= at:
            yield line[at:start]
            yield tag("mark", line[start:end], class_=kind)
            at = end
    yield line[at:]


# The rest.


def _not_tried(record: Record) -> Markup:
    said = rows.not_tried(record)
    if not said:
        return Markup()
    return tag(
        "section",
        tag("h2", "What was not tried", id="not-tried"),
        tag("p", "Held is only said of what was tried. Outside of it:"),
        tag("ul", [tag("li", sentence) for sentence in said[:50]]),
        aria_labelledby="not-tried",
    )


def _claims(record: Record, limits: Limits) -> Markup:
    every = [(run, f) for run in record.runs for f in run.findings]
    most = limits.findings * 20
    body = [
        (f"{SIGNS[f.truth]} {f.truth.value}", f"{run.kind} ({run.target})", f.claim, f.observed)
        for run, f in every[:most]
    ]
    return tag(
        "section",
        tag("h2", "Every claim", id="claims"),
        tag(
            "details",
            tag("summary", counted(len(every), "judged claim")),
            _table(
                "Every claim",
                ("verdict", "run", "claim", "observed"),
                body,
                truths=[f.truth.value for _, f in every[:most]],
            ),
            _left_out(len(every) - most, "claim"),
        ),
        aria_labelledby="claims",
    )


def _settings(record: Record, limits: Limits) -> Markup:
    environment = record.environment
    pairs = {
        "server": rows.server(record),
        "address": environment.address,
        **environment.settings,
        "harness": record.harness_version,
        "made": record.created,
        "by": record.command,
        **({"prelude": "\n".join(record.prelude)} if record.prelude else {}),
    }
    files = [(f.path, f.sha256) for f in (*record.migrations, *record.seeds)]
    most = limits.findings * 10
    return tag(
        "section",
        tag("h2", "Settings and versions", id="settings"),
        _table("Settings", ("setting", "value"), [(name, str(value)) for name, value in pairs.items()]),
        tag(
            "details",
            tag("summary", f"{counted(len(files), 'file')} with their sha256"),
            _table("Files", ("file", "sha256"), files[:most]),
            _left_out(len(files) - most, "file"),
        )
        if files
        else None,
        aria_labelledby="settings",
    )


def _commands(record: Record, told: Sequence[Told], limits: Limits) -> Markup:
    found = dict.fromkeys(
        [
            record.command,
            *(run.repeat for run in record.runs),
            *(each.finding.replay for each in told[: limits.findings]),
        ]
    )
    commands = [text for text in found if text][: limits.findings]
    if not commands:
        return Markup()
    return tag(
        "section",
        tag("h2", "Commands", id="commands"),
        tag("ul", [tag("li", _command(text)) for text in commands], class_="commands"),
        aria_labelledby="commands",
    )


def _table(
    title: str, head: Sequence[str], body: Sequence[Sequence[str]], *, truths: Sequence[str] = (), data: bool = False
) -> Markup:
    lines = [
        tag("tr", [tag("td", cell) for cell in row], class_=truths[n] if n < len(truths) else None)
        for n, row in enumerate(body)
    ]
    made = tag(
        "table",
        tag("caption", title, class_="hidden"),
        tag("thead", tag("tr", [tag("th", name, scope="col") for name in head])),
        tag("tbody", lines),
        class_="data" if data else None,
    )
    return _scroll(made, title)


def _scroll(child: Child, label: str) -> Markup:
    """What may be wider than the screen is moved in a box of its own, also by keyboard."""
    return tag("div", child, class_="scroll", tabindex="0", role="group", aria_label=label)
