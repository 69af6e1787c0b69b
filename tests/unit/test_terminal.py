"""What a person sees of a record, on a terminal and through a pipe."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.console import Console

from harness.records import Record, RunRecord, dumps, loads
from harness.reports import figures, layout, rows, terminal
from harness.text import harmless
from harness.verdict.findings import Finding, Truth
from tests.samples import (
    KEY,
    READ,
    SCANNERS,
    broken_finding,
    broken_record,
    checked_record,
    doubtful_record,
    explored_record,
    held,
    held_record,
    load,
    record,
    very_many,
)

RECORDS = {
    "held": held_record(), "broken": broken_record(), "explored": explored_record(), "checked": checked_record(),
    "empty": record(),
}  # fmt: skip


def text(made: Record, width: int | None) -> str:
    return "\n".join(line.text for line in terminal.screen(made, width))


def test_a_held_run_fits_one_screen() -> None:
    """40 lines of 100 columns: server, migrations, a row a run, what was not tried, the verdict."""
    lines = terminal.screen(held_record(), 100)
    assert len(lines) <= 40
    assert max(len(line.text) for line in lines) <= 100
    said = text(held_record(), None)
    for part in (
        "PostgreSQL 18.0 (embedded: asked for), 2 cores",
        "2 migrations (sql/migrations)",
        "752 calls, 90 rounds",
    ):
        assert part in said
    assert re.search(
        r"✓ held  race \(sql\) .* \d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\)  13 held  accepted 140, already_scanned 53", said
    )
    assert (
        "not tried: race (sql): what shows more rarely: 60 rounds overlapped, a fault that shows in 4.9 % or more of"
        in said
    )
    assert "not tried: every order of the statements inside the function" in said
    assert lines[-1].text.startswith("verdict: held - 52 held, 0 broken, 0 undecided in 4 runs")


def test_a_broken_run_leads_with_the_finding_that_shows_most() -> None:
    """Claim, calls, place, remedy and command come first, then what else is not held, broken before undecided."""
    said = text(broken_record(), 100)
    assert said.startswith("✗ broken: At most one call per ticket is accepted.")
    parts = (
        "3 callers", "#0 client 0", "where: sql/migrations/0002_scan.sql:5", "remedy: Take", "repeat: harness run --p",
        "also not held (2):", "✗ broken: Each key's", "? undecided: The calls", "remedy: Raise --rounds.", "verdict: ",
    )  # fmt: skip
    places = [said.index(part) for part in parts]
    assert places == sorted(places)


def test_a_schedule_shows_more_than_calls_and_calls_more_than_a_figure() -> None:
    """The same claim broken by a race and by an exploration is told once, by its schedule."""
    threshold = Finding("threshold.p95", "p95 is low.", Truth.BROKEN, "900 ms")
    race = load("race", {"accepted": 9}, findings=(threshold, broken_finding()))
    told = rows.told([race, *explored_record().runs])
    assert [each.finding.id for each in told] == ["at_most_one_accepted", "threshold.p95"]
    assert told[0].schedule is not None
    assert told[0].also == 1


@pytest.mark.parametrize("width", [80, 100, 132])
@pytest.mark.parametrize("name", RECORDS)
def test_no_line_is_wider_than_the_terminal_and_no_word_is_cut(name: str, width: int) -> None:
    """UUIDs, times and the schedule's statements stay whole; a command to copy is the one line that may be longer."""
    said = text(RECORDS[name], width)
    assert max(len(line) for line in said.splitlines() if "repeat: " not in line) <= width
    for word in re.findall(r"[^\s,;=]+", text(RECORDS[name], None)):
        assert word in said


@pytest.mark.parametrize("width", [70, 80, 100])
def test_a_schedule_has_a_lane_for_each_call(width: int) -> None:
    """With every word of every statement in the lane of its call, and what came of it under it."""
    said = text(explored_record(), width)
    lanes = [line for line in said.splitlines() if line.count(" |") == 2]
    assert lanes[0].split() == ["step", "|", "call", "A", "|", "call", "B"]
    left = " ".join(" ".join(line.split(" |")[1] for line in lanes[1:]).split())
    assert READ in left
    assert "-> waits for B" in left


def test_into_a_pipe_a_wide_schedule_is_a_list_with_whole_statements() -> None:
    """Nothing is wrapped, so that a statement can be found by grep."""
    run = explored_record().runs[0]
    wide = {"exploration": {**run.details["exploration"]}}
    said = text(explored_record(details=wide), None)
    assert re.search(rf"^    2   call A  7: {re.escape(READ)}$", said, re.MULTILINE)
    assert "-> A returns accepted" in said


def test_many_findings_are_counted_and_not_all_printed() -> None:
    """A hundred thousand broken claims still leave a page that can be read."""
    lines = terminal.screen(very_many(), 100)
    assert len(lines) < 50
    assert any("and 99991 more; -v shows more of them" in line.text for line in lines)


@pytest.mark.parametrize(("runs", "findings"), [(1, 20_000), (180, 100)])
def test_every_figure_has_an_end(runs: int, findings: int) -> None:
    """Of very many findings, in one run or in many, -v tells a part, the broken ones first, and says so."""
    first = broken_finding(id="first", evidence=({"reason": "three were let in"},) * 50)
    broken = broken_finding(evidence=())
    each = (*held(), first, *(replace(broken, id=f"c{n}", claim=f"Claim {n}.") for n in range(findings - 1)))
    said = every_figure(record(*(load("race", {}, findings=each, overlap=None) for _ in range(runs))))
    shown = 500 if runs == 1 else 3 * runs
    assert len(said.splitlines()) < 20_000
    assert said.count("✗ broken") == shown
    assert said.count(f"and {len(each) - 1 - shown // runs} more findings: the record (--record FILE) has all") == runs
    assert "and 30 more violations" in said


def test_no_figure_steers_the_terminal() -> None:
    """Whatever names a contract, a file or a function has."""
    spite = "\x1b[2J\x07\u202e"
    finding = broken_finding(id=spite, claim=spite, observed=spite, remedy=spite, replay=spite)
    run = load("race", {spite: 3}, findings=(finding,), plan={spite: spite}, notes=(spite,), test=spite)
    said = every_figure(record(run, contract=spite, command=spite))
    assert all(line.isprintable() for line in said.splitlines())
    assert r"\x1b[2J" in said


def test_a_run_of_a_kind_nobody_has_told_us_about_has_a_row() -> None:
    """Its name, its truth and its findings."""
    run = load("somersault", {"landed": 3})
    assert rows.row(run).name == "somersault (sql)"
    assert rows.row(run).answers == "landed 3"


def test_an_interrupted_run_says_so() -> None:
    """In what was not tried, and in the verdict."""
    made = record(load("burst", {"accepted": 3}, interrupted=True), interrupted=True)
    said = text(made, None)
    assert "not tried: burst (sql): interrupted" in said
    assert "verdict: undecided - interrupted; until then " in said


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_printed_is_drawn_from_the_file_alone(name: str) -> None:
    """A record that was written and read prints the same, with all figures too."""
    again = loads(dumps(RECORDS[name]))
    assert text(again, 90) == text(RECORDS[name], 90)
    assert every_figure(again) == every_figure(RECORDS[name])


@pytest.mark.parametrize("name", RECORDS)
def test_every_figure_fits_a_terminal_and_no_key_is_cut(name: str) -> None:
    """At 80 columns: UUIDs are whole, and the command to copy is the one line that is longer."""
    said = every_figure(RECORDS[name], Console(width=80, force_terminal=True, color_system=None))
    assert [line for line in said.splitlines() if len(line) > 80 and "repeat: " not in line] == []
    wide = every_figure(RECORDS[name])
    for word in {KEY, *SCANNERS, *re.findall("repeat: .*", wide)}:
        assert (word in said) == (word in wide), word


def every_figure(made: Record, console: Console | None = None) -> str:
    console = console or Console(width=200)
    with console.capture() as captured:
        figures.print_record(made, console)
    return captured.get()


def test_every_figure_of_a_scenario_is_there() -> None:
    """What was tried, each claim, the proof and the schedule, as of a function."""
    said = every_figure(checked_record())
    for wanted in (
        "4 serial orders, 8 interleavings, 10 rounds (5 met)",
        "nobody is paid twice",
        "3 distinct results",
        "ABABAB breaks pay.one_after_another",
        "clerk-1: SELECT pay(7) -> pay=paid",
        "waits for A",
        "repeat: harness check",
    ):
        assert wanted in said


def test_the_step_at_which_a_scenario_goes_wrong_is_told_and_marked() -> None:
    """In words, in the lanes, and as the statement's line in the scenario's file."""
    said = text(checked_record(), 100)
    assert "it goes wrong at step 5: clerk-2 (B) goes on with what it saw at step 2" in said
    assert re.search(r"^  5 ✗ +\| commit", said, re.MULTILINE)
    assert "pay:3: IF (SELECT paid" in said
    assert "where: pay.race.sql:8\n" in said


def test_no_answer_is_a_command_of_the_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub obeys `::name::` at the beginning of a line and `##[name]` in it; elsewhere nothing is changed."""
    spite = "x\n::stop-commands::y ##[error]z"
    made = record(load("race", {spite: 1}, findings=(broken_finding(claim=spite, observed=spite),), notes=(spite,)))
    into_a_pipe = text(made, None)
    assert [line for line in into_a_pipe.splitlines() if line.strip().startswith("::")] == []
    for said in (into_a_pipe, text(made, 30), every_figure(made)):
        assert harmless(said) == said
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert [line for line in harmless(said).splitlines() if line.strip().startswith("::") or "##[" in line] == []
        assert "stop-commands" in harmless(said)
        monkeypatch.delenv("GITHUB_ACTIONS")


def test_a_table_gives_the_room_to_the_columns_that_need_it() -> None:
    """Narrow columns stay whole; the wide one is wrapped between words."""
    made = layout.table([("a", "one two three four five six seven"), ("bb", "x")], 24, wrapped=(1,))
    assert made == [["a   one two three four", "    five six seven"], ["bb  x"]]


def test_keys_and_scanners_are_told_whole() -> None:
    """At 80 columns, where each takes half of the line."""
    said = text(explored_record(), 80)
    assert KEY in said
    assert SCANNERS[1] in said


def test_a_note_that_several_runs_have_stands_once() -> None:
    """Four patterns of one profile would say the same sentence four times."""
    made = held_record()
    told = text(replace(made, runs=tuple(replace(run, notes=("nobody was held back",)) for run in made.runs)), None)
    assert [line for line in told.splitlines() if line.startswith("note: ")] == [
        "note: all 4 runs: nobody was held back"
    ]


def test_many_files_that_hold_are_told_in_their_rows() -> None:
    """Fifteen scenarios fit the screen; what is said of one names it by its file, and of many their number."""
    run = checked_record().runs[0]

    def checked(number: int, *notes: str) -> RunRecord:
        details = run.details | {"check": run.details["check"] | {"name": f"file{number}"}, "exploration": {}}
        return replace(run, findings=held(3), details=details, notes=notes)

    runs = [checked(n, "renamed: id") if n % 2 else checked(n) for n in range(15)]
    said = text(record(*runs), 100).splitlines()
    assert len(said) <= 40
    assert "nobody is paid twice" not in said
    [note] = [line for line in said if line.startswith("note: ")]
    assert note == "note: file1, file3, file5, file7, file9, file11, 1 more: renamed: id"
    broken = text(record(*runs, run), 100)
    assert "\npay: nobody is paid twice" in broken


def test_of_an_undecided_scenario_nothing_is_said_to_go_wrong() -> None:
    """What is marked is the answer in doubt: beside it a commit in another's middle is a matter of course."""
    said = text(doubtful_record(), 100)
    assert "it goes wrong" not in said
    assert "what is in doubt came at step 3: clerk-2 (B) gets pay=try again" in said
    assert re.search(r"^  3 \? +\| ", said, re.MULTILINE)
    assert "where: pay.race.sql:7\n" in said
