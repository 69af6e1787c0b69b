"""What a check found, as findings: what was seen, the nearest serial orders, the anomaly's name, what mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.scenarios.scenario import Condition, Scenario, Session
from harness.scenarios.variables import gset_names, is_used
from harness.verdict.expected import Difference
from harness.verdict.findings import Finding, Location, Truth, pluralize
from harness.verdict.observed import DEADLOCK, SERIALIZATION_FAILURE, Answer, Observed, Table, Unit, format_answer
from harness.verdict.serial import Judgement

SERIAL = "What happens together is explained by one after another."

REMEDIES: Mapping[str, str] = {
    "lost update": "Let the UPDATE compute from the row (SET n = n - 1 ... WHERE n > 0), or read it FOR UPDATE first.",
    "overselling": "Put the check into the UPDATE's WHERE or a CHECK constraint, or read the row FOR UPDATE first.",
    "double use": "Let one statement check and take (UPDATE ... WHERE NOT used), or a unique index refuse the second.",
    "write skew": "Lock what was read (FOR UPDATE, or a row that stands for all), let a unique or exclusion constraint "
    "refuse the second, or run at serializable with retry:.",
    "phantom read": "A unique or exclusion constraint, a lock on a row that stands for the set, or serializable.",
    "fuzzy read": "Read at repeatable read, or lock the row (FOR SHARE) at the first reading.",
    "read skew": "Read at repeatable read, or in one statement.",
    "deadlock": "Lock rows in one order in every session, or say `retry: 40P01 up to 3` if the application does.",
    "unhandled 40001": "Say `retry: 40001 up to 5` if the application retries, or `busy: when error 40001`.",
    "swallowed error": "Do not catch what means that nothing was done (WHEN OTHERS), or answer so.",
    "false refusal": "Refuse only for a reason that would be one without the others, or declare the answer with busy:.",
    "hang": "Lock in one order, and let go before the session waits for anything else.",
    "not serializable": "Lock what is read before it is decided on, or run at serializable with retry:.",
}


@dataclass(slots=True)
class Result:
    """A result that was judged, with how it came about."""

    observed: Observed
    judgement: Judgement
    violated: tuple[int, ...]
    """The conditions that do not hold in its final state, by place."""
    times: Counter[str] = field(default_factory=Counter)
    """How often, by way."""
    replays: dict[str, None] = field(default_factory=dict)
    """The schedules that came to it, in order."""

    @property
    def replay(self) -> str:
        """The shortest schedule that came to it."""
        return min(self.replays, key=len, default="")


@dataclass(frozen=True, slots=True)
class Told:
    """All that a check knows when it is over."""

    scenario: Scenario
    sessions: tuple[Session, ...]
    results: tuple[Result, ...]
    serial_violations: Mapping[int, tuple[Unit, ...]]
    """Conditions that do not hold after a serial order already, by place, with that order."""
    lengths: Sequence[Sequence[int]]
    ways: tuple[str, ...]
    rounds: int
    met: int
    repeat: str
    explored: tuple[Finding, ...] = ()
    """The exploration's own findings."""
    schedules: Mapping[str, str] = field(default_factory=dict)
    """By the name of a finding: the schedule that shows it, tried twice."""

    def unit(self, unit: Unit) -> str:
        """What a report calls a unit: its session's name, and which transaction."""
        name = self.sessions[unit[0]].name
        return name if unit[1] < 0 else f"{name}'s transaction {unit[1] + 1}"

    def answers(self, result: Result, unit: Unit) -> tuple[Answer, ...]:
        """A unit's answers, also where the unit is one of a session's transactions."""
        if unit in result.observed.answers:
            return result.observed.answers[unit]
        lengths = self.lengths[unit[0]]
        start = sum(lengths[: unit[1]])
        return result.observed.answers[unit[0], -1][start : start + lengths[unit[1]]]

    def statement(self, unit: Unit, at: int) -> str:
        """A unit's statement, on one line."""
        before = sum(self.lengths[unit[0]][: unit[1]]) if unit[1] > 0 else 0
        text = " ".join(self.sessions[unit[0]].statements[before + at].text.split())
        return text if len(text) <= 100 else text[:97] + "..."


def findings_of(told: Told) -> tuple[Finding, ...]:
    """Every claim of the scenario, judged."""
    found = [] if told.scenario.judge == "queries only" else [_serial(told)]
    found += [_condition(told, place, each) for place, each in enumerate(told.scenario.conditions)]
    found += [each if each.truth is Truth.HELD else _explored(told, each) for each in told.explored]
    if "race" in told.ways:
        found.append(_met(told))
    return tuple(_allowed(told, replace(each, id=f"{told.scenario.title}.{each.id}")) for each in found)


def _explored(told: Told, finding: Finding) -> Finding:
    """One of an exploration's own findings that is open, as a scenario's reader can act on it."""
    if finding.id != "every_order_tried":
        return replace(finding, replay=told.repeat)
    if not finding.observed.startswith("not exhausted"):
        return replace(finding, anomaly="not split", replay=told.repeat)
    remedy = (
        "Give it more --seconds, take fewer sessions or statements, or say that what was tried will do: "
        "-- allow: not exhausted because ..."
    )
    return replace(finding, anomaly="not exhausted", remedy=remedy, replay=told.repeat)


def _allowed(told: Told, finding: Finding) -> Finding:
    reason = next((a.because for a in told.scenario.allowed if a.anomaly == finding.anomaly), None)
    if reason is None or finding.truth is Truth.HELD:
        return finding
    observed = f"allowed: {finding.anomaly}, because {reason}"
    return replace(finding, truth=Truth.HELD, observed=observed, remedy="", replay="")


def _where(told: Told, line: int) -> Location:
    return Location(str(told.scenario.path), line)


def _worst(told: Told) -> Result | None:
    """The result to show: broken before undecided, the explorer's before others, the one with least to follow first."""
    order = {Truth.BROKEN: 0, Truth.UNDECIDED: 1}
    shown = told.schedules.get("one_after_another", "")
    red = [result for result in told.results if result.judgement.truth in order]
    return min(
        red,
        key=lambda r: (order[r.judgement.truth], shown not in r.replays, len(r.replay) or 10_000),
        default=None,
    )


def _serial(told: Told) -> Finding:
    worst = _worst(told)
    total = sum(result.times.total() for result in told.results)
    line = told.sessions[0].line
    if worst is None:
        truth = Truth.HELD if told.results else Truth.UNDECIDED
        results = pluralize(len(told.results), "distinct result")
        observed = f"{results} of {total} tries, each as after some serial order" if told.results else "nothing met"
        return Finding("one_after_another", SERIAL, truth, observed, location=_where(told, line))
    anomaly = name(told, worst)
    judgement = worst.judgement
    red = sum(r.times.total() for r in told.results if r.judgement.truth is judgement.truth)
    what, remedy = _why(told, worst, anomaly)
    return Finding(
        "one_after_another",
        SERIAL,
        judgement.truth,
        f"{what} ({red} of {total} tries)",
        evidence=_evidence(told, worst),
        remedy=remedy,
        replay=_replay(told, worst, "one_after_another"),
        location=_where(told, line),
        anomaly=anomaly,
    )


def _replay(told: Told, result: Result, finding: str) -> str:
    shown = told.schedules.get(finding, "")
    schedule = shown if shown in result.replays else result.replay
    return f"{told.repeat} --replay {schedule}" if schedule else told.repeat


def _why(told: Told, result: Result, anomaly: str) -> tuple[str, str]:
    judgement = result.judgement
    match judgement.why:
        case "a_no":
            unit, at = next(iter(judgement.noes.items()))
            answer = told.answers(result, unit)[at]
            shown = "; ".join(format_answer(answer))
            if answer.code == SERIALIZATION_FAILURE:
                return f"{told.unit(unit)} is told {shown}, and nothing says what becomes of it", REMEDIES[anomaly]
            return (
                f"{told.unit(unit)} is told {shown}, which it never is one after another; does it mean busy?",
                f"If it does, add the line: {_busy_line(answer)}. If not, it is a false refusal.",
            )
        case "transactions":
            remedy = "Say which must look as if it had run alone: add `-- judge: sessions` or `-- judge: transactions`."
            if carried := _carried_on(told):
                remedy += f" {carried}, which speaks for sessions."
            return "explained transaction by transaction, but not session by session", remedy
        case "choice":
            return (
                "all that differs comes from a statement that chooses without an order",
                "Add an ORDER BY that leaves no choice, so that it can be judged.",
            )
        case "retries":
            return "retries were used up", "Give more with `up to N`, or find out why so many are needed."
        case "unfinished":
            return (
                "there are more serial orders than could be tried",
                "Take fewer sessions (x 4 and less are tried in full), or `judge: queries only`.",
            )
        case "hung":
            who = "; ".join(f"{told.unit(u)} waits for {whom or 'nobody'}" for u, whom in result.observed.hung.items())
            return f"a session does not end: {who}", REMEDIES["hang"]
    return f"no serial order gives this: {anomaly}", REMEDIES.get(anomaly, REMEDIES["not serializable"])


def _carried_on(told: Told) -> str:
    """A session that uses what an earlier transaction of it was told, in words; nothing where none does."""
    for session, lengths in zip(told.sessions, told.lengths, strict=True):
        kept: set[str] = set()
        at = 0
        for length in lengths:
            mine = session.statements[at : at + length]
            if used := next((name for s in mine for name in sorted(kept) if is_used(name, s.text)), ""):
                return f"{session.name} uses what an earlier transaction was told (:{used})"
            for statement in mine:
                kept |= set(gset_names(statement.text, statement.then))
            at += length
    return ""


def _busy_line(answer: Answer) -> str:
    if answer.code is not None:
        like = f" LIKE '{(answer.message or '').replace(chr(39), chr(39) * 2)}'" if answer.code == "P0001" else ""
        return f"-- busy: when error {answer.code}{like}"
    if answer.changed == 0:
        return "-- busy: when nothing changed"
    if not answer.rows:
        return "-- busy: when no row"
    row = answer.rows[0]
    for column, value, type_ in zip(answer.columns, row, answer.types, strict=True):
        if value is None:
            return f"-- busy: when {column} IS NULL"
        if type_ == 16 and value == "f":
            return f"-- busy: when NOT {column}"
        if type_ in (25, 1043, 0):
            return f"-- busy: when {column} = '{value.replace(chr(39), chr(39) * 2)}'"
    return "-- busy: when ..."


def _evidence(told: Told, result: Result) -> tuple[dict[str, object], ...]:
    """The answers, the final state, and where the nearest serial orders depart."""
    return ({"reason": "what they were told, and what was left:", "lines": list(_lines(told, result))},)


def _lines(told: Told, result: Result) -> Iterator[str]:
    for unit, answers in result.observed.answers.items():
        for at, answer in enumerate(answers):
            if answer.command in ("BEGIN", "COMMIT", "ROLLBACK", "SET", "START TRANSACTION"):
                continue
            yield f"{told.unit(unit)}: {told.statement(unit, at)} -> {'; '.join(format_answer(answer))}"
    for table, state in result.observed.state.items():
        yield f"{table} in the end: {'; '.join(_changes(state))}"
    for difference in result.judgement.nearest:
        yield _difference(told, difference)


def _changes(state: Table) -> list[str]:
    lines = []
    for row in sorted(state.rows, key=lambda row: [value or "" for value in row[1:]])[:8]:
        values = zip(state.columns[1:], row[1:], strict=True)
        lines.append(f"{row[0]} " + ", ".join(f"{c}={'NULL' if v is None else v[:60]}" for c, v in values))
    return lines


def _difference(told: Told, difference: Difference) -> str:
    order = ", then ".join(map(told.unit, difference.order))
    if difference.unit is not None:
        statement = told.statement(difference.unit, difference.answer)
        return (
            f"after {order}: {told.unit(difference.unit)} would be told {'; '.join(difference.expected)}, "
            f"not {'; '.join(difference.observed)} ({statement})"
        )
    if difference.table:
        return (
            f"after {order}: {difference.table} would have {_signed(difference.expected) or 'none of these rows'}, "
            f"not {_signed(difference.observed) or 'less'}"
        )
    return f"after {order}: {'; '.join(difference.observed)}"


def _signed(rows: Sequence[str]) -> str:
    return "; ".join(row.replace("change=", "", 1).replace(", ", " ", 1) for row in rows)


def name(told: Told, result: Result) -> str:
    """The anomaly's name in the field's words, as far as it can be told from what differs."""
    judgement, observed = result.judgement, result.observed
    answers = [answer for given in observed.answers.values() for answer in given]
    match judgement.why:
        case "hung":
            return "hang"
        case "deadlock":
            return "deadlock"
        case "transactions" | "retries" | "unfinished":
            return "not serializable"
        case "choice":
            return "choice without order"
        case "a_no":
            unit, at = next(iter(judgement.noes.items()))
            code = told.answers(result, unit)[at].code
            return "unhandled 40001" if code == SERIALIZATION_FAILURE else "undeclared busy"
    if observed.busy.keys() == observed.answers.keys():
        return "false refusal"
    if any(answer.code == DEADLOCK for answer in answers):
        return "deadlock"
    read = _read_anomaly(told, result)
    if read:
        return read
    if _only_other_rows(observed):
        return "write skew"
    if result.violated and _negative(observed):
        return "overselling"
    if any(d.unit is not None and not _computed_from(told, d) and _both(told, result, d) for d in judgement.nearest):
        return "overselling" if result.violated else "double use"
    if _same_row(observed) and _none_came(observed) and all(each.state for each in judgement.nearest):
        return "lost update"
    decided = any(d.unit is not None and _computed_from(told, d) for d in judgement.nearest)
    if _only_came(observed) and (decided or _would_be_refused(judgement.nearest)):
        return "write skew"
    if decided and _same_row(observed) and not _none_came(observed):
        return "double use"
    if any(difference.table for difference in judgement.nearest):
        return _write_anomaly(result, judgement.nearest)
    if judgement.nearest and _is_no(judgement.nearest[0]):
        return "false refusal"
    return "not serializable"


def _computed_from(told: Told, difference: Difference) -> bool:
    """Whether the answer that departs is what a session read before it wrote."""
    assert difference.unit is not None
    statements = told.sessions[difference.unit[0]].statements
    read = told.statement(difference.unit, difference.answer).lower().startswith("select")
    return read and any(s.text.lower().startswith(_WRITING) for s in statements[difference.answer + 1 :])


def _read_anomaly(told: Told, result: Result) -> str:
    """Where a session reads twice in one transaction, and what it reads does not fit together."""
    for difference in result.judgement.nearest:
        unit = difference.unit
        if unit is None:
            continue
        answers = told.answers(result, unit)
        mine = told.statement(unit, difference.answer)
        if not mine.lower().startswith(("select", "with", "table")) or "for update" in mine.lower():
            continue
        others = [
            at for at, answer in enumerate(answers)
            if at != difference.answer and told.statement(unit, at) == mine and answer.columns
        ]  # fmt: skip
        if others:
            counts = {len(answers[at].rows) for at in (*others, difference.answer)}
            return "fuzzy read" if len(counts) == 1 else "phantom read"
        texts = [told.statement(unit, at).lower() for at in range(len(answers))]
        reads = [text for text, a in zip(texts, answers, strict=True) if a.columns and text.startswith("select")]
        if len(reads) > 1 and not any(text.startswith(_WRITING) for text in texts):
            return "read skew"
    return ""


_WRITING = ("insert", "update", "delete", "merge")


def _write_anomaly(result: Result, nearest: Sequence[Difference]) -> str:
    for difference in nearest:
        if difference.table and _differ_in_value(difference):
            return "lost update" if _same_row(result.observed) else "write skew"
        if difference.table and len(difference.observed) > len(difference.expected):
            return "double use"
        if difference.table and len(difference.observed) < len(difference.expected):
            return "swallowed error"
    return "not serializable"


def _differ_in_value(difference: Difference) -> bool:
    """The same rows, with other values."""
    return bool(difference.observed) and len(difference.observed) == len(difference.expected)


def _same_row(observed: Observed) -> bool:
    """One row of the baseline was changed, and no other."""
    gone = sum(row[0] == "-" for table in observed.state.values() for row in table.rows)
    return gone == 1


def _none_came(observed: Observed) -> bool:
    signs = [row[0] for table in observed.state.values() for row in table.rows]
    return signs.count("-") == signs.count("+")


def _only_other_rows(observed: Observed) -> bool:
    """Rows of the baseline were changed, more than one, and none came; or more than one went."""
    signs = [row[0] for table in observed.state.values() for row in table.rows]
    return signs.count("-") > 1 and signs.count("+") in (0, signs.count("-"))


def _negative(observed: Observed) -> bool:
    return any(
        row[0] == "+" and any(value is not None and value.startswith("-") and value[1:2].isdigit() for value in row[1:])
        for table in observed.state.values()
        for row in table.rows
    )


def _only_came(observed: Observed) -> bool:
    """Rows came, and none went or changed: nobody saw what the other put there."""
    return {row[0] for table in observed.state.values() for row in table.rows} == {"+"}


def _would_be_refused(nearest: Sequence[Difference]) -> bool:
    """One after another somebody is told an error."""
    return any(d.unit is not None and d.expected[:1] and d.expected[0].startswith("error") for d in nearest)


def _is_no(difference: Difference) -> bool:
    return difference.unit is not None and difference.observed[:1] in (("no row",), ("UPDATE 0",), ("DELETE 0",))


def _both(told: Told, result: Result, difference: Difference) -> bool:
    """Another unit got the same answer."""
    assert difference.unit is not None
    mine = told.answers(result, difference.unit)[difference.answer]
    observed = result.observed
    return any(
        format_answer(answer) == format_answer(mine)
        for unit, given in observed.answers.items()
        if unit[0] != difference.unit[0]
        for answer in given
    )


def _condition(told: Told, place: int, condition: Condition) -> Finding:
    claim = condition.claim or f"{condition.kind} {' '.join(condition.sql.split())[:80]}"
    claim = ("Never: " if condition.kind == "never" else "Always: ") + claim + ("" if claim.endswith(".") else ".")
    where = _where(told, condition.line)
    held = Finding(f"{condition.kind}_{place + 1}", claim, Truth.HELD, "", location=where)
    serial = told.serial_violations.get(place)
    if serial is not None:
        order = ", then ".join(map(told.unit, serial))
        observed = f"broken without any concurrency: after {order or 'the setup'}"
        remedy = "Mend the SQL, or the query."
        return replace(held, truth=Truth.BROKEN, observed=observed, remedy=remedy, replay=told.repeat)
    bad = [result for result in told.results if place in result.violated]
    states = pluralize(sum(result.times.total() for result in told.results), "final state")
    if not bad:
        return replace(held, truth=Truth.HELD if told.results else Truth.UNDECIDED, observed=f"in {states}")
    shown = told.schedules.get(held.id, "")
    worst = min(bad, key=lambda r: (shown not in r.replays, len(r.replay) or 10_000))
    anomaly = name(told, worst) if worst.judgement.truth is not Truth.HELD else "not serializable"
    return replace(
        held,
        truth=Truth.BROKEN,
        observed=f"not so in {sum(r.times.total() for r in bad)} of {states}: {anomaly}",
        evidence=_evidence(told, worst),
        remedy=REMEDIES.get(anomaly, REMEDIES["not serializable"]),
        replay=_replay(told, worst, held.id),
        anomaly=anomaly,
    )


def _met(told: Told) -> Finding:
    finding = Finding(
        "met",
        "The sessions of the race met on the server.",
        Truth.HELD,
        f"{told.met} of {pluralize(told.rounds, 'round')} overlapped",
        location=_where(told, told.sessions[0].line),
    )
    if told.met:
        return finding
    remedy = "Try again on a machine with more than one free core, or let --by explore order the statements."
    return replace(finding, truth=Truth.UNDECIDED, remedy=remedy, replay=told.repeat, anomaly="did not overlap")


def serial_orders(told: Told) -> dict[str, list[dict[str, str]]]:
    """By the id of a finding that is not held: the nearest serial orders, and what differs."""
    worst = _worst(told)
    if worst is None:
        return {}
    return {
        f"{told.scenario.title}.one_after_another": [
            {"order": ", ".join(map(told.unit, each.order)), "differs": _difference(told, each)}
            for each in worst.judgement.nearest
        ]
    }
