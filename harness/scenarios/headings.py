"""The headings of a scenario file: which there are, and the file cut at them.

A heading is a comment at the very beginning of a line, outside of any statement: `-- word: rest`. What follows belongs
to it up to the next one. A word that is not a heading's is an error, not a comment: one that is misspelt would change
what is judged, and nobody would see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.scenarios.variables import TOKEN

_HEADING = re.compile(r"--[ \t]*([a-z]+(?: [a-z]+)?)[ \t]*:(?!:)[ \t]*(.*?)[ \t]*$")
_LONE_WORDS = re.compile(r"--[ \t]*([a-z][a-z ]*?)[ \t]*$")


@dataclass(frozen=True, slots=True)
class Heading:
    """One row of the reference: how a heading is written, and what it means."""

    word: str
    form: str
    meaning: str


HEADINGS: tuple[Heading, ...] = (
    Heading("scenario", "scenario: SENTENCE", "The claim, in one sentence; it names the test."),
    Heading(
        "setup",
        "setup",
        "Statements that are run once, as the owner, and committed: the baseline of every try.",
    ),
    Heading(
        "session",
        "session: NAME [x N]",
        "What one person does, on a connection of its own. `x 10` makes ten of them; `:'session'` is the name of each, "
        "`:number` its number. A statement outside BEGIN commits by itself. `SELECT ... \\gset` puts a row's columns "
        "into variables; those that the setup sets are known to all. After an error the session goes on as psql does; "
        "`\\set ON_ERROR_STOP on` ends it there.",
    ),
    Heading(
        "as",
        "as: ROLE [{JWT claims}]",
        "Each transaction is made as PostgREST would make it: as this role, with its settings and claims.",
    ),
    Heading(
        "isolation",
        "isolation: LEVEL",
        "read committed (the default), repeatable read or serializable; for the file, or for one session.",
    ),
    Heading(
        "retry",
        "retry: SQLSTATE... up to N",
        "The transaction, or the single statement, is run again after these errors, as an application would.",
    ),
    Heading(
        "retry session",
        "retry session: SQLSTATE... up to N",
        "All of the session is run again; refused where an earlier transaction of it has committed.",
    ),
    Heading(
        "busy",
        "busy: [NAME] when CONDITION",
        "An answer that means: not now, somebody else is at it. CONDITION is SQL over the answer's columns, or "
        "`error SQLSTATE [LIKE 'text']`, `no row` (of a query), `nothing changed` (of a command).",
    ),
    Heading("never", "never: [SENTENCE]", "A query that must return no row, whatever the order."),
    Heading("always", "always: [SENTENCE]", "A query of which every value must be true, whatever the order."),
    Heading(
        "ignore",
        "ignore: TABLE[.COLUMN] because REASON",
        "Not compared, and may be written by one who was busy, such as a log of attempts.",
    ),
    Heading(
        "judge",
        "judge: UNIT",
        "The unit that must look as if it had run alone: sessions, transactions, or queries only (nothing but never "
        "and always).",
    ),
    Heading(
        "now",
        "now: TIMESTAMP",
        "The moment at which all of it happens, setup included: the clock stands still there. UTC without a zone.",
    ),
    Heading("allow", "allow: ANOMALY because REASON", "Accepts one finding; the reason stands in the report."),
    Heading(
        "load",
        "load: [NAME]",
        "In place of sessions: a call that clients make again and again; [load.md](load.md) tells of it and the next "
        "eight.",
    ),
    Heading("keys", "keys:", "A query that makes `:count` fresh keys, and returns them."),
    Heading("missing keys", "missing keys:", "A query that returns `:count` keys that are not there."),
    Heading("applied", "applied: [NAME] when CONDITION", "An answer of a load: the call did what it was asked for."),
    Heading("refused", "refused: [NAME] when CONDITION", "It said no, as the key is used up; nothing was changed."),
    Heading("missing", "missing: [NAME] when CONDITION", "It said no, because there is no such key."),
    Heading("capacity", "capacity: at most N applied per key", "How many calls a key grants; 1 without the line."),
    Heading(
        "threshold",
        "threshold: [METRIC] EXPRESSION",
        "`p(95)<200`, of durations in milliseconds; `errors rate<0.001`; `accepted count>0`, of a name of yours.",
    ),
    Heading(
        "pattern",
        "pattern: NAME [SETTING VALUE]...",
        "A pattern that is run, as `race rounds 40 clients 6`; without such lines those of the profile.",
    ),
)


def reference() -> str:
    """The headings as a Markdown table: docs/scenarios.md has it."""
    rows = [f"| `{each.form}` | {each.meaning.replace('|', chr(92) + '|')} |" for each in HEADINGS]
    return "\n".join(["| heading | meaning |", "|---|---|", *rows])


@dataclass(frozen=True, slots=True)
class Section:
    """One heading of a file, and what stands below it."""

    word: str
    rest: str
    line: int
    body: str
    body_line: int
    start: int
    """Where its body begins in the text."""


def cut(path: Path, text: str) -> tuple[str, list[Section]]:
    """What stands before the first heading, and the file cut at its headings. Raises UsageError for a misspelt one."""
    found: list[tuple[str, str, int, int, int]] = []
    for start, end in _comments(text):
        line = text.count("\n", 0, start) + 1
        heading = _heading(path, text[start:end], line)
        if heading is not None:
            found.append((*heading, line, start, end))
    starts = [*(start for *_, start, _ in found), len(text)]
    sections = [
        Section(word, rest, line, text[end:following], line, end)
        for (word, rest, line, _, end), following in zip(found, starts[1:], strict=True)
    ]
    return text[: starts[0]], sections


def _comments(text: str) -> Iterator[tuple[int, int]]:
    """Comments at the beginning of a line, outside of quotes, bodies and other comments."""
    at = 0
    while match := TOKEN.search(text, at):
        start, at = match.span()
        if match.group().startswith("--") and (start == 0 or text[start - 1] == "\n"):
            yield match.span()
        elif match.group() == "/*":
            depth = 1
            for edge in re.finditer(r"/\*|\*/", text[at:]):
                depth += 1 if edge.group() == "/*" else -1
                if not depth:
                    at += edge.end()
                    break


def _heading(path: Path, comment: str, line: int) -> tuple[str, str] | None:
    """A comment's word and the rest, if it is a heading. Raises UsageError for one that is misspelt."""
    words = {heading.word for heading in HEADINGS}
    match = _HEADING.match(comment)
    if match is None:
        alone = _LONE_WORDS.match(comment)
        first = alone[1].split()[0] if alone else ""
        if alone and alone[1] == "setup":
            return "setup", ""
        if alone and len(alone[1].split()) == 1 and distance(first, "setup") <= 2:
            raise wrong(path, line, f"{comment.strip()!r} is not a heading.", "write `-- setup`")
        if alone and first in words:
            raise wrong(
                path,
                line,
                f"{comment.strip()!r} begins like a heading and has no colon.",
                f"write `-- {first}: ...`, or begin a comment with another word",
            )
        return None
    word, rest = match[1], match[2]
    if word == "setup" and rest:
        raise wrong(path, line, "`setup` takes nothing on its line.", "put the statements below it")
    if word in words:
        return word, rest
    near = sorted((distance(word, each), each) for each in words)[0]
    if near[0] <= 2:
        raise wrong(path, line, f"There is no heading {word!r}.", f"write `{near[1]}:`")
    raise wrong(
        path,
        line,
        f"There is no heading {word!r}.",
        f"use one of {', '.join(sorted(words))}; a comment that is none begins with a capital or is indented",
    )


def wrong(path: Path, line: int, what: str, next_step: str) -> UsageError:
    """What is wrong in a line of the file."""
    return UsageError(f"{path}:{line}: {what}", next_step=next_step)


def distance(one: str, other: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
