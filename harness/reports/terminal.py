"""The report on a terminal, on one screen where everything held.

A held run is a table with a row for each run; a broken one begins with the finding that shows most. `figures` has all
of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.records import Record, RunRecord, Source
from harness.reports import places, rows
from harness.reports.layout import Line as Line
from harness.reports.layout import paragraph, table, wrap
from harness.reports.rows import SIGNS, Row, Told
from harness.schedules.result import Move, Schedule
from harness.verdict.findings import Truth, flatten, pluralize

OTHERS = 8
"""Findings told in two lines each, after the first one."""

SENTENCES = 6
"""Runs of which each is told in a sentence more; of more, those that are not held."""

CALLS = 4
"""Calls shown of the first proof."""

WIDEST_LANES = 120
"""A schedule whose lanes need more columns than this is told as a list, where the width is not given."""

NARROWEST_LANE = 24


def screen(record: Record, width: int | None) -> list[Line]:
    """What a person looks at: findings first where there are any, then the runs, what was not tried, the verdict.

    `width`: columns of the terminal; None for a pipe, where nothing is wrapped and nothing cut.
    """
    found = findings(record.runs, width, record.sources)
    lines = _until(record, width) if found else []
    lines += found
    lines += paragraph("server   ", rows.server(record), width, "dim")
    lines += paragraph("applied  ", rows.applied(record), width, "dim")
    made = list(map(rows.row, record.runs))
    lines += [Line(""), *table_of(made, width), Line("")] if made else [Line("")]
    for each in made:
        # Of many that held their rows are enough: each has its name.
        if each.summary and (len(made) <= SENTENCES or each.truth != Truth.HELD.value):
            lines += paragraph(f"{each.name}: ", each.summary, width, rest="  ")
    for run in record.runs:
        lines += matrix(run, width)
    for note in rows.notes(record):
        lines += paragraph("note: ", note, width, "undecided")
    for sentence in rows.not_tried(record):
        lines += paragraph("not tried: ", sentence, width, "dim")
    return [*lines, *verdict(record, width)]


def _until(record: Record, width: int | None) -> list[Line]:
    """Before what was found by a command that did not come to its end: it is no verdict."""
    if not record.unfinished:
        return []
    said = f"{record.unfinished}; this was found until then:"
    return paragraph(f"{SIGNS[record.truth]} {record.truth.value}: ", said, width, record.truth.value, rest="    ")


def verdict(record: Record, width: int | None) -> list[Line]:
    """The last line, alone."""
    return paragraph("", rows.verdict(record), width, record.truth.value)


def matrix(run: RunRecord, width: int | None) -> list[Line]:
    """A scenario at each isolation level, where that was asked for."""
    found = rows.matrix(run)
    if found is None:
        return []
    cells = table([found.head, *found.body], None if width is None else width - 2, wrapped=(0, 1, 2, 3))
    lines = [Line(found.title, "bold"), *(Line(f"  {text}") for texts in cells for text in texts)]
    return [*lines, *paragraph("  ", found.sentence, width), Line("")]


def table_of(made: Iterable[Row], width: int | None) -> list[Line]:
    """A table with a row for each run."""
    head, body = _table(list(made), width)
    return [*head, *(line for lines in body for line in lines)]


def by_test(runs: Sequence[RunRecord], width: int | None) -> list[Line]:
    """The same, each row under the test that made it, and with the run's notes."""
    head, body = _table(list(map(rows.row, runs)), width)
    lines, test = list(head), None
    for run, texts in zip(runs, body, strict=True):
        if run.test != test:
            test = run.test
            lines.append(Line(test, "bold"))
        lines += texts
        for note in run.notes:
            lines += paragraph("    note: ", note, width, "undecided")
    return lines


def _table(each: Sequence[Row], width: int | None) -> tuple[list[Line], list[list[Line]]]:
    """The lines of the head, and those of each row."""
    names, *cells = rows.columns(each)
    wrapped = [n for n, name in enumerate(names) if name in ("tried", "claims", "answers")]
    head, *body = table([("", *names[1:]), *cells], width, wrapped=wrapped)
    return [Line(text, "dim") for text in head], [
        [Line(text, r.truth if r.truth != "held" else "") for text in texts]
        for r, texts in zip(each, body, strict=True)
    ]


def findings(runs: Sequence[RunRecord], width: int | None, sources: Sequence[Source] = ()) -> list[Line]:
    """What is not held: the first whole, the others with what was observed; before it, where two ways disagree."""
    lines: list[Line] = []
    for said in rows.disagreements(runs):
        lines += [*paragraph("two ways disagree: ", said, width, "undecided", rest="    "), Line("")]
    all_told = rows.told(runs)
    if not all_told:
        return lines
    first, *others = all_told
    lines += [*finding(first, width, sources), Line("")]
    if others:
        lines.append(Line(f"also not held ({len(others)}):", "bold"))
        for each in others[:OTHERS]:
            lines += _brief(each, width)
        if len(others) > OTHERS:
            lines.append(Line(f"  and {len(others) - OTHERS} more; -v shows more of them", "bold"))
        lines.append(Line(""))
    return lines


def finding(each: Told, width: int | None, sources: Sequence[Source] = ()) -> list[Line]:
    """A finding with all that a person needs: claim, proof, where, remedy, the command that repeats it."""
    found = each.finding
    truth = found.truth.value
    head = paragraph(f"{SIGNS[found.truth]} {truth}: ", found.claim, width, truth, rest="    ")
    if (title := rows.title(each)) != found.claim:
        head += paragraph("  scenario: ", title, width, rest="    ")
    return [*head, *finding_body(each, width, sources)]


def finding_body(each: Told, width: int | None, sources: Sequence[Source] = ()) -> list[Line]:
    """The same without its claim."""
    found, run = each.finding, each.run
    limit = f" (limit {found.limit})" if found.limit and found.limit != "none" else ""
    lines = paragraph("  ", f"{_source(each)}: {found.observed}{limit}{_also(each)}", width)
    if run.test:
        lines += paragraph("  test: ", run.test, width)
    for text in rows.proof(found, run.unit, 0 if each.schedule is not None else CALLS):
        indent = " " * (len(text) - len(text.lstrip()))
        lines += paragraph("  " + indent, text.lstrip(), width, rest="      " + indent)
    if each.schedule is not None:
        names = rows.lanes(run, each.schedule)
        lines += schedule(each.schedule, names, width, rows.turn_of(found, each.schedule, names))
    if found.anomaly:
        lines += paragraph("  anomaly: ", rows.anomaly(found), width, rest="    ")
    if where := places.told(each, sources):
        lines += paragraph("  where: ", where, width, rest="    ")
    if found.remedy:
        lines += paragraph("  remedy: ", found.remedy, width, rest="    ")
    if found.replay:
        # A command is copied whole: it is not wrapped here.
        lines.append(Line(f"  repeat: {found.replay}", "bold"))
    return lines


def _source(each: Told) -> str:
    return f"{each.finding.id}, {each.run.kind} ({each.run.target})"


def _also(each: Told) -> str:
    return f"; also in {pluralize(each.also, 'other run')}" if each.also else ""


def _brief(each: Told, width: int | None) -> list[Line]:
    found = each.finding
    head = f"  {SIGNS[found.truth]} {found.truth.value}: "
    lines = paragraph(head, found.claim, width, found.truth.value, rest="    ")
    lines += paragraph("    ", f"{_source(each)}: {found.observed}{_also(each)}", width)
    if found.truth is Truth.UNDECIDED and found.remedy:
        lines += paragraph("    remedy: ", found.remedy, width, rest="      ")
    return lines


def schedule(found: Schedule, names: Sequence[str], width: int | None, turn: rows.Turn | None) -> list[Line]:
    """The schedule as lanes, one for each call; as a list where lanes would be too narrow to read, or very wide."""
    lines = [Line("")]
    about = ", ".join(part for part in (found.variant, pluralize(found.keys, "key") if found.calls else "") if part)
    lines += paragraph("  ", f"schedule {found.replay}" + (f" ({about})" if about else ""), width, "bold")
    if turn is not None:
        lines += paragraph("  ", turn.said, width, rest="    ")
    wrong = {} if turn is None else {turn.step: turn.mark[0]}
    cells = [_cells(move, found) for move in found.moves]
    natural = [
        max([len(name), *(len(text) + 2 for each, texts in zip(found.moves, cells, strict=True) if each.call == lane
                          for text in texts)])
        for lane, name in enumerate(names)
    ]  # fmt: skip
    widths = _shared(natural, (WIDEST_LANES if width is None else width) - 7 - 3 * len(names))
    if any(w < min(n, NARROWEST_LANE) for w, n in zip(widths, natural, strict=True)) or (
        width is None and widths != natural
    ):
        lines += _listed(found, names, width, wrong)
    else:
        lines += _lanes(found, names, widths, cells, wrong)
    lines.append(Line(""))
    for call in found.calls:
        name = names[call.call] if call.call < len(names) else f"call {rows.letter(call.call)}"
        answer = f": {flatten(call.answer)}" if flatten(call.answer) else ""
        lines += paragraph("  ", f"{name} on {call.key} returned {call.label}{answer}", width, rest=" " * 6)
    for place, left in found.state.items():
        for each in left:
            lines += paragraph("  ", f"left in {place}: {flatten(each)}", width, rest=" " * 6)
    return lines


def _shared(natural: Sequence[int], room: int) -> list[int]:
    """The widths of lanes: what they need, or an even share of the room with what narrow ones leave."""
    widths, left, lanes = [0] * len(natural), room, len(natural)
    for lane in sorted(range(len(natural)), key=lambda n: natural[n]):
        widths[lane] = max(min(natural[lane], left // lanes), 0)
        left -= widths[lane]
        lanes -= 1
    return widths


def _cells(move: Move, found: Schedule) -> list[str]:
    place = rows.place(move, found).removeprefix("line ").replace(" line ", ":")
    return [(f"{place}: " if place else "") + " ".join(move.text.split()), *(f"-> {result}" for result in move.results)]


def _lanes(
    found: Schedule,
    names: Sequence[str],
    widths: Sequence[int],
    cells: Sequence[Sequence[str]],
    wrong: Mapping[int, str],
) -> list[Line]:
    def joined(first: str, texts: Sequence[str]) -> str:
        padded = [text.ljust(w) for text, w in zip(texts, widths, strict=True)]
        return ("  " + first.ljust(4) + " | " + " | ".join(padded)).rstrip()

    lines = [Line(joined("step", names), "dim"), Line("  -----+-" + "-+-".join("-" * w for w in widths), "dim")]
    for move, texts in zip(found.moves, cells, strict=True):
        first = f"{move.number} {wrong.get(move.number, '')}".rstrip()
        for text in texts:
            result = text.startswith("-> ")
            for n, piece in enumerate(wrap(text, widths[move.call] - 2)):
                shown = f"  {piece}" if result or n else piece
                lines.append(
                    Line(joined(first, [shown if lane == move.call else "" for lane in range(len(names))]),
                         "bold" if result else "")
                )  # fmt: skip
                first = ""
    return lines


def _listed(found: Schedule, names: Sequence[str], width: int | None, wrong: Mapping[int, str]) -> list[Line]:
    lines: list[Line] = []
    widest = max(map(len, names), default=0)
    for move in found.moves:
        first, *results = _cells(move, found)
        mark = wrong.get(move.number, " ")
        lines += paragraph(f"  {move.number:>3} {mark} {names[move.call].ljust(widest)}  ", first, width)
        for result in results:
            lines += paragraph(" " * (widest + 10), result, width, "bold")
    return lines
