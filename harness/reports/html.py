"""One HTML file with everything that a record says, in pictures where there is one.

It asks for nothing: style and script stand in it, and its policy lets in no others. Without JavaScript all of it can be
read; with it a schedule can be gone through step by step, and commands are copied by a button.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from harness.records import Record
from harness.reports import rows
from harness.reports.markup import Markup, tag
from harness.reports.page_finding import finding_section, has_round
from harness.reports.page_parts import Limits, command_text, left_out, page_table
from harness.reports.page_runs import pictures_section, runs_section
from harness.reports.page_sql import sql_section
from harness.reports.rows import SIGNS, Told
from harness.verdict.findings import Truth, pluralize

LARGEST = 2_000_000
"""Bytes of a page."""

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
    pictured = shown[0].run if shown and has_round(shown[0]) else None
    body = [
        tag("a", "To the content", href="#content", class_="skip"),
        _header(record),
        tag(
            "main",
            [finding_section(each, n, limits, record.sources) for n, each in enumerate(shown)],
            left_out(len(told) - limits.findings, "finding"),
            runs_section(record, limits),
            [
                pictures_section(run, n, limits, told=run is pictured)
                for n, run in enumerate(record.runs[: limits.runs])
            ],
            left_out(len(record.runs) - limits.runs, "run's picture"),
            sql_section(record, told, limits),
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


def _header(record: Record) -> Markup:
    truth = record.truth
    found = {each: sum(f.truth is each for run in record.runs for f in run.findings) for each in Truth}
    claims = ", ".join(f"{n} {each.value}" for each, n in found.items() if n) or "none was judged"
    runs = pluralize(len(record.runs), "run")
    rests = f"It rests on {runs} and {pluralize(sum(found.values()), 'judged claim')}: {claims}."
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
            tag("summary", pluralize(len(every), "judged claim")),
            page_table(
                "Every claim",
                ("verdict", "run", "claim", "observed"),
                body,
                truths=[f.truth.value for _, f in every[:most]],
            ),
            left_out(len(every) - most, "claim"),
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
        page_table("Settings", ("setting", "value"), [(name, str(value)) for name, value in pairs.items()]),
        tag(
            "details",
            tag("summary", f"{pluralize(len(files), 'file')} with their sha256"),
            page_table("Files", ("file", "sha256"), files[:most]),
            left_out(len(files) - most, "file"),
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
        tag("ul", [tag("li", command_text(text)) for text in commands], class_="commands"),
        aria_labelledby="commands",
    )
