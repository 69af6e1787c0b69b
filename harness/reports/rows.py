"""What is said of a run in one row, of a finding in one block, and of a record in one sentence.

The terminal, pytest's summary, the page and the comment on a pull request all say it in these words. A new kind of run
adds a function and a line to `ROWS`; until it does, its row is made of its findings alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import PurePath
from typing import Any

from harness.environment.description import GONE_ON
from harness.plain import from_plain
from harness.records import AppliedFile, Record, RunRecord
from harness.schedules.result import Exploration, Move, Schedule
from harness.verdict.findings import Finding, Truth, flatten, pluralize
from harness.verdict.overlap import would_have_been_seen

SIGNS = {Truth.HELD: "✓", Truth.BROKEN: "✗", Truth.UNDECIDED: "?"}


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Each text may be empty."""

    name: str
    truth: str
    """held, broken or undecided."""
    tried: str
    """How much was tried, in the run's own unit: calls, rounds, schedules."""
    p95: str
    """In milliseconds, with its 95 % confidence interval where there are calls enough."""
    claims: str
    answers: str
    """What came of it, each with its number."""
    not_tried: tuple[str, ...] = ()
    """What the run does not cover, a sentence each."""
    summary: str = ""
    """One sentence more, where the columns do not say it all."""


HEAD = ("run", "tried", "p95 (ms)", "claims", "answers")


def columns(each: Sequence[Row]) -> list[tuple[str, ...]]:
    """The head of a table of rows, and its lines; a column in which nothing stands is left out."""
    signs = {truth.value: sign for truth, sign in SIGNS.items()}
    head = ("verdict", *HEAD)
    lines = [(f"{signs[r.truth]} {r.truth}", r.name, r.tried, r.p95, r.claims, r.answers) for r in each]
    kept = [n for n in range(len(head)) if any(line[n] for line in lines) or not lines]
    return [tuple(line[n] for n in kept) for line in (head, *lines)]


def row(run: RunRecord) -> Row:
    """The run's row, by its kind."""
    found = {truth: sum(f.truth is truth for f in run.findings) for truth in Truth}
    claims = ", ".join(f"{n} {truth.value}" for truth, n in found.items() if n) or "none judged"
    plain = Row(f"{run.kind} ({run.target})", run.truth.value, tried="", p95="", claims=claims, answers="")
    made = ROWS.get(run.kind, _load)(run, plain)
    notes = ("interrupted: it rests on what was made until then",) if run.interrupted else ()
    return replace(made, not_tried=made.not_tried + notes)


def _load(run: RunRecord, plain: Row) -> Row:
    """Any run whose calls were counted and timed."""
    metrics = run.metrics
    if metrics is None:
        return plain
    tried = pluralize(metrics.calls, "call")
    not_tried: tuple[str, ...] = ()
    overlap = run.overlap
    if overlap is not None:
        tried += f", {pluralize(len(overlap.rounds) + overlap.held_rounds, 'round')}"
        if run.truth is not Truth.BROKEN and overlap.overlapped:
            overlapped = pluralize(overlap.overlapped, "round")
            not_tried = (
                f"what shows more rarely: {overlapped} overlapped, {would_have_been_seen(overlap.escape_bound)}",
            )
    answers = ", ".join(f"{name} {n}" for name, n in outcomes(run).items())
    trend = metrics.trends["all"]
    p95 = "" if trend.p95 is None else f"{trend.p95:.2f}"
    if p95 and trend.p95_interval is not None:
        low, high = trend.p95_interval
        p95 += f" ({low:.2f}-{high:.2f})"
    return replace(plain, tried=tried, answers=answers, p95=p95, not_tried=not_tried)


def _explore(run: RunRecord, plain: Row) -> Row:
    found = exploration(run)
    if found is None:
        return plain
    ended: dict[str, int] = {}
    for case in (each for each in found.cases if each.calls <= found.calls):
        for labels, count in case.outcomes.items():
            ended[labels] = ended.get(labels, 0) + count
    answers = "; ".join(f"{labels} x{count}" for labels, count in ended.items())
    summary = f"{explored(found, run.truth)} ({found.seconds:.1f} s; {found.search} search)"
    tried = pluralize(found.schedules, "interleaving")
    return replace(plain, tried=tried, answers=answers, not_tried=found.not_covered, summary=summary)


def explored(found: Exploration, truth: Truth) -> str:
    """One sentence: what was tried and what came of it."""
    tried = f"{pluralize(found.schedules, 'interleaving')} of {found.calls} concurrent calls at statement level"
    if truth is Truth.BROKEN:
        return f"{tried}; the shortest one that breaks each claim is shown"
    return f"all {tried} hold ({found.before_reduction} before reduction)" if found.exhausted else f"{tried} hold"


def _overhead(run: RunRecord, plain: Row) -> Row:
    """What HTTP adds, at each percentile."""
    added = run.details.get("added") or []
    answers = ", ".join(
        f"p{each['share'] * 100:g} {each['added']:+.2f} ms ({each['low']:.2f} to {each['high']:.2f})"
        for each in added
        if each["added"] is not None and each["low"] is not None
    )
    return replace(plain, tried=f"{run.plan.get('pairs', 0)} pairs of blocks", answers=answers)


def _check(run: RunRecord, plain: Row) -> Row:
    """A scenario: how its sessions met, and what was said of the results."""
    found = run.details["check"]
    tried = [pluralize(found["serial_orders"], "serial order")]
    if found["schedules"]:
        tried.append(pluralize(found["schedules"], "interleaving"))
    if found["rounds"]:
        tried.append(f"{pluralize(found['rounds'], 'round')} ({found['met']} met)")
    return replace(
        plain,
        name=found["name"],
        tried=", ".join(tried),
        answers=pluralize(found["results"], "distinct result"),
        not_tried=tuple(found["not_covered"]),
        summary=found["scenario"],
    )


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """A scenario at each isolation level, as a table and a sentence."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    sentence: str


def matrix(run: RunRecord) -> MatrixTable | None:
    """The isolation levels of a scenario; None where they were not tried."""
    found = run.details.get("matrix")
    if found is None:
        return None
    signs = {truth.value: sign for truth, sign in SIGNS.items()}

    def verdict(cell: Mapping[str, Any]) -> str:
        return f"{signs[cell['truth']]} {cell['truth']}" + (f": {cell['anomaly']}" if cell["anomaly"] else "")

    body = []
    for each in found["levels"]:
        again, by_index = each["with_retry"], each["by_index"]
        retried = f"{again['retried']} of {again['tries']}"
        if again["retried"] and by_index["tries"] and not by_index["retried"]:
            retried += "; table too small: none with enable_seqscan = off"
        elif again["retried"] or by_index["retried"]:
            retried += f"; {by_index['retried']} of {by_index['tries']} with enable_seqscan = off"
        body.append((each["level"], verdict(each["without"]), verdict(again), retried))
    return MatrixTable(
        f"{run.details['check']['name']}: isolation levels, by {' and '.join(found['by'])}",
        ("level", "without retry", f"retry: {found['retry']}", "tries in which a session was retried"),
        tuple(body),
        _mends(found["levels"]),
    )


def _mends(levels: Sequence[Mapping[str, Any]]) -> str:
    """What the matrix comes to, in one sentence."""
    held = {each["level"]: [each[column]["truth"] == "held" for column in ("without", "with_retry")] for each in levels}
    if held[levels[0]["level"]][0]:
        return f"It holds at {levels[0]['level']}: no other level is needed."
    undecided = [
        each["level"] for each in levels if not any(held[each["level"]]) and each["with_retry"]["truth"] == "undecided"
    ]
    if not any(any(each) for each in held.values()):
        if not undecided:
            return "No level mends it: the SQL has to change."
        return f"No level is shown to mend it: at {_listed(undecided)} it is undecided."
    kinds = {
        "mend it": [level for level, (without, _) in held.items() if without],
        "mend it where the application retries": [level for level, each in held.items() if each == [False, True]],
        "do not": [level for level, each in held.items() if not any(each) and level not in undecided],
        "are undecided": undecided,
    }
    singular = {"mend it": "mends it", "do not": "does not", "are undecided": "is undecided"}
    said = []
    for what, names in kinds.items():
        if len(names) == 1:
            what = next((what.replace(many, one) for many, one in singular.items() if what.startswith(many)), what)
        if names:
            said.append(f"{_listed(names)} {what}")
    return "; ".join(said) + "."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])


ROWS: Mapping[str, Callable[[RunRecord, Row], Row]] = {
    "check": _check,
    "explore": _explore,
    "overhead": _overhead,
}
"""By the kind of run: what is said of it. The row that is handed in has the name, the truth and the claims."""


def outcomes(run: RunRecord) -> dict[str, int]:
    """The outcomes of a run's calls, each with its number; the metrics that are sums of these are left out."""
    metrics = run.metrics
    if metrics is None:
        return {}
    return {name: n for name, n in (metrics.outcomes or metrics.counts).items() if n}


def exploration(run: RunRecord) -> Exploration | None:
    """What an exploration of a function found; None where the run is none."""
    found = run.details.get("exploration")
    return None if found is None or run.kind != "explore" else from_plain(Exploration, found, "exploration")


def schedules(run: RunRecord) -> dict[str, Schedule]:
    """By the id of a finding: the shortest schedule that breaks the claim."""
    found = run.details.get("exploration") or {}
    return {
        name: from_plain(Schedule, each, f"schedule of {name}") for name, each in (found.get("broken") or {}).items()
    }


def lanes(run: RunRecord, schedule: Schedule) -> list[str]:
    """What the calls of a schedule are called, in order."""
    count = 1 + max((move.call for move in schedule.moves), default=-1)
    names = [str(name) for name in run.details.get("sessions") or ()]
    # With its letter: what a step led to names the others by theirs.
    return [f"{letter(n)}: {names[n]}" if n < len(names) else f"call {letter(n)}" for n in range(count)]


def letter(call: int) -> str:
    """The letter of a call in a replay text."""
    return chr(ord("A") + call)


def waits(move: Move) -> list[tuple[int, int]]:
    """Who begins to wait in a step, and for whom: `waits for B`, `C waits for A and B`."""
    found = []
    for result in move.results:
        who, waiting, whom = result.partition("waits for ")
        if waiting:
            waiter = ord(who[0]) - ord("A") if who.strip() else move.call
            found += [(waiter, ord(each) - ord("A")) for each in whom.split(" and ") if len(each) == 1]
    return found


def place(move: Move, schedule: Schedule) -> str:
    """Where a step is, in few words: its line, of a function that a session calls with the function's name."""
    name = move.function.partition("(")[0].rpartition(".")[2]
    return "" if not move.line else f"{name} line {move.line}" if schedule.sessions and name else f"line {move.line}"


def one_by_one(schedule: Schedule) -> bool:
    """Whether no call did anything between the first and the last step of another."""
    calls = [move.call for move in schedule.moves]
    return sum(a != b for a, b in pairwise(calls)) == len(set(calls)) - 1


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a schedule goes wrong."""

    step: int
    call: int
    """Who goes wrong: who makes the step, or waited until it was made."""
    text: str
    doubt: bool = False
    """Nothing is said to go wrong: this is what cannot be judged as it stands."""

    @property
    def said(self) -> str:
        """In a sentence, without its full stop."""
        return f"{'what is in doubt came' if self.doubt else 'it goes wrong'} at step {self.step}: {self.text}"

    @property
    def mark(self) -> str:
        """Where it is drawn, in few words."""
        return "? this is in doubt" if self.doubt else "✗ it goes wrong here"


def turn_of(finding: Finding, found: Schedule, names: Sequence[str]) -> Turn | None:
    """Where the schedule of a finding goes wrong; of an undecided one where the answer came that is in doubt."""
    if finding.truth is not Truth.UNDECIDED:
        return turning_point(found, names)
    for move in found.moves:
        for result in move.results:
            _, gets, answer = result.partition("gets ")
            who = ord(result[0]) - ord("A") if not result.startswith("gets ") else move.call
            plain = names[who].rpartition(": ")[2] if gets and who < len(names) else ""
            if plain and finding.observed.startswith(f"{plain} is told {answer},"):
                return Turn(move.number, who, f"{spoken(names[who])} gets {answer}", doubt=True)
    return None


def turning_point(found: Schedule, names: Sequence[str]) -> Turn | None:
    """The step from which the schedule differs from one call after the other, with what can be said of it for certain.

    A call that goes on after another's commit, having read before it, goes on with what is out of date. Where no
    call does, the first that fails is shown; else there is none to show.
    """
    # A commit after which everybody sees what they saw before makes nothing out of date. What is shown of a table
    # are its first rows: where no commit changes those, any may have.
    changing = [move.number for move in found.moves[1:] if move.rows]
    first = _out_of_date(found, names, changing) if changing else None
    return first or _out_of_date(found, names, [move.number for move in found.moves]) or _failed(found, names)


def _out_of_date(found: Schedule, names: Sequence[str], changing: Collection[int]) -> Turn | None:
    """Who first goes on, or commits, by what he saw before another's commit at one of these steps."""
    names = [spoken(name) for name in names]
    read: dict[int, int] = {}
    """For each call, the first step of its transaction that it has got an answer to."""
    commits: dict[int, int] = {}
    """For each call, the step of its last commit."""
    for move in found.moves:
        ends = move.text.lower().startswith("commit")
        waiting = {waiter for waiter, _ in waits(move)}
        if ends:
            for other, number in commits.items():
                if other != move.call and read.get(move.call, number) < number:
                    text = (
                        f"{names[move.call]} commits what rests on what it saw at step {read[move.call]}, "
                        f"and not on what {names[other]} committed at step {number}"
                    )
                    return Turn(move.number, move.call, text)
            if move.number in changing:
                commits[move.call] = move.number
            read.pop(move.call, None)
        # Those that go on in this step: the one that makes it, and those that it wakes.
        woken = {ord(r[0]) - ord("A") for r in move.results if re.match("[A-Z] ", r)}
        for call in sorted(({move.call} if not ends else set()) | woken):
            for other, number in commits.items():
                if call != other and call not in waiting and read.get(call, number) < number:
                    when = "has just committed" if number == move.number else f"committed at step {number}"
                    text = (
                        f"{names[call]} goes on with what it saw at step {read[call]}, "
                        f"and not with what {names[other]} {when}"
                    )
                    return Turn(move.number, call, text)
        if not ends and move.call not in waiting and (move.line or move.text != "start"):
            read.setdefault(move.call, move.number)
    return None


def _failed(found: Schedule, names: Sequence[str]) -> Turn | None:
    names = [spoken(name) for name in names]
    for move in found.moves:
        for result in move.results:
            if result.startswith("fails with"):
                return Turn(move.number, move.call, f"{names[move.call]} {result}")
    return _woken(found, names)


def _woken(found: Schedule, names: Sequence[str]) -> Turn | None:
    """The first statement that began to wait, and went on with what it saw before once another had committed."""
    began: dict[int, int] = {}
    for move in found.moves:
        for result in move.results:
            waiter = ord(result[0]) - ord("A")
            if re.match("[A-Z] gets ", result) and waiter in began and move.text.lower().startswith("commit"):
                text = (
                    f"{names[waiter]} goes on with a statement that it began at step {began[waiter]}, "
                    f"before {names[move.call]} has committed"
                )
                return Turn(move.number, waiter, text)
        began.update((waiter, move.number) for waiter, _ in waits(move))
    return None


def spoken(name: str) -> str:
    """A lane's name inside a sentence: `ann (A)` for `A: ann`."""
    mark, colon, rest = name.partition(": ")
    return f"{rest} ({mark})" if colon else name


@dataclass(frozen=True, slots=True)
class Told:
    """A finding that is not held, with the run that it is of."""

    run: RunRecord
    finding: Finding
    schedule: Schedule | None
    also: int = 0
    """In how many more runs the same claim is not held."""


def told(runs: Sequence[RunRecord]) -> list[Told]:
    """What is not held, the most telling first: broken before undecided, a schedule before single calls before figures.

    A claim that several runs break stands there once, by the run that shows it best.
    """
    found: dict[tuple[str, str], Told] = {}
    for run in runs:
        of_run = schedules(run)
        for finding in run.findings:
            if finding.truth is Truth.HELD:
                continue
            each = Told(run, finding, of_run.get(finding.id))
            name = (finding.id, finding.truth.value)
            before = found.get(name)
            if before is None:
                found[name] = each
            else:
                best = each if _rank(each) < _rank(before) else before
                found[name] = replace(best, also=before.also + 1)
    return sorted(found.values(), key=_rank)


def title(each: Told) -> str:
    """What a finding is headed by: the sentence of its scenario, else its claim."""
    return (row(each.run).summary if each.run.kind == "check" else "") or each.finding.claim


def _rank(each: Told) -> tuple[bool, bool, bool, bool]:
    finding = each.finding
    shows_calls = any(piece.get("operations") for piece in finding.evidence)
    return (
        finding.truth is not Truth.BROKEN,
        each.schedule is None,
        not shows_calls,
        finding.id.startswith("threshold."),
    )


def proof(finding: Finding, unit: str, operations: int) -> Iterator[str]:
    """The first piece of evidence: why, and its first calls, a line each; the rest is counted."""
    if not finding.evidence:
        return
    piece = finding.evidence[0]
    yield str(piece.get("reason") or flatten(_without_operations(piece)))
    for line in piece.get("lines") or ():
        yield f"  {line}"
    calls = piece.get("operations") or ()
    for call in calls[:operations]:
        yield "  " + operation(call, unit)
    if len(calls) > operations > 0:
        yield f"  and {pluralize(len(calls) - operations, 'more call')}"


def _without_operations(piece: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in piece.items() if name not in ("operations", "lines")}


def operation(call: Mapping[str, Any], unit: str) -> str:
    """One call on one line: who, when, what came of it."""
    returned = "never returned" if call["returned_ms"] is None else f"returned {call['returned_ms']:.10g} {unit}"
    held = f" ({call['held_open']})" if "held_open" in call else ""
    outcome = " ".join(part for part in (call["outcome"] + held, call.get("code"), flatten(call["answer"])) if part)
    return f"#{call['number']} client {call['client']} called {call['called_ms']:.10g}, {returned}: {outcome}"


MEANINGS: Mapping[str, str] = {
    "lost update": "one overwrites what another has just changed, without having seen it",
    "write skew": "each decides by what the other is about to change, so that both do what only one may",
    "fuzzy read": "one reads a row twice, and another has changed it in between",
    "phantom read": "one asks twice, and another has added or removed rows in between",
    "read skew": "one sees a part from before another's change, and a part from after it",
    "double use": "two are given what only one may have",
    "overselling": "more is given away than there is",
    "false refusal": "one is told no, for a reason that would not be true one after another",
    "deadlock": "each waits for what the other holds, so that the server ends one of them",
    "swallowed error": "one is told that all is well, though nothing was done",
    "unhandled 40001": "the server asks for another try, and nobody makes it",
    "hang": "a session never comes to its end",
    "not serializable": "no order of one after another comes to this",
    "not split": "what runs could not be taken apart into steps",
    "not exhausted": "time was up before every order was tried",
    "did not overlap": "they never ran at the same time",
    "undeclared busy": "an answer that looks like a no, of which the file does not say what it means",
    "choice without order": "a statement takes any row that fits, so that what differs may be chance",
}
"""What each anomaly is, for somebody who has never read its name."""


def anomaly(finding: Finding) -> str:
    """The anomaly's name, and what it is."""
    meaning = MEANINGS.get(finding.anomaly)
    return f"{finding.anomaly} ({meaning})" if meaning else finding.anomaly


def disagreements(runs: Sequence[RunRecord]) -> list[str]:
    """Where one of exploring and load breaks what the other holds: which, and what the holder did not try."""
    lines = [said for run in runs if (said := run.details.get("check", {}).get("disagreement"))]
    by_contract: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.kind == "explore" or run.kind in LOADS:
            by_contract.setdefault(_contract_of(run), []).append(run)
    for group in by_contract.values():
        explored = [run for run in group if run.kind == "explore" and not run.plan.get("replay")]
        for one, other in product(explored, (run for run in group if run.kind in LOADS)):
            found = exploration(one)
            if found is None:
                continue
            name = f"{other.kind} ({other.target})"
            if ids := _broken_where_held(other, one):
                left = "; ".join(found.not_covered[:4])
                lines.append(f"{name} breaks what explore holds: {', '.join(ids)}. Explore did not try: {left}")
            if other.kind == "race" and (ids := _broken_where_held(one, other)):
                rounds = pluralize(len(other.overlap.rounds), "round") if other.overlap is not None else "its rounds"
                left = f"orders that {rounds} did not come to, since the clock made none of them"
                lines.append(f"explore breaks what {name} holds: {', '.join(ids)}. The race did not try: {left}")
    return list(dict.fromkeys(lines))


def _broken_where_held(one: RunRecord, other: RunRecord) -> list[str]:
    held = {finding.id for finding in other.findings if finding.truth is Truth.HELD}
    return [finding.id for finding in one.findings if finding.truth is Truth.BROKEN and finding.id in held]


def _contract_of(run: RunRecord) -> str:
    """What the command that makes the run again calls; empty: the shipped contract."""
    words = run.repeat.split()
    return next((after for word, after in pairwise(words) if word == "--contract"), "")


def not_tried(record: Record) -> list[str]:
    """What the runs do not cover, each sentence once, with the runs that it is said of."""
    lines = _once((each.name, each.not_tried) for each in map(row, record.runs))
    kinds = {run.kind for run in record.runs}
    if kinds and kinds <= LOADS:
        lines.append("every order of the statements inside the function, which load meets by chance: harness explore")
    return lines


def notes(record: Record) -> list[str]:
    """What a reader must know of the runs, each sentence once, with the runs that it is said of."""
    return _once((row(run).name, run.notes) for run in record.runs)


_NAMED = 6
"""Runs that a sentence names; of more it has their number."""


def _once(each: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    every, said = 0, dict[str, list[str]]()
    for name, sentences in each:
        every += 1
        for sentence in dict.fromkeys(sentences):
            said.setdefault(sentence, []).append(name)
    lines = []
    for sentence, runs in said.items():
        names = list(dict.fromkeys(runs))
        more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
        whom = f"all {every} runs" if len(runs) == every > 3 else ", ".join(names[:_NAMED] + more)
        lines.append(f"{whom}: {sentence}")
    return lines


LOADS = frozenset({"burst", "race", "arrivals", "rescan", "unknown"})
"""The kinds of run that fire calls and leave their order to the clock."""


def verdict(record: Record) -> str:
    """The last sentence: the verdict, and what it rests on."""
    findings = [f for run in record.runs for f in run.findings]
    found = {truth: sum(f.truth is truth for f in findings) for truth in Truth}
    environment = record.environment
    until = f"{record.unfinished}; until then " if record.unfinished else ""
    return (
        f"verdict: {record.truth.value} - {until}{found[Truth.HELD]} held, {found[Truth.BROKEN]} broken,"
        f" {found[Truth.UNDECIDED]} undecided in {pluralize(len(record.runs), 'run')}"
        f" {f'on PostgreSQL {environment.version} ({environment.kind})' if environment.version else 'through an API'}"
    )


def server(record: Record) -> str:
    """The server in a line."""
    # Of a server behind an API nothing is known: the cores would be those of who asks.
    cores = f", {pluralize(record.environment.cores, 'core')}" if record.environment.version else ""
    return f"{record.environment}{cores}"


def applied(record: Record) -> str:
    """What was applied, in a line: each folder with the number of its files; the record has every file's sha256."""
    parts = [
        pluralize(len(record.migrations), "migration") + _folders(record.migrations),
        pluralize(len(record.seeds), "seed file") + _folders(record.seeds),
    ]
    if record.contract:
        parts.append(f"contract {record.contract}")
    if record.profile:
        parts.append(f"profile {record.profile}")
    return "; ".join([*parts, *(each for each in record.prelude if each.startswith(GONE_ON))])


def _folders(files: Sequence[AppliedFile]) -> str:
    """Folders as they are; a file that is alone in its folder by its own name."""
    by_folder: dict[str, list[str]] = {}
    for file in files:
        by_folder.setdefault(str(PurePath(file.path).parent), []).append(file.path)
    names = [paths[0] if len(paths) == 1 else folder for folder, paths in by_folder.items()]
    return f" ({', '.join(names)})" if names else ""
