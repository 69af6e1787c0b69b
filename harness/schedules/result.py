"""What an exploration found: frozen values, from which every report can be drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.verdict.findings import Finding, Truth, truth_of


@dataclass(frozen=True, slots=True)
class Move:
    """One row of a schedule's table: a choice, and what it led to."""

    number: int
    """From 1."""
    call: int
    """The call that moved, from 0; its column."""
    choice: str
    """As in the replay text: `A`, `A~`, `A!`."""
    function: str
    """Where the step is; empty for start, commit, and what is no step."""
    line: int
    """Line in the function's body, of a session's own statement in its file; 0 where there is none."""
    text: str
    """The statement, or start, commit, dies, its wait runs out."""
    results: tuple[str, ...]
    """What came of it, one short text each: `waits for A`, `caught 55P03`, `returns accepted`."""
    rows: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict, compare=False)
    """By table, the first rows that everybody sees after it (of calls: those that name their keys), where it changed
    them. They are those of a repetition, so that generated values and times differ from what the calls were told."""


@dataclass(frozen=True, slots=True)
class Called:
    """What one call was asked, and what it returned."""

    call: int
    key: str
    arguments: Mapping[str, str | None]
    label: str
    """The contract's label of its answer."""
    answer: Mapping[str, str | None]
    """The contract's evidence columns."""
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule, with all that a person needs to follow it."""

    replay: str
    """The text that repeats it, such as AABBA; before a colon, which variant (v2) and how many keys (k2)."""
    variant: str
    keys: int
    """1: all calls on one key; 2: they take turns on two keys."""
    moves: tuple[Move, ...]
    calls: tuple[Called, ...]
    """After a crash, a call more for each key: made at the end, to see whether the key is still of use."""
    state: Mapping[str, tuple[Mapping[str, Any], ...]]
    """Rows left that name one of its keys, by table."""
    sessions: tuple[str, ...] = ()
    """Names of the sessions whose schedule it is; none where they are calls."""


@dataclass(frozen=True, slots=True)
class Case:
    """The schedules of one argument variant on one or two keys."""

    variant: str
    keys: int
    schedules: int
    """Schedules carried out and judged, all different."""
    before_reduction: int
    """Interleavings that they stand for; equals `schedules` where nothing was reduced."""
    exhausted: bool
    outcomes: Mapping[str, int]
    """The calls' labels, such as `accepted, busy`, with how many schedules ended so."""
    share: float = 1.0
    """Of the tree of all choices, how much was gone through, as far as can be told from what was seen of it."""
    left: int = 0
    """Choices that are known and were left untried; each has more behind it."""
    calls: int = 0
    """How many at once; 0: as many as the exploration has."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was tried, what was found, and what it does not cover."""

    function: str
    calls: int
    search: str
    steps: tuple[str, ...]
    """Every step of the function and what it reaches, as `function:line: statement`."""
    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]
    broken: Mapping[str, Schedule]
    """The shortest schedule that breaks a claim, by the finding's id."""
    replayed: Schedule | None
    """The schedule of a replay, whatever came of it."""
    not_covered: tuple[str, ...]
    seconds: float
    seed: int | None = None
    timeouts: tuple[str, ...] = field(default=())
    """Schedules that did not end in time, and where they stood."""
    unfinished: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """By the prefix of each case that was begun, what it takes to go on with what was left untried; empty where nothing
    was."""
    interrupted: bool = False
    """A signal ended it."""

    @property
    def truth(self) -> Truth:
        """Broken where one finding is, else undecided where one is, else held."""
        return truth_of(self.findings)

    @property
    def schedules(self) -> int:
        """How many were carried out, in all cases of as many calls as were asked for."""
        return sum(case.schedules for case in self.cases if case.calls in (0, self.calls))

    @property
    def before_reduction(self) -> int:
        """How many those stand for, in the same cases."""
        return sum(case.before_reduction for case in self.cases if case.calls in (0, self.calls))

    @property
    def exhausted(self) -> bool:
        """Whether no schedule of any case is left to try, but for those with more calls than were asked for."""
        asked = [case for case in self.cases if case.calls <= self.calls]
        return bool(asked) and all(case.exhausted for case in asked)

    def summary(self) -> str:
        """One sentence: what was tried and what came of it."""
        tried = f"{self.schedules} interleavings of {self.calls} concurrent calls at statement level"
        if self.truth is Truth.BROKEN:
            names = ", ".join(f.id for f in self.findings if f.truth is Truth.BROKEN)
            return f"broken: {names}, found among {tried}"
        if self.exhausted:
            return f"all {tried} hold ({self.before_reduction} before reduction)"
        return f"{tried} hold, but not all were tried"


def joined(parts: Sequence[Exploration]) -> Exploration:
    """Explorations of different cases of one function as one: counts add up, and the worst is what was found."""
    whole = max(parts, key=lambda part: len(part.steps))
    broken: dict[str, Schedule] = {}
    for part in parts:
        for name, schedule in part.broken.items():
            if name not in broken or len(schedule.moves) < len(broken[name].moves):
                broken[name] = schedule
    ids = dict.fromkeys(finding.id for part in parts for finding in part.findings)
    alike = [[f for part in parts for f in part.findings if f.id == id] for id in ids]
    return replace(
        whole,
        cases=tuple(case for part in parts for case in part.cases),
        findings=tuple(_worst(findings, broken.get(findings[0].id)) for findings in alike),
        broken=broken,
        not_covered=tuple(dict.fromkeys(text for part in parts for text in part.not_covered)),
        seconds=max(part.seconds for part in parts),
        timeouts=tuple(timeout for part in parts for timeout in part.timeouts),
        unfinished={key: value for part in parts for key, value in part.unfinished.items()},
        interrupted=any(part.interrupted for part in parts),
    )


def gone_on(earlier: Exploration, later: Exploration) -> Exploration:
    """An exploration that did not come to its end, and the one that went on where it stood, as one."""
    ended = replace(
        earlier,
        cases=tuple(case for case in earlier.cases if case.exhausted),
        findings=tuple(finding for finding in earlier.findings if finding.id not in _OWN),
        timeouts=(),
        unfinished={prefix: case for prefix, case in earlier.unfinished.items() if case["exhausted"]},
        interrupted=False,
    )
    return replace(joined([later, ended]), seconds=earlier.seconds + later.seconds)


def settled(exploration: Exploration) -> Exploration:
    """With the counts of all its cases in what it says of itself, and nothing to go on with where all was tried."""
    asked = [case for case in exploration.cases if case.calls <= exploration.calls]
    before = sum(case.before_reduction for case in asked)
    counts = f"{sum(case.schedules for case in asked)} schedules, {before} before reduction"
    findings = [
        replace(f, observed=re.sub(r"\d+ schedules, \d+ before reduction", counts, f.observed, count=1))
        if f.id == _OWN[0]
        else f
        for f in exploration.findings
    ]
    left = any(finding.id == _OWN[0] and finding.truth is not Truth.HELD for finding in findings)
    return replace(
        exploration,
        findings=tuple(findings),
        unfinished=exploration.unfinished if left else {},
        not_covered=tuple(_with_more_calls(each, exploration) for each in exploration.not_covered),
    )


def more_than(calls: int) -> str:
    """What an exploration of so many calls leaves out, in words."""
    return f"more than {calls} calls at once"


def _with_more_calls(text: str, exploration: Exploration) -> str:
    """Of what was left out, how much was tried all the same."""
    more = [case for case in exploration.cases if case.calls > exploration.calls]
    if not more or "interleavings" in text:
        return text
    tried = f"{sum(case.schedules for case in more)} interleavings of {max(case.calls for case in more)}"
    whole = "all there are" if all(case.exhausted for case in more) else "not all there are"
    left_out = more_than(exploration.calls)
    return text.replace(left_out, f"{left_out} (but for {tried}, {whole})")


_OWN = ("every_order_tried", "same_end_when_repeated")
"""What an exploration says of itself."""


_SEVERITY = {Truth.HELD: 0, Truth.UNDECIDED: 1, Truth.BROKEN: 2}


def _worst(findings: Sequence[Finding], shown: Schedule | None) -> Finding:
    """What was found of one claim: the worst, with what was observed of all that came to the same."""
    truth = max((finding.truth for finding in findings), key=_SEVERITY.__getitem__)
    same = [finding for finding in findings if finding.truth is truth]
    one = next((f for f in same if shown is not None and f.replay.endswith(f" {shown.replay}")), same[0])
    return replace(one, observed=_added([finding.observed for finding in same]))


def _added(texts: Sequence[str]) -> str:
    """Texts that differ in whole numbers alone as one, with their sums; others one after the other."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for text in texts:
        words = re.split(r"(\d+)", text)
        numbers = [int(number) for number in words[1::2]]
        known = groups.setdefault(tuple(words[::2]), [0] * len(numbers))
        known[:] = [a + b for a, b in zip(known, numbers, strict=True)]
    said = []
    for between, numbers in groups.items():
        pieces = [piece for pair in zip(between, [*map(str, numbers), ""], strict=True) for piece in pair]
        said.append("".join(pieces))
    return "; ".join(said)
