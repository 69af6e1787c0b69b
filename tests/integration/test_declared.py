"""A load in a file is a contract: it finds the faults that the one in Python finds, and says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import ExitStatus, HarnessError, UsageError
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.load.patterns import Burst
from harness.options import Options
from harness.run import Harness
from harness.scenarios import loads
from harness.verdict.findings import Truth
from tests.conftest import ROOT, MakeHarness, Sandbox, loaded
from tests.integration import test_broken_functions as of_python

SHIPPED = ROOT / "harness" / "contracts" / "scan_ticket.race.sql"

NAMES = {
    "at_most_one_accepted": "at_most_applied",
    "at_least_one_accepted": "at_least_one_applied",
    "true_winner": "invariant.never_1",
    "invariant.one_log_per_accepted": "invariant.never_2",
    "invariant.no_log_without_accepted": "invariant.never_2",
    "invariant.ticket_agrees_with_log": "invariant.never_3",
    "invariant.ticket_agrees_with_winner": "invariant.never_4",
    "invariant.status_agrees_with_use": "invariant.never_3",
}
"""Findings of the Python contract that have another name in the file; a claim of either is one of the other."""

MODEL_KNOWS = {"wrong_winner"}
"""Functions whose fault the Python model sees in the answers as well: what the file says of the winner is a query."""

TRIED = {
    ("no_guard", "rescan"),
    ("event_lock", "burst"),
    ("error_escapes", "race"),
    ("wrong_winner", "rescan"),
    ("logs_and_refuses", "burst"),
    ("wrong_time", "burst"),
    ("status_stays", "burst"),
    ("conflict_is_a_scan", "race"),
}
"""Of the table of broken functions, each way to be wrong once."""


@pytest.mark.parametrize(
    ("variant", "play", "broken"),
    [(v, play, broken) for v, play, broken, _ in of_python.BROKEN if (v, play.__name__) in TRIED],
)
def test_a_broken_function_is_found_out_by_the_file_too(
    variant: str, play: of_python.Play, broken: set[str], make_harness: MakeHarness
) -> None:
    """What the Python contract calls broken of a function, the file does."""
    contract = loads.asked_for(Options(contract=str(SHIPPED)))
    verdict = play(make_harness(of_python.VARIANTS / f"{variant}.sql", contract=contract)).verdict
    wanted = {NAMES.get(name, name) for name in broken}
    if variant in MODEL_KNOWS:
        wanted -= {"linearizable"}
    assert wanted <= {finding.id for finding in verdict.broken}, verdict


@pytest.mark.parametrize("play", [of_python.race, of_python.rescan, of_python.unknown])
def test_the_shipped_function_holds_by_the_file_with_the_same_figures(
    play: of_python.Play, make_harness: MakeHarness
) -> None:
    """Every claim holds; and calls, answers and shares are counted alike, where they are not up to the race."""
    by_file = play(make_harness(contract=loads.asked_for(Options(contract=str(SHIPPED)))))
    assert by_file.verdict.held, by_file.verdict
    by_python = play(make_harness())
    mine, theirs = by_file.metrics, by_python.metrics
    assert mine.outcomes.keys() <= {"accepted", "already_scanned", "busy", "not_found"}
    assert (mine.calls, mine.outcomes.get("accepted")) == (theirs.calls, theirs.outcomes.get("accepted"))
    assert mine.checks["expected outcome"] == theirs.checks["expected outcome"]
    assert mine.rates["errors"] == theirs.rates["scan_errors"]


COUPON = """\
-- scenario: a coupon is redeemed once

-- setup
CREATE TABLE coupons (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, used_by text);

-- load:
UPDATE coupons SET used_by = :'client_id' || '/' || :n WHERE id = :'key' AND used_by IS NULL
RETURNING used_by, 7 / nullif(length(used_by), 0) AS share;

-- keys:
INSERT INTO coupons SELECT FROM generate_series(1, :count) RETURNING id;

-- applied: when used_by IS NOT NULL
-- refused: when no row
"""


@pytest.fixture(scope="module")
def coupons(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """The setup of that file, applied once."""
    path = tmp_path_factory.mktemp("load") / "coupon.race.sql"
    path.write_text(COUPON)
    with loaded(server, path) as (_, template):
        yield template


@pytest.fixture
def of(tmp_path: Path, server: EmbeddedServer, coupons: Template) -> Callable[[str], Harness]:
    """A harness on the load of a text."""

    def made(text: str) -> Harness:
        path = tmp_path / "coupon.race.sql"
        path.write_text(text)
        options = Options(contract=str(path))
        return Harness(options, loads.asked_for(options), server, coupons)

    return made


def test_plain_sql_is_put_under_load(of: Callable[[str], Harness]) -> None:
    """A statement that names its client and the number of its call holds in a race and on used keys."""
    harness = of(COUPON)
    assert harness.race(clients=4, rounds=100).verdict.held  # of twelve, eight would have to overlap
    result = harness.rescan(clients=3, calls=2)
    assert dict(result.metrics.outcomes) == {"accepted": 6, "refused": 6}
    told = [o.answer["used_by"] for o in result.history.operations() if o.outcome.label == "accepted"]
    assert len(set(told)) == 6


def test_the_example_of_the_page_holds(server: EmbeddedServer, tmp_path: Path) -> None:
    """docs/load.md shows a file that runs as it stands."""
    [text] = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "docs" / "load.md").read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "coupon.race.sql"
    path.write_text(text)
    with loaded(server, path) as (contract, template):
        result = Harness(Options(contract=str(path)), contract, server, template).race(clients=3, rounds=100)
    assert result.verdict.held, result.verdict
    assert result.metrics.outcomes.keys() == {"redeemed", "used up"}


def test_a_race_in_plain_sql_is_found_by_load_and_by_exploring(of: Callable[[str], Harness]) -> None:
    """Without its guard the statement takes a coupon twice; both ways say so."""
    harness = of(COUPON.replace(" AND used_by IS NULL", ""))
    race = harness.race(clients=4, rounds=8).verdict
    assert race["at_most_applied"].truth is Truth.BROKEN
    assert harness.explore().verdict["at_most_applied"].truth is Truth.BROKEN


UNREADABLE = [
    # (what is written in place of what, the words that a finding shows)
    (("used_by IS NOT NULL", "used_by IS NULL"), "no line of the file says what this answer means: used_by="),
    (
        ("-- refused: when no row", "-- refused: when no row\n-- busy: when share = 0"),
        "2 lines claim this answer, accepted (line 13) and busy (line 15): ",
    ),
    (("used_by IS NOT NULL", "1 / share > 0"), "division by zero (SQLSTATE 22012): share=0"),
    (("-- refused: when no row", ""), "no rows instead of one"),
]


@pytest.mark.parametrize(("change", "words"), UNREADABLE)
def test_an_answer_that_is_not_one_outcome_has_failed_and_is_shown(
    change: tuple[str, str], words: str, of: Callable[[str], Harness]
) -> None:
    """None that matches, two that match, a condition that fails: never held, and the answer stands there."""
    verdict = of(COUPON.replace(*change)).rescan(clients=2, calls=1).verdict
    shown = str(verdict["no_unhandled_error"].evidence)
    assert verdict["no_unhandled_error"].truth is Truth.BROKEN
    assert words in shown, shown


WRONG = [
    (("used_by IS NOT NULL", "usedby IS NOT NULL"), UsageError, ":13: no answer has the column 'usedby'"),
    (("used_by IS NOT NULL", "used_by > 3"), UsageError, ":13: the condition of `applied:` cannot be evaluated"),
    (("FROM generate_series(1, :count) RETURNING id", "FROM generate_series(1, :count) RETURNING 1"), HarnessError,
     "coupon.race.sql:11 returned 1 distinct key"),
    (("series(1, :count)", "series(2, :count)"), HarnessError, "coupon.race.sql:11 returned 1 distinct key"),
    (("RETURNING id;", "RETURNING id, used_by;"), HarnessError, "returned 2 columns"),
    (("INSERT INTO coupons SELECT", "INSERT INTO vouchers SELECT"), HarnessError, "failed with SQLSTATE 42P01"),
    (("UPDATE coupons", "UPDATE vouchers"), UsageError, ":7: The call of coupon cannot be prepared (SQLSTATE 42P01)"),
    (("RETURNING id;", "RETURNING nullif(id, 2);"), HarnessError, "1 of them NULL"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "words"), WRONG)
def test_what_the_server_knows_to_be_wrong_is_said_before_any_call(
    change: tuple[str, str], kind: type[HarnessError], words: str, of: Callable[[str], Harness]
) -> None:
    """A column that no answer has, keys that repeat, too few, two columns: a sentence with the line."""
    with pytest.raises(kind) as raised:
        of(COUPON.replace(*change)).run(Burst(2, None, calls=1))
    assert words in str(raised.value), raised.value


SMALL = COUPON + "-- pattern: rescan clients 2 calls 1\n"
MARKED = """\
import pytest

@pytest.mark.harness(contract="coupon.race.sql")
def test_marked(harness):
    assert harness.rescan(clients=3, calls=1).verdict.held
"""


def test_the_command_and_pytest_run_a_file(sandbox: Sandbox, server: EmbeddedServer) -> None:
    """Each ends with the verdict, repeats itself by the file's name, and `check` says what the file is.

    A marker takes it for a test of one's own, without migrations; somebody else's API does not.
    """
    folder = sandbox.tmp / "project"
    folder.mkdir()
    (folder / "coupon.race.sql").write_text(SMALL.replace(" AND used_by IS NULL", ""))
    done = sandbox.run("harness", "run", "coupon.race.sql", cwd=folder, HARNESS_SERVER=server.dsn)
    assert done.returncode == ExitStatus.BROKEN, done.stdout + done.stderr
    assert "--pattern rescan --clients 2 --calls 1" in done.stdout
    assert "--contract coupon.race.sql" in done.stdout
    done = sandbox.run("harness", "check", ".", cwd=folder, HARNESS_SERVER=server.dsn)
    assert (done.returncode, "run it: harness run coupon.race.sql" in done.stderr) == (ExitStatus.USAGE, True)
    words = ("--http-url", "http://127.0.0.1:1", "--tickets", "none.json", "--yes")
    done = sandbox.run("harness", "run", "coupon.race.sql", *words, cwd=folder)
    assert (done.returncode, "a file's conditions need a server" in done.stderr) == (ExitStatus.USAGE, True)
    (folder / "coupon.race.sql").write_text(SMALL)
    (folder / "test_it.py").write_text(MARKED)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--harness-server", server.dsn)
    done = sandbox.run("python", *words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accepted 2, refused 2" in done.stdout
    assert "accepted 3, refused 3" in done.stdout


COMMITS = """-- scenario: an account is not overdrawn

-- setup
CREATE TABLE accounts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, left_over int NOT NULL);
CREATE TABLE tried (account int);
CREATE PROCEDURE pay(account int, INOUT paid boolean DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tried VALUES (account);
    COMMIT;
    UPDATE accounts SET left_over = left_over - 1 WHERE id = account AND left_over > 0;
    paid := FOUND;
END $$;

-- load:
CALL pay(:key, NULL);

-- keys:
INSERT INTO accounts (left_over) SELECT 1 FROM generate_series(1, :count) RETURNING id;

-- applied: paid when paid
-- refused: broke when NOT paid
"""


def test_a_procedure_that_commits_is_called_outside_of_a_transaction(server: EmbeddedServer, tmp_path: Path) -> None:
    """By a statement of the file, in a race and where its orders are tried; without its guard it is found out."""
    for text, truth in (COMMITS, Truth.HELD), (COMMITS.replace(" AND left_over > 0", ""), Truth.BROKEN):
        file = tmp_path / "pay.race.sql"
        file.write_text(text)
        with loaded(server, file) as (contract, template):
            harness = Harness(Options(contract=str(file)), contract, server, template)
            explored = harness.explore(edges=False)
            assert explored.verdict.truth is truth, explored.verdict
            assert harness.race(clients=4, rounds=20).verdict.truth is truth
