"""A load is read strictly, as all of a scenario file is: what is misspelt or missing is said with its line."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from harness import Contract, Effect, UsageError
from harness.load import patterns
from harness.load.patterns import Race
from harness.options import Options
from harness.scenarios import loads, reader
from harness.sqltext.placeholders import numbered

WHOLE = """\
-- scenario: a coupon is redeemed twice at most
-- as: customer {"sub": ":client"}
-- isolation: repeatable read
-- retry: 40001 up to 3

-- setup
CREATE TABLE coupons (code text);

-- load: with the app
SELECT * FROM shop.redeem(p_code => :'key', p_who => :'client_id', p_n => 2, p_note => NULL, p_gift => false);
-- load: by mail
SELECT redeem(:'key', 'mail-' || :client || '-' || :n) AS redeemed;

-- keys:
INSERT INTO coupons SELECT 'c' || n FROM generate_series(1, :count) AS n RETURNING code;
-- missing keys:
SELECT 'none' || n FROM generate_series(1, :count) AS n;

-- applied: when redeemed
-- refused: used_up when NOT redeemed AND answer.reason LIKE '%used%'
-- refused: used_up when error P0001 LIKE 'used up%'
-- busy: when error 55P03
-- missing: no_such when no row

-- capacity: at most 2 applied per key
-- threshold: p(95)<200
-- threshold: errors rate<0.001
-- threshold: accepted count>0
-- pattern: race rounds 40 clients 6
-- pattern: burst
-- never: a coupon is negative
SELECT code FROM coupons WHERE code < '';
"""


def _contract(tmp_path: Path, text: str) -> Contract:
    path = tmp_path / "coupon.race.sql"
    path.write_text(text)
    return loads.asked_for(Options(contract=str(path)))


def test_every_line_is_kept(tmp_path: Path) -> None:
    """A file with every heading comes out as the contract that was meant."""
    contract = _contract(tmp_path, WHOLE)
    app, mail = contract.variants
    assert (app.name, mail.name) == ("with the app", "by mail")
    first, second = contract.function_of(app, 0), contract.function_of(mail, 0)
    assert (first.name, first.statement, first.key) == ("shop.redeem", None, "p_code")
    assert app.arguments(1) == {"p_who": str(uuid.UUID(int=2)), "p_n": 2, "p_note": None, "p_gift": False}
    assert second.statement == "SELECT redeem(:key, 'mail-' || (:client)::integer || '-' || (:n)::bigint) AS redeemed"
    assert (second.key, second.counter, dict(mail.arguments(4))) == ("key", "n", {"client": 4})
    assert first.deciding == {"redeemed", "reason"}
    assert contract.labels == {
        "accepted": Effect.APPLIED,
        "used_up": Effect.REFUSED,
        "busy": Effect.REFUSED,
        "no_such": Effect.REFUSED,
    }
    assert (contract.accepted, contract.repeated, contract.missing) == ("accepted", "used_up", "no_such")
    assert contract.no_row_outcome().label == "no_such"
    assert contract.error_outcome("P0001", "used up, sorry").label == "used_up"
    assert contract.error_outcome("P0001", "Used up").effect is Effect.FAILED
    assert contract.error_outcome("55P03", "whatever").label == "busy"
    assert contract.capacity == 2
    assert contract.thresholds == {
        "duration": ("p(95)<200",),
        "errors": ("rate<0.001",),
        "accepted": ("count>0",),
    }
    assert contract.retry is not None
    assert (contract.retry.sqlstates, contract.retry.most) == (("40001",), 3)
    identity = contract.identity_of(7)
    assert identity is not None
    assert (identity.role, identity.claims) == ("customer", {"sub": str(uuid.UUID(int=8))})
    assert identity.isolation == "repeatable read"
    declared = contract.declared
    assert declared is not None
    assert declared.keys.text(9).startswith("INSERT INTO coupons SELECT 'c' || n FROM generate_series(1, 9)")
    assert declared.setup is not None
    assert [(s.line, s.text) for s in declared.setup.statements()] == [(7, "CREATE TABLE coupons (code text)")]
    assert [each.name for each in declared.conditions] == ["never_1"]
    race, burst = patterns.of_contract(contract, "quick", {"clients": 3})
    assert isinstance(race, Race)
    assert (race.rounds, race.clients, burst.name) == (40, 3, "burst")


def test_without_patterns_those_of_the_profile_are_run(tmp_path: Path) -> None:
    """And where no missing keys are given, not the one that calls them."""
    text = "\n".join(line for line in WHOLE.splitlines() if not line.startswith("-- pattern"))
    assert [p.name for p in patterns.of_contract(_contract(tmp_path, text), "quick", {})] == [
        "burst", "race", "rescan", "unknown",
    ]  # fmt: skip
    cut = text.replace("-- missing keys:\nSELECT 'none' || n FROM generate_series(1, :count) AS n;\n", "")
    contract = _contract(tmp_path, cut)
    assert [p.name for p in patterns.of_contract(contract, "quick", {})] == ["burst", "race", "rescan"]
    with pytest.raises(UsageError, match="missing keys"):
        patterns.check_keys(contract, patterns.of_profile("quick", {}))


KEYS = "-- keys:\nINSERT INTO coupons SELECT 'c' || n FROM generate_series(1, :count) AS n RETURNING code;\n"

WRONG = [
    # (what is written in place of what, the words of the message)
    (("-- applied:", "-- aplied:"), "There is no heading 'aplied'. -> write `applied:`"),
    (("-- missing keys:", "-- missing key:"), "There is no heading 'missing key'. -> write `missing keys:`"),
    ((KEYS, ""), ":11: The load has no keys."),
    (("-- applied: when redeemed\n", ""), "Nothing says which answers are right. -> add `-- applied: when CONDITION`"),
    (("-- applied: when redeemed", "-- applied: if redeemed"), "does not say when an answer means applied"),
    (("-- applied: when redeemed", "-- applied: when error P0001"), "an error has rolled everything back"),
    (("-- applied: when redeemed", "-- applied: when (redeemed"), "does not parse"),
    (("-- applied: when redeemed", "-- applied: when (SELECT true)"), "names more than the answer's columns: a query"),
    (("-- applied: when redeemed", "-- applied: when c.redeemed"), "names more than the answer's columns: c.redeemed"),
    (("-- busy: when", "-- busy: used_up when"), "'used_up' is busy here and refused on line"),
    (("no_such when no row", "no_such when no row\n-- refused: when no row"), "No row means"),
    (("generate_series(1, :count) AS n RETURNING", "generate_series(1, 9) AS n RETURNING"), "does not say how many"),
    (("RETURNING code;", "RETURNING code; SELECT 1;"), "`keys:` has 2 statements below it."),
    (("-- capacity: at most 2", "-- capacity: 2"), "write `capacity: at most 1 applied per key`"),
    (("-- capacity: at most 2", "-- capacity: at most 0"), "is not a capacity"),
    (("p(95)<200", "p95<200"), ":26: The threshold 'p95<200' of duration cannot be read."),
    (("p(95)<200", "p(950)<200"), "a percentile above 100"),
    (("accepted count>0", "acepted count>0"), "asks for something that is not measured"),
    (("-- pattern: race rounds", "-- pattern: races rounds"), ":29: there is no pattern 'races'."),
    (("-- pattern: race rounds", "-- pattern: race round"), ":29: the pattern race has no setting 'round'."),
    (("rounds 40", "rounds many"), ":29: rounds is 'many', which is not a positive integer."),
    (("rounds 40 clients 6", "rounds"), "'race rounds' is not a pattern."),
    (("redeem(:'key', 'mail-'", "redeem('k', 'mail-'"), ":12: The call names no key."),
    (("|| :n)", "|| :no)"), "The call names :no, which is nothing. -> use :key, :client, :client_id, :n"),
    (("redeem(:'key'", 'redeem(:"key"'), "a variable stands for a value"),
    (("-- load: by mail", "-- load: with the app"), "Two calls are named 'with the app'."),
    (("-- never:", "-- judge: sessions\n-- never:"), "`judge:` does not belong beside `load:`."),
    (("-- never:", "-- session: ann\nSELECT 1;\n-- never:"), "`session:` does not belong beside `load:`."),
    (("SELECT redeem(:'key'", "SELEC redeem(:'key'"), "does not parse"),
    (("WHERE code < ''", "WHERE code < :'least'"), "`never:` of a load knows no variables, and names :least."),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_what_cannot_be_meant_is_said_with_its_line(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    """A typo in a heading, no keys, a condition or a threshold that does not parse: one sentence and what to do."""
    assert change[0] in WHOLE
    with pytest.raises(UsageError) as raised:
        patterns.of_contract(_contract(tmp_path, WHOLE.replace(*change, 1)), "quick", {})
    error = raised.value
    assert "coupon.race.sql" in error.what
    assert words in f"{error.what} -> {error.next_step}", error


def test_an_array_may_be_made_of_the_key(tmp_path: Path) -> None:
    """What begins like a slice is none after ARRAY; a slice stays one."""
    call = "SELECT redeem(ARRAY[:'key'], ('{1,2}'::int[])[1:2]) AS ok;"
    contract = _contract(
        tmp_path,
        f"-- scenario: s\n\n-- load:\n{call}\n\n-- keys:\nSELECT generate_series(1, :count);\n\n-- applied: when ok\n",
    )
    text = contract.function_of(contract.variants[0], 0).statement
    assert text is not None
    assert numbered(text) == (call.replace(":'key'", "$1").rstrip(";"), ("key",))


def test_lines_of_a_load_need_a_load(tmp_path: Path) -> None:
    """Beside sessions they are an error, and a file of sessions is no contract."""
    path = tmp_path / "seat.race.sql"
    path.write_text("-- scenario: x\n-- session: ann\nSELECT 1;\n-- capacity: at most 1 applied per key\n")
    with pytest.raises(UsageError, match="is of a load, and there is none"):
        reader.read(path)
    path.write_text("-- scenario: x\n-- session: ann\nSELECT 1;\n")
    with pytest.raises(UsageError, match="holds sessions, and no load"):
        loads.asked_for(Options(contract=str(path)))


@pytest.mark.parametrize(
    ("call", "plain"),
    [
        ("SELECT * FROM f(p => :'key')", True),
        ("SELECT * FROM app.f(p => :'key', q => '2030-01-01'::date) AS x", True),
        ("CALL f(p => :'key')", True),
        ("SELECT * FROM f(:'key')", False),
        ("SELECT * FROM f(p => :'key', q => now())", False),
        ("SELECT * FROM f(p => :'key', q => :n)", False),
        ("SELECT * FROM f(p => :'key') WHERE true", False),
        ("SELECT a FROM f(p => :'key')", False),
        ("SELECT f(p => :'key')", False),
        ("SELECT * FROM f(p => :'key'), g()", False),
        ("SELECT * FROM f(p => :'key', q => :'key')", False),
    ],
)
def test_a_plain_function_call_is_known_as_such(call: str, plain: bool, tmp_path: Path) -> None:
    """So PostgREST can make it; everything else is a statement that is sent as it is."""
    text = f"-- scenario: x\n-- load:\n{call};\n-- keys:\nSELECT generate_series(1, :count);\n-- applied: when ok\n"
    assert (_contract(tmp_path, text).function.statement is None) is plain
