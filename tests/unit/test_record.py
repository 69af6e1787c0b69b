"""The record: one value, one JSON form, and what it adds up to."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.description import ServerDescription
from harness.environment.servers import address, command_line
from harness.errors import ExitStatus, HarnessError, UsageError
from harness.plain import from_plain
from harness.records import FORMAT, AppliedFile, Record, RunRecord, dumps, json_schema, loads, read
from harness.schedules.result import Exploration
from harness.text import LONGEST, printable
from harness.verdict.findings import Finding, Truth
from harness.verdict.metrics import measure
from tests.histories import call, history

HELD = Finding("a", "A.", Truth.HELD, "yes")
BROKEN = Finding("b", "B.", Truth.BROKEN, "no", evidence=({"value": math.nan, "key": Path("x")},), replay="harness run")
UNDECIDED = Finding("c", "C.", Truth.UNDECIDED, "who knows")


def run(*findings: Finding, **more: object) -> RunRecord:
    metrics = measure(history(call("accepted", 0, 1)), SCAN_TICKET, frozenset({"accepted"}), 0.01)
    empty = measure(history(), SCAN_TICKET, frozenset(), 0.01) if more.pop("empty", False) else metrics
    return RunRecord("burst", "sql", {"clients": 10}, empty, None, findings, **more)  # type: ignore[arg-type]


def record(*runs: RunRecord, interrupted: bool = False) -> Record:
    environment = ServerDescription("embedded", "18.0", "asked for", "host=/tmp", {"fsync": "on"}, 2)
    return Record(
        "0.1.0", "2030-01-01T00:00:00+00:00", "harness run", "quick", "scan_ticket", environment,
        (AppliedFile("sql/a.sql", "ab" * 32),), (), runs, interrupted,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "truth", "status"),
    [
        (record(run(HELD)), Truth.HELD, ExitStatus.HELD),
        (record(run(HELD), run(HELD, BROKEN)), Truth.BROKEN, ExitStatus.BROKEN),
        (record(run(UNDECIDED), run(BROKEN)), Truth.BROKEN, ExitStatus.BROKEN),
        (record(run(HELD), run(UNDECIDED)), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(run(HELD), run()), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(run(HELD), interrupted=True), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(run(BROKEN), interrupted=True), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(run(BROKEN, server_lost=True)), Truth.UNDECIDED, ExitStatus.ENVIRONMENT),
    ],
)
def test_a_record_adds_up_to_one_truth_and_one_exit_status(made: Record, truth: Truth, status: ExitStatus) -> None:
    """Broken outweighs undecided outweighs held; nothing judged, or not to the end, is never held."""
    assert (made.truth, made.exit_status) == (truth, status)


def test_the_json_form_has_every_section() -> None:
    """Format, environment, migrations with their sha256, plan, metrics and findings with evidence."""
    value = json.loads(dumps(record(run(HELD, BROKEN))))
    assert value["format"] == FORMAT == 2
    assert value["exit_status"] == 1
    assert value["environment"]["settings"] == {"fsync": "on"}
    assert value["migrations"] == [{"path": "sql/a.sql", "sha256": "ab" * 32}]
    assert value["truth"] == "broken"
    (made,) = value["runs"]
    assert made["plan"] == {"clients": 10}
    assert set(made["metrics"]["trends"]["accepted"]) == {
        "count", "rate", "avg", "min", "med", "p90", "p95", "p99", "max", "p95_interval",
    }  # fmt: skip
    assert [f["truth"] for f in made["findings"]] == ["held", "broken"]
    assert made["findings"][1]["replay"] == "harness run"


def test_what_could_not_be_measured_has_no_value_in_json() -> None:
    """NaN is no JSON: null stands for it."""
    text = dumps(record(run(BROKEN, empty=True)))
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["runs"][0]["metrics"]["trends"]["all"]["p95"] is None


def test_single_durations_are_not_in_the_json() -> None:
    """There may be a million of them, and the trends say what they come to."""
    assert "durations" not in json.loads(dumps(record(run(HELD))))["runs"][0]["metrics"]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:s3cret@db.example:5433/app",
        "postgresql://me@db.example/app?password=s3cret&sslpassword=s3cret",
        "host=db.example user=me password=s3cret",
        "host=db.example password='s3cret' sslpassword=s3cret passfile=/s3cret",
    ],
)
def test_an_address_has_no_password(dsn: str) -> None:
    """What is shown and stored of a DSN is where it leads, and never a secret."""
    assert "s3cret" not in address(dsn)
    assert "db.example" in address(dsn)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["harness", "run", "--clients", "3"], "harness run --clients 3"),
        (["harness", "--server", "postgresql://me:s3cret@h/d"], "harness --server 'user=me dbname=d host=h'"),
        (["harness", "--server=postgresql://me:s3cret@h/d"], "harness '--server=user=me dbname=d host=h'"),
        (["pytest", "--harness-server=host=h password=s3cret"], "pytest --harness-server=host=h"),
        (["harness", "--server", "postgresql+psycopg://me:s3cret@h/d"], "harness --server 'user=me dbname=d host=h'"),
        (["harness", "--server", "postgresql://me:s3cret@["], "harness --server 'an unreadable DSN'"),
    ],
)
def test_a_command_is_kept_without_passwords(words: list[str], shown: str) -> None:
    """The record says how it was made, and can be published."""
    assert command_line(words) == shown


def test_an_unreadable_dsn_is_not_shown_at_all() -> None:
    """It may hold a password anywhere."""
    assert address("postgresql://me:s3cret@[") == "an unreadable DSN"


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """No half of it is ever seen under its name, and nothing else is left beside it."""
    made = record(run(HELD))
    made.write(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == dumps(made)
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_a_record_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    """The error names the path and the option."""
    with pytest.raises(HarnessError) as caught:
        record(run(HELD)).write(tmp_path / "missing" / "r.json")
    assert "missing" in caught.value.what
    assert "--record" in caught.value.next_step


def test_a_broken_finding_keeps_its_place_when_replaced() -> None:
    """Findings are frozen values: a report cannot change what was judged."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        HELD.truth = Truth.BROKEN  # type: ignore[misc]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().map(printable),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
"""What `details`, a plan and a proof may hold."""


def made_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, as its hints describe it."""
    if kind is Any:
        return PLAIN
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(made_of, arguments))
    if origin is tuple and arguments[1] is not Ellipsis:
        return st.tuples(*map(made_of, arguments))
    if origin is tuple:
        return st.lists(made_of(arguments[0]), max_size=2).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(), made_of(arguments[1]), max_size=2)
    if kind is str:
        return st.text().map(printable)
    if kind is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if not dataclasses.is_dataclass(kind):
        return st.from_type(kind)
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.name not in ("durations", "format")]
    return st.builds(kind, **{field.name: made_of(hints[field.name]) for field in fields})


MANY = hypothesis.settings(
    max_examples=50, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@MANY
@hypothesis.given(made_of(Record))
def test_any_record_comes_back_from_its_json_as_it_was(made: Record) -> None:
    """Whatever its runs, findings and details are; and its JSON is as the published schema says."""
    text = dumps(made)
    assert loads(text) == made
    assert dumps(loads(text)) == text
    jsonschema.validate(json.loads(text), json_schema(), jsonschema.Draft202012Validator)


def test_no_text_of_a_server_or_function_obeys_itself_or_floods_a_report() -> None:
    """An answer of a million characters is cut, and what a terminal would obey is shown."""
    evil = "\x1b]0;title\x07" + "x" * 1_000_000
    found = Finding("some", "Some claim.", Truth.BROKEN, evil, evidence=({"answer": [evil]},))
    made = RunRecord("race", "sql", {"key": evil}, None, None, (found,), notes=(evil,), details={"rows": {"a": evil}})
    [kept] = made.findings
    for text in (
        made.plan["key"],
        made.notes[0],
        made.details["rows"]["a"],
        kept.observed,
        kept.evidence[0]["answer"][0],
    ):
        assert text.startswith("\\x1b]0;title\\x07xxx")
        assert text.endswith("... (cut: 1000010 characters)")
        assert len(text) <= LONGEST


def test_a_record_that_was_cut_short_agrees_with_its_exit_status() -> None:
    """Runs that held before the server was gone are no verdict on those that were not made."""
    held = RunRecord("race", "sql", {}, None, None, (Finding("some", "Some claim.", Truth.HELD, ""),))
    cut = dataclasses.replace(record(held), cut_short="No connection to host=x.")
    assert (cut.truth, cut.exit_status) == (Truth.UNDECIDED, ExitStatus.ENVIRONMENT)
    lost = record(held, dataclasses.replace(held, server_lost=True))
    assert (lost.truth, lost.exit_status) == (Truth.UNDECIDED, ExitStatus.ENVIRONMENT)


@MANY
@hypothesis.given(made_of(Exploration))
def test_any_exploration_comes_back_from_a_record_s_details(found: Exploration) -> None:
    """What only one kind of run has is read back as the value that it was."""
    made = RunRecord("explore", "sql", {}, None, None, (), details={"exploration": found})
    [back] = loads(dumps(record(made))).runs
    assert from_plain(Exploration, back.details["exploration"]) == found


def test_the_published_schema_is_that_of_the_format() -> None:
    """Whoever reads records without Python goes by `harness/record.schema.json`."""
    published = resources.files("harness").joinpath("record.schema.json").read_text()
    assert json.loads(published) == json_schema(), (
        'write it again: python -c "import json; from harness.records import json_schema; '
        'print(json.dumps(json_schema(), indent=2))" > harness/record.schema.json'
    )


WHOLE = dumps(record(run(BROKEN, HELD)))


def changed(*keys: Any, to: object) -> str:
    value = top = json.loads(WHOLE)
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = to
    return json.dumps(top)


@pytest.mark.parametrize(
    ("text", "what", "tried"),
    [
        ("", "no JSON", "Expecting value"),
        ("[" * 100_000, "no JSON", "recursion"),
        ("[1]", "not a record of the harness", "format"),
        ('{"format": true}', "not a record of the harness", "format"),
        ('{"schema_version": 1, "harness_version": "0.1.0"}', "a record of format 1, and this version", "0.1.0"),
        ('{"format": 3, "harness_version": "9.0"}', "a record of format 3, and this version", "9.0"),
        ('{"format": 2}', "not a whole record", "record has no harness_version"),
        (changed("runs", to={}), "not a whole record", "record.runs is {} and not a list"),
        (changed("runs", 0, to=7), "not a whole record", "record.runs[0] is 7 and not an object"),
        (changed("environment", "cores", to="2"), "not a whole record",
         "record.environment.cores is '2' and not an integer"),
        (changed("runs", 0, "findings", 1, "truth", to="so so"), "not a whole record",
         "record.runs[0].findings[1].truth is 'so so' and not one of held, broken, undecided"),
        (changed("runs", 0, "metrics", "checks", "under 200 ms", to=[1]), "not a whole record",
         "record.runs[0].metrics.checks.under 200 ms has 1 entries and not 2"),
        (changed("runs", 0, "overlap", to=False), "not a whole record",
         "record.runs[0].overlap is False and not an object"),
    ],
)  # fmt: skip
def test_what_is_no_record_of_this_format_is_refused_with_a_sentence(text: str, what: str, tried: str) -> None:
    """An older format, a newer one, a broken file: what it is, what was looked at, how to get one that can be read."""
    with pytest.raises(UsageError) as caught:
        loads(text, "r.json")
    assert caught.value.what.startswith("r.json is ")
    assert what in caught.value.what
    assert tried in caught.value.tried
    assert caught.value.next_step


def test_members_that_this_version_does_not_know_are_passed_over() -> None:
    """A newer harness may add a field to the same format."""
    assert loads(changed("runs", 0, "findings", 0, "colour", to="red")) == record(run(BROKEN, HELD))


def test_a_record_that_cannot_be_read_says_which(tmp_path: Path) -> None:
    """A missing file, or one that holds no text."""
    (tmp_path / "r.json").write_bytes(b"\xff")
    for name in ("missing.json", "r.json"):
        with pytest.raises(UsageError, match=f"{name} cannot be read"):
            read(tmp_path / name)


def test_a_device_without_an_end_is_no_record() -> None:
    """It would fill the memory."""
    with pytest.raises(UsageError, match="too long for a record"):
        read(Path("/dev/zero"))
