"""A finding on the page: its claim and its proof, above all a schedule that can be gone through step by step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.records import RunRecord, Source
from harness.reports import places, rows, svg
from harness.reports.markup import Child, Markup, join, tag
from harness.reports.page_parts import Limits, command_text, left_out, page_table, scroll_box
from harness.reports.page_runs import draw_round
from harness.reports.rows import SIGNS, Told
from harness.schedules.result import Move, Schedule
from harness.verdict.findings import Finding, flatten, pluralize


def finding_section(each: Told, number: int, limits: Limits, sources: Sequence[Source]) -> Markup:
    """One finding: its claim, its proof, where it is, what to do."""
    found, run = each.finding, each.run
    name = f"finding{number}"
    more = f"; also in {pluralize(each.also, 'other run')}" if each.also else ""
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
            _term("See it again", command_text(found.replay)) if found.replay else None,
        ),
        # Findings of one scenario have one heading: their claims tell them apart.
        aria_labelledby=f"{name} {name}-claim" if run.kind == "check" else name,
        class_=f"finding {found.truth.value}",
    )


def has_round(each: Told) -> bool:
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
    if number == 0 and each.schedule is None and has_round(each):
        made = [made[0], *draw_round(each.run, f"{name}-round", each.finding), *made[1:]]
    if number == 0:
        return made
    return [tag("details", tag("summary", "The proof"), made)] if made else []


def _term(name: str, value: Child) -> list[Child]:
    return [tag("dt", name), tag("dd", value)]


def _evidence(found: Finding, run: RunRecord, limits: Limits) -> list[Child]:
    made: list[Child] = []
    for piece in found.evidence[:3]:
        calls = piece.get("operations") or ()
        made.append(_reason(piece))
        if calls:
            made.append(_operations(calls[: limits.calls], run.unit))
            made.append(left_out(len(calls) - limits.calls, "call"))
    made.append(left_out(len(found.evidence) - 3, "violation"))
    return made


def _reason(piece: Mapping[str, Any], without: Collection[str | None] = ()) -> list[Child]:
    """Why, or the row that is wrong, and what was observed line by line, but for lines told elsewhere."""
    rest = {name: value for name, value in piece.items() if name not in ("operations", "lines")}
    lines = [str(line) for line in piece.get("lines") or () if line not in without]
    rows_told = any(" in the end: " in line for line in lines)
    signs = " (+ is a row that is there now, - one that is there no more)" if rows_told else ""
    return [
        tag("p", str(piece.get("reason") or flatten(rest)).removesuffix(":"), signs, ":" if lines else None),
        scroll_box(tag("pre", "\n".join(lines)), "What was observed") if lines else None,
    ]


def _operations(calls: Sequence[Mapping[str, Any]], unit: str) -> Markup:
    head = ("call", "client", "key", f"called ({unit})", f"answered ({unit})", "outcome", "answer")
    body = [
        (
            f"#{o['number']}", str(o["client"]), str(o["key"]), f"{o['called_ms']:.10g}",
            "never" if o["returned_ms"] is None else f"{o['returned_ms']:.10g}",
            " ".join(filter(None, (o["outcome"], o.get("code"), o.get("held_open")))), flatten(o["answer"]),
        )
        for o in calls
    ]  # fmt: skip
    return page_table("The calls that prove it", head, body, data=True)


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
            flatten(call.answer),
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
                scroll_box(svg.lanes(found, names, f"{name}-lanes", turn), "The schedule as a picture"),
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
        page_table("What each call was told", ("call", "key", "outcome", "answer"), answers, data=True)
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
    return page_table(title, columns, body, data=True)


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
            made.append(page_table(f"Answers in the order {each.get('order', '')}", ("session", "answer"), answers))
        for table, left in (each.get("state") or {}).items():
            if left and all(isinstance(row, Mapping) for row in left):
                made.append(_state(left, f"{table}, in the order {each.get('order', '')}"))
    return made
