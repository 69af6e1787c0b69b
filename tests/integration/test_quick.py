"""The quick profile is quick whatever the function does, and says what it could not find out in that time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Contract, Effect, Function, UpTo, Variant
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.load import crew
from harness.load.patterns import Burst, Race
from harness.load.race import PROOF
from harness.options import Options
from harness.run import Harness, Result
from harness.verdict.findings import Truth
from tests.conftest import loaded

_BODIES = {
    "two_locks": """
        PERFORM FROM sides WHERE stall = p_stall AND side = p_side FOR UPDATE;
        PERFORM FROM sides WHERE stall = p_stall AND side = 1 - p_side FOR UPDATE;""",
    "raises": "RAISE EXCEPTION 'closed';",
    "slow": "PERFORM pg_sleep(0.2);",
    "hangs": "PERFORM pg_sleep(60);",
    "ends_itself": "PERFORM pg_terminate_backend(pg_backend_pid());",
}
_STALLS = """
CREATE TABLE stalls (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), rented boolean NOT NULL DEFAULT false);
CREATE TABLE sides (stall uuid REFERENCES stalls, side integer, PRIMARY KEY (stall, side));
CREATE SCHEMA harness;
CREATE FUNCTION harness.new_stalls(count integer) RETURNS SETOF uuid LANGUAGE sql AS $$
    WITH made AS (INSERT INTO stalls SELECT FROM generate_series(1, count) RETURNING id),
         pairs AS (INSERT INTO sides SELECT id, side FROM made, generate_series(0, 1) AS side)
    SELECT id FROM made $$;
"""
_RENT = """
CREATE FUNCTION {name}(p_stall uuid, p_side integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    {body}
    UPDATE stalls SET rented = true WHERE id = p_stall AND NOT rented;
    RETURN FOUND;
END $$;
"""
_LETTERS = """
-- scenario: a letter is sent once

-- setup
CREATE TABLE letters (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sent boolean NOT NULL DEFAULT false);
CREATE FUNCTION send(p int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.01);
    UPDATE letters SET sent = true WHERE id = p AND NOT sent;
    RETURN jsonb_build_object('sent', FOUND, 'text', repeat('é', 50000), 'at', clock_timestamp());
END $$;

-- load:
SELECT send(:'key'), repeat('x', 20000) AS copy;

-- keys:
INSERT INTO letters SELECT FROM generate_series(1, :count) RETURNING id;

-- applied: sent when (send ->> 'sent')::boolean
-- refused: gone when NOT (send ->> 'sent')::boolean
"""


@pytest.fixture(scope="module")
def stalls(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Harness]]:
    """A harness for the function of that name."""
    file: Path = tmp_path_factory.mktemp("stalls") / "stalls.sql"
    file.write_text(_STALLS + "".join(_RENT.format(name=name, body=body) for name, body in _BODIES.items()))
    with Template(server, [file], []) as template:

        def make(name: str) -> Harness:
            contract = Contract(
                name=name,
                function=Function(name, key="p_stall"),
                new_keys="harness.new_stalls",
                variants=(Variant("both sides", lambda client: {"p_side": client % 2}),),
                classify=lambda row: "accepted" if row[name] else "refused",
                model=UpTo(1),
                missing="refused",
            )
            return Harness(Options(), contract, server, template)

        yield make


def notes(result: Result) -> str:
    return "; ".join(result.record.notes)


def test_two_locks_in_two_orders_meet_in_every_race(stalls: Callable[[str], Harness]) -> None:
    """Backends run side by side, on whatever processors there are, so that the deadlock does not depend on luck; and
    ten rounds of it are enough."""
    result = stalls("two_locks").run(Race(4, 100, limit=20.0))
    finding = result.verdict["no_deadlock"]
    assert finding.truth is Truth.BROKEN
    made = max(o.phase for o in result.history.operations())
    assert PROOF <= made < 100
    assert f"{made} of 100 rounds were made, then calls had failed in {PROOF} of them" in notes(result)


def test_calls_that_always_fail_need_no_hundred_rounds(stalls: Callable[[str], Harness]) -> None:
    """Where each round fails, as many are made as are proof; a race that was asked for by its rounds makes them all."""
    harness = stalls("raises")
    assert max(o.phase for o in harness.run(Race(4, 40, limit=20.0)).history.operations()) == PROOF
    assert max(o.phase for o in harness.run(Race(4, 20)).history.operations()) == 20


def test_a_race_of_few_rounds_says_nothing(stalls: Callable[[str], Harness]) -> None:
    """Calls so slow that the time is over after some rounds are right as far as they were seen, and not held."""
    result = stalls("slow").run(Race(4, 100, limit=0.5, overtime=20.0))
    finding = result.verdict["race_overlapped"]
    assert (result.verdict.truth, finding.truth) == (Truth.UNDECIDED, Truth.UNDECIDED)
    assert "Make more rounds, with --rounds 100 or so" in finding.remedy
    assert "rounds were made, then 0.5 s were over" in notes(result)


def test_calls_without_an_answer_when_the_time_is_over_are_given_up(stalls: Callable[[str], Harness]) -> None:
    """A pattern ends at its time, and what it waited for is in doubt: neither held nor the function's fault."""
    result = stalls("hangs").run(Burst(3, duration=0.2, overtime=0.2))
    outcomes = [o.outcome for o in result.history.operations() if o.phase == 0]
    assert {(each.effect, each.code) for each in outcomes} == {(Effect.IN_DOUBT, "out_of_time")}
    assert len(outcomes) == 3
    assert result.verdict.truth is Truth.UNDECIDED
    assert "in doubt: 3 calls without an answer when the time was over, 0.4 s after the start" in notes(result)


def test_a_function_that_ends_its_own_backend_is_undecided(stalls: Callable[[str], Harness]) -> None:
    """No answer came, and the finding repeats what came in its place and names the two causes there may be."""
    result = stalls("ends_itself").run(Race(3, 10))
    finding = result.verdict["no_unhandled_error"]
    assert (result.verdict.truth, finding.truth) == (Truth.UNDECIDED, Truth.UNDECIDED)
    assert re.search(
        r"lost to the environment \((terminating connection|.*server closed the connection)", finding.observed
    )
    assert "a function that ends its own backend looks the same" in finding.remedy


def test_answers_that_would_take_the_memory_end_a_pattern(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more are made than may be kept; what was made is judged, and JSON that decides is read by the server."""
    monkeypatch.setattr(crew, "MOST_KEPT", 2**20)
    file = tmp_path / "letter.race.sql"
    file.write_text(_LETTERS)
    with loaded(server, file) as (contract, template):
        for pattern in (Burst(3, duration=20.0), Race(3, 60, limit=20.0)):
            result = Harness(Options(), contract, server, template).run(pattern)
            assert not result.verdict.broken, result.verdict
            assert "it ended before its time, when the calls' answers had filled" in notes(result)
            assert {o.outcome.label for o in result.history.operations()} <= {"sent", "gone"}
