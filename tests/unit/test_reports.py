"""What a record becomes: a page, a comment, annotations, SARIF, GitLab's report. None trusts an answer."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from harness.check import _Check
from harness.errors import ExitStatus, HarnessError, UsageError
from harness.options import Options, check_outputs
from harness.records import Record, Source
from harness.reports import code_quality, github, markdown, outputs, places, rows, sarif, terminal
from harness.reports import html as page
from harness.reports.markup import Markup, tag
from harness.scenarios.scenario import ANOMALIES
from harness.schedules.result import Schedule
from harness.verdict.findings import Finding, Location, Truth
from tests.browser import SARIF_SCHEMA, needed
from tests.samples import (
    WHERE,
    broken_finding,
    broken_record,
    checked_record,
    explored_record,
    held,
    held_record,
    load,
    move,
    record,
    schedule,
    very_many,
)

ROOT = Path("/repository")
SPITE = "``` @everyone #1 </code><script>alert(1)</script> | %0A::error::x\n::error::y"
UNDECIDED = Finding("u", "U.", Truth.UNDECIDED, "0 of 3", remedy="Give more.")


def spiteful() -> Record:
    evidence = (
        {"reason": SPITE, "operations": [{**broken_finding().evidence[0]["operations"][0], "answer": {"a": SPITE}}]},
    )
    finding = broken_finding(claim=SPITE, observed=SPITE, evidence=evidence, location=Location("a,b:c.sql", 3))
    return record(load("race", {SPITE: 2}, findings=(finding, UNDECIDED)))


RECORDS = {
    "held": held_record(), "broken": broken_record(), "explored": explored_record(), "spiteful": spiteful(),
    "empty": record(), "checked": checked_record(),
    "undecided": record(load("race", {"accepted": 2}, findings=(UNDECIDED,))),
}  # fmt: skip


# The page.


def test_text_is_escaped_unless_it_is_markup() -> None:
    """In content and in attributes; control characters, which HTML forbids, are shown as such."""
    assert (
        tag("p", "<b>", tag("i", "&"), None, [1, 2.5], title='"') == '<p title="&quot;">&lt;b&gt;<i>&amp;</i>12.5</p>'
    )
    assert tag("p", Markup("<br/>"), "a\x00b\x1b") == "<p><br/>a\ufffdb\ufffd</p>"


class _Scripts(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag in ("script", "img", "iframe") else []
        self.found += [
            name for name, _ in attrs if name.startswith("on") or (name in ("src", "href") and _ != "#content")
        ]


@pytest.mark.parametrize("name", RECORDS)
def test_a_page_has_one_script_and_it_is_ours(name: str) -> None:
    """An answer that is a script is text."""
    parser = _Scripts()
    parser.feed(page.page(RECORDS[name]))
    assert parser.found == ["script"]


def test_a_hundred_thousand_findings_make_a_page_under_its_limit_that_says_what_it_leaves_out() -> None:
    """The first ones are told; of each kind of thing that is left out, how many."""
    made = page.page(very_many())
    assert len(made.encode()) <= page.LARGEST
    assert re.search(r"This page leaves out \d+ findings that the record has", made)


def test_a_page_of_huge_texts_is_cut() -> None:
    """One answer of 10 MB, one function of 5 MB."""
    finding = broken_finding(evidence=({"reason": "y" * 10_000_000, "operations": []},), observed="z" * 3_000_000)
    made = page.page(record(load("race", {"accepted": 9}, findings=(finding,))))
    assert len(made.encode()) <= page.LARGEST


@pytest.mark.parametrize(
    ("moves", "wrong", "why"),
    [
        (
            schedule().moves,
            (7, 0), "call A goes on with what it saw at step 2, and not with what call B has just committed",
        ),
        ((move(1, 0, "start"), move(2, 0, "X", 1), move(3, 0, "commit"), move(4, 1, "X", 1)), None, ""),
        # Two that each read what the other then changes (write skew): nothing waits, nothing is run after the commit.
        (
            (move(1, 0, "X", 1), move(2, 1, "X", 1), move(3, 1, "commit"), move(4, 0, "commit")),
            (4, 0), "call A commits what rests on what it saw at step 1, and not on what call B committed at step 3",
        ),
        # A call that waits has found nothing yet.
        (
            (
                move(1, 0, "X", 1), move(2, 1, "X", 1, "waits for A"), move(3, 0, "commit", 0, "B goes on"),
                move(4, 1, "Y", 2),
            ),
            None, "",
        ),
        # One statement each: it began before the other's commit, and is answered after it.
        (
            (
                move(1, 0, "X", 1), move(2, 1, "X", 1, "waits for A"), move(3, 0, "commit", 0, "B gets id=1"),
                move(4, 1, "commit"),
            ),
            (3, 1), "call B goes on with a statement that it began at step 2, before call A has committed",
        ),
        (
            (move(1, 0, "X", 1), move(2, 1, "X", 1, "fails with error 40P01 and is rolled back")),
            (2, 1), "call B fails with error 40P01 and is rolled back",
        ),
    ],
    ids=["stale", "serial", "skew", "waited", "one statement", "deadlock"],
)  # fmt: skip
def test_where_a_schedule_goes_wrong(moves: Any, wrong: tuple[int, int] | None, why: str) -> None:
    """At the step at which a call goes on with what another's commit has made untrue, if any."""
    found = rows.turning_point(Schedule("AB", "", 1, moves, (), {}), ["call A", "call B"])
    assert found == (None if wrong is None else rows.Turn(*wrong, why))


def test_a_commit_that_changes_nothing_makes_nothing_out_of_date() -> None:
    """As the rows say that everybody sees; where they say nothing of any commit, each is taken for a change."""
    moves = (move(1, 0, "X", 1), move(2, 1, "X", 1), move(3, 1, "commit"), move(4, 0, "Y", 2), move(5, 0, "commit"))
    names = ["call A", "call B"]

    def wrong(changing: int) -> int | None:
        seen = [dataclasses.replace(m, rows={"t": ({"n": m.number},)}) if m.number in (1, changing) else m
                for m in moves]  # fmt: skip
        found = rows.turning_point(Schedule("ABBAA", "", 1, tuple(seen), (), {}), names)
        return None if found is None else found.step

    later = (*moves[:4], move(5, 1, "Z", 3), move(6, 1, "commit"), move(7, 0, "commit"))
    assert (wrong(3), wrong(0)) == (4, 4)
    shown = tuple(dataclasses.replace(m, rows={"t": ()}) if m.number == 6 else m for m in later)
    found = rows.turning_point(Schedule("ABBABBA", "", 1, shown, (), {}), names)
    assert found is not None
    assert found.step == 7


def test_who_waits_goes_wrong_at_the_statement_at_which_he_waited() -> None:
    """Where another's commit lets him go on: the finding is on his statement's line, and not on the commit's."""
    moves = (
        move(1, 0, "SELECT", 4), move(2, 1, "SELECT", 4), move(3, 0, "UPDATE", 5),
        move(4, 1, "UPDATE", 5, "waits for A"), move(5, 0, "COMMIT", 6, "B goes on"), move(6, 1, "COMMIT", 6),
    )  # fmt: skip
    found = Schedule("ABABAB", "", 1, tuple(dataclasses.replace(m, function="") for m in moves), (), {}, ("ann", "ben"))
    run = load("check", {}, findings=(broken_finding(),), details={"sessions": ["ann", "ben"]})
    told = rows.Told(run, broken_finding(location=Location("a.race.sql", 2)), found)
    assert rows.turning_point(found, rows.lanes(run, found)) == rows.Turn(
        5, 1, "ben (B) goes on with what it saw at step 2, and not with what ann (A) has just committed"
    )
    assert places.told(told, ()) == "a.race.sql:5"


# Comments and annotations.


@pytest.mark.parametrize("name", RECORDS)
def test_a_comment_is_short_enough_and_says_the_verdict_first(name: str) -> None:
    """Marker, verdict, findings, a row for each run."""
    made = markdown.comment(RECORDS[name])
    assert len(made) <= markdown.LARGEST
    assert made.startswith(f"{markdown.MARKER}\n### ")
    assert RECORDS[name].truth.value in made.splitlines()[1]


def test_a_comment_calls_nobody_and_holds_no_html_of_an_answer() -> None:
    """Outside of blocks of code; and no answer ends its block."""
    made = markdown.comment(spiteful())
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", made, flags=re.MULTILINE | re.DOTALL)
    assert "@everyone" not in outside
    assert "<script>" not in outside
    assert re.search(r"#\d", outside) is None
    assert re.search(r"^````+text$", made, re.MULTILINE)


def test_a_comment_of_very_much_is_cut_and_says_so() -> None:
    """65,536 characters are what GitHub takes."""
    runs = [load("race", {f"label {n} {k}": 1 for k in range(200)}) for n in range(60)]
    made = markdown.comment(record(*runs))
    assert len(made) <= markdown.LARGEST
    assert "This comment was cut" in made


def test_an_annotation_is_one_line_on_the_line_of_the_step() -> None:
    """Of the function's file where the schedule goes wrong; else of its definition; with no way out of its field."""
    (line,) = github.workflow_commands(broken_only(), ROOT)
    assert line.startswith("::error file=sql/migrations/0002_scan.sql,line=5,title=broken%3A At most one call")
    lines = github.workflow_commands(spiteful(), ROOT)
    assert [each.partition(" ")[0] for each in lines] == ["::error", "::warning"]
    assert all("\n" not in each for each in lines)
    assert "file=a%2Cb%3Ac.sql,line=3," in lines[0]


def broken_only() -> Record:
    return record(load("race", {"accepted": 3}, findings=(broken_finding(),)))


def test_no_more_annotations_than_github_shows() -> None:
    """Ten errors and ten warnings of a step."""
    many = tuple(broken_finding(id=str(n)) for n in range(50))
    assert len(github.workflow_commands(record(load("race", {"a": 1}, findings=many)), ROOT)) == 10


# Files for other tools.


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"cut_short": "No connection to host=x."}, "cut short: No connection to host=x"),
        ({"interrupted": True}, "interrupted"),
        ({}, "what it needs was lost"),
    ],
)
def test_what_a_command_found_until_it_ended_early_is_no_verdict(changed: dict[str, Any], why: str) -> None:
    """Each report says undecided and why before it shows what was broken, or held, until then."""
    broken, good = load("race", {"accepted": 2}, findings=(broken_finding(),)), held_record().runs[0]
    for run in (broken, good):
        made = record(run if changed else dataclasses.replace(run, server_lost=True), **changed)
        lines = [line.text for line in terminal.screen(made, None)]
        assert lines[-1].startswith(f"verdict: undecided - {why}; until then ")
        assert run is good or lines[0] == f"? undecided: {why}; this was found until then:"
        assert f"### ? undecided: {markdown.escape(why)}\n" in markdown.comment(made)
        assert f"It did not come to its end ({why}): what follows was found until then." in page.page(made)
        assert not json.loads(sarif.log(made, ROOT))["runs"][0]["invocations"][0]["executionSuccessful"]


@pytest.mark.parametrize("name", RECORDS)
def test_sarif_is_as_the_published_schema_says(name: str) -> None:
    """2.1.0, as OASIS publishes it."""
    needed(SARIF_SCHEMA.exists(), "the SARIF schema", "make page-tools")
    made = json.loads(sarif.log(RECORDS[name], ROOT))
    jsonschema.validate(made, json.loads(SARIF_SCHEMA.read_text()))
    told = rows.told(RECORDS[name].runs)
    assert len(made["runs"][0]["results"]) == len(told)


def test_sarif_has_the_schedule_as_a_code_flow() -> None:
    """A thread for each call, steps in their order, each with its text."""
    (result,) = json.loads(sarif.log(explored_record(), ROOT))["runs"][0]["results"]
    assert (result["ruleId"], result["level"], result["kind"]) == ("at_most_one_accepted", "error", "fail")
    (flow,) = result["codeFlows"]
    threads = {thread["id"]: [step["executionOrder"] for step in thread["locations"]] for thread in flow["threadFlows"]}
    assert threads == {"call A": [1, 2, 6, 8], "call B": [3, 4, 5, 7]}
    assert "returns accepted" in flow["threadFlows"][1]["locations"][2]["location"]["message"]["text"]


def test_a_sarif_log_has_no_more_than_a_forge_takes() -> None:
    """Results and rules are cut, each result has its rule, and what is left out is said."""
    (made,) = json.loads(sarif.log(very_many(), ROOT))["runs"]
    rules = made["tool"]["driver"]["rules"]
    assert (len(made["results"]), len(rules)) == (sarif.MOST, sarif.MOST_RULES)
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in made["results"])
    assert "95000 findings are left out here" in json.dumps(made["invocations"])


def test_undecided_is_no_failure_and_no_pass_in_sarif() -> None:
    """It is open, with the remedy."""
    (result,) = json.loads(sarif.log(RECORDS["undecided"], ROOT))["runs"][0]["results"]
    assert (result["kind"], result["level"]) == ("open", "none")
    assert "remedy: Give more." in result["message"]["text"]


def test_a_finding_keeps_its_fingerprint_when_its_line_moves() -> None:
    """So that a forge knows it again; another function's is another."""
    finding = broken_finding()
    moved = dataclasses.replace(finding, location=dataclasses.replace(WHERE, line=99), observed="7 violations")
    other = dataclasses.replace(finding, location=dataclasses.replace(WHERE, function="other"))
    assert places.fingerprint(finding) == places.fingerprint(moved) != places.fingerprint(other)


@pytest.mark.parametrize("name", RECORDS)
def test_gitlabs_report_has_what_gitlab_asks_for(name: str) -> None:
    """Description, check, fingerprint, severity, a path inside the repository and a line."""
    made = json.loads(code_quality.report(RECORDS[name], ROOT))
    assert len(made) == len(rows.told(RECORDS[name].runs))
    assert len({issue["fingerprint"] for issue in made}) == len(made)
    for issue in made:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert issue["location"]["lines"]["begin"] >= 1
        assert not issue["location"]["path"].startswith(("/", "./"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CREATE FUNCTION f() RETURNS int AS $$\nBEGIN\n  X;\nEND $$ LANGUAGE plpgsql", 42),
        ("CREATE FUNCTION f()\nRETURNS int LANGUAGE plpgsql\nAS $body$\nBEGIN\n  X;\nEND $body$", 44),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1", None),
    ],
)
def test_a_step_is_on_its_line_of_the_file(text: str, line: int | None) -> None:
    """A body's lines count from the one that it begins on; else the finding's own place is taken."""
    made = record(sources=(Source("f", "a.sql", 40, text),))
    step = dataclasses.replace(move(1, 0, "X", 3), function="f()")
    expected = (WHERE.file, WHERE.line) if line is None else ("a.sql", line)
    assert places.of_a_step(step, made.sources, broken_finding()) == expected


BODY = "CREATE FUNCTION f() RETURNS int AS $$\nBEGIN\n  X;\nEND $$ LANGUAGE plpgsql"
TWO_FILES = (
    Source("f", "b.race.sql", 4, BODY), Source("f", "m.sql", 40, BODY), Source("", "b.race.sql", 1, "\n\n\n" + BODY),
    Source("", "a.race.sql", 1, "SELECT f();"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("function", "of", "place"),
    [
        ("f()", "b.race.sql", ("b.race.sql", 6)),
        ("f()", "a.race.sql", ("m.sql", 42)),
        ("", "a.race.sql", ("a.race.sql", 3)),
        ("", "b.race.sql", ("b.race.sql", 3)),
    ],
    ids=["its own function", "the migrations' function", "its own statement", "a statement beside a function"],
)
def test_a_step_of_one_scenario_is_never_shown_in_another(function: str, of: str, place: tuple[str, int]) -> None:
    """Where both are checked at once, and one defines what the other one calls by the same name."""
    step = dataclasses.replace(move(1, 0, "X", 3), function=function)
    assert places.of_a_step(step, TWO_FILES, broken_finding(location=Location(of, 1))) == place


def test_every_anomaly_is_explained() -> None:
    """To somebody who has never read its name."""
    assert set(rows.MEANINGS) == set(ANOMALIES)


def test_a_page_says_what_came_of_it_once() -> None:
    """What a serial order would have told stands beside the picture, and not among what was observed again."""
    made = checked_record()
    (run,) = made.runs
    differs = "after clerk-1, then clerk-2: clerk-2 would be told pay=no"
    orders = {run.findings[0].id: [{"order": "clerk-1, clerk-2", "differs": differs}]}
    piece = run.findings[0].evidence[0]
    finding = dataclasses.replace(run.findings[0], evidence=(piece | {"lines": [*piece["lines"], differs]},))
    run = dataclasses.replace(run, findings=(finding,), details=dict(run.details) | {"serial_orders": orders})
    text = page.page(dataclasses.replace(made, runs=(run,)))
    assert text.count("would be told pay=no") == 1
    assert text.index("clerk-2: SELECT pay(7) -&gt; pay=paid") < text.index("<svg")


@pytest.mark.parametrize("strength", ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"])
def test_a_page_marks_row_locks_of_each_strength(strength: str) -> None:
    """Words that lock are marked whole."""
    source = Source("", "a.sql", 1, f"SELECT 1 FROM t FOR {strength};")
    assert f'<mark class="lock">FOR {strength}</mark>' in page.page(record(sources=(source,)))


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/repository/sql/a b.sql", "sql/a b.sql"), ("/else/a.sql", "/else/a.sql"), ("sql/a.sql", "sql/a.sql")],
)
def test_a_path_is_told_from_the_repositorys_root(path: str, shown: str) -> None:
    """A forge knows no other; what lies outside stays as it is."""
    assert places.relative(path, ROOT) == shown


# Writing.


def options(**given: Any) -> Options:
    return dataclasses.replace(Options(), **given)


def test_all_that_is_asked_for_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, GitHub's summary behind what is there, annotations on the console."""
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    said: list[str] = []
    wanted = {name: tmp_path / name for name in ("record", "html", "markdown", "sarif", "code_quality")}
    outputs.write(broken_record(), options(**wanted), said.append)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*wanted, "summary.md"])
    assert summary.read_text().startswith(f"before\n{markdown.MARKER}")
    assert said[0].startswith("::error ")


def test_a_full_disk_leaves_the_old_file_and_the_other_files_are_written(tmp_path: Path) -> None:
    """Written beside, then put in its place; no half of it stays."""
    page_path = tmp_path / "page.html"
    page_path.write_text("old")
    (tmp_path / "page.html.partial").symlink_to("/dev/full")
    with pytest.raises(HarnessError) as caught:
        outputs.write(broken_record(), options(html=page_path, markdown=tmp_path / "c.md"), print)
    assert caught.value.exit_status == ExitStatus.ENVIRONMENT
    assert "The page cannot be written to" in str(caught.value)
    assert "No space left" in str(caught.value)
    assert page_path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.md", "page.html"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"html": Path("/nowhere/page.html")}, "The page cannot be written to /nowhere/page.html."),
        ({"sarif": Path("/")}, "it is a folder"),
        ({"html": Path("a"), "markdown": Path("./a")}, "--html and --markdown name one file, a."),
        ({"github_summary": True}, "--github-summary has no summary to add to."),
    ],
)
def test_what_cannot_be_written_is_said_before_the_run(
    given: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wrong usage, with what to do."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    with pytest.raises(UsageError) as caught:
        check_outputs(options(**given))
    assert says in str(caught.value)
    assert "next:" in str(caught.value)


def test_no_report_is_written_over_somebodys_sql(tmp_path: Path) -> None:
    """A scenario or a migration that is there is not one that may be lost by a slip of the fingers."""
    path = tmp_path / "coupon.race.sql"
    check_outputs(options(record=path))
    path.write_text("-- scenario: mine\n")
    with pytest.raises(UsageError, match="--record would overwrite"):
        check_outputs(options(record=path))


def test_held_findings_are_no_results() -> None:
    """Of a held record nothing is told but that it held."""
    assert rows.told(held_record().runs) == []
    assert len(held()) == 13


# Two ways that disagree.


def test_a_report_leads_with_what_one_way_breaks_and_the_other_holds() -> None:
    """By the same contract a race breaks what exploring holds, or the other way round: each report says it first."""
    [explored] = explored_record().runs
    broken = explored.findings[0]
    holds = dataclasses.replace(explored, findings=(dataclasses.replace(broken, truth=Truth.HELD),))
    race = load("race", {"accepted": 2}, findings=(dataclasses.replace(broken, replay="", location=None),))
    lucky = load("race", {"accepted": 2}, findings=holds.findings)
    [said] = rows.disagreements([holds, race])
    assert said.startswith(f"race (sql) breaks what explore holds: {broken.id}. Explore did not try: more than 2 calls")
    for text in outputs_of(record(holds, race)):
        assert "Two ways disagree" in text or "two ways disagree" in text
    [said] = rows.disagreements([explored, lucky])
    assert said.startswith(f"explore breaks what race (sql) holds: {broken.id}. The race did not try: orders that")
    assert not rows.disagreements([explored, race])
    assert not rows.disagreements([holds, lucky])
    assert not rows.disagreements([holds, dataclasses.replace(race, repeat="harness run --contract other:OTHER")])


def outputs_of(made: Record) -> tuple[str, str, str]:
    first = terminal.screen(made, None)[0].text
    return first, page.page(made), markdown.comment(made)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"race": 3, "explore": 0}, "racing breaks, in 3 of 10 rounds, what holds in 4 interleavings, all there are."),
        ({"race": 0, "explore": 2}, "exploring breaks, in 2 of 4 interleavings, what holds in 10 rounds, of which 9"),
        ({"race": 1, "explore": 2}, ""),
    ],
)
def test_a_scenario_says_which_of_its_two_ways_broke_it(times: dict[str, int], said: str) -> None:
    """A result that only the race, or only exploring, came to is told with what the other did not try."""
    result = SimpleNamespace(judgement=SimpleNamespace(truth=Truth.BROKEN), violated=(), times=Counter(times))
    explored = SimpleNamespace(undecided=(), not_covered=("inside a statement",))
    check = SimpleNamespace(
        results={0: result}, world=SimpleNamespace(scenario=SimpleNamespace(title="pay")),
        exploring=SimpleNamespace(explored=explored, schedules=4, exhausted=True),
        race=SimpleNamespace(rounds=10, met=9),
    )  # fmt: skip
    assert said in _Check._disagreement(check)  # type: ignore[arg-type]
    assert bool(_Check._disagreement(check)) == bool(said)  # type: ignore[arg-type]
