"""The next schedule is begun while one is under way: what comes of both is what comes of one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Contract, contracts
from harness.contracts import invariants
from harness.environment.database import Template
from harness.environment.servers import Server
from harness.schedules import Exploration, Plan, explore
from harness.schedules.judging import Judge
from harness.schedules.relaying import Relay, Relays
from harness.schedules.search import Search
from harness.verdict.findings import Truth
from tests.generated import keyed

SCAN: Contract = contracts.load("scan_ticket")

OFTEN = """
CREATE SEQUENCE often;
ALTER FUNCTION scan_ticket_atomic(uuid, uuid, text, text) RENAME TO scan_whole;
CREATE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr')
RETURNS TABLE (
    success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('often') % {every} < 2 THEN
        {act}
    END IF;
    RETURN QUERY SELECT * FROM scan_whole(p_ticket_id, p_scanned_by, p_device_id, p_scan_method);
END $$;
"""
"""Does something more in two calls of so many, whatever the schedule: that cannot be foreseen."""

ACCOUNTED = invariants.Invariant(
    "every_scan_is_accounted_for",
    "Every scan in the log is a call's that is known.",
    "SELECT ticket_id FROM scan_logs WHERE device_id IS NOT NULL AND ticket_id::text NOT IN "
    "(SELECT key FROM harness.operations WHERE label = 'accepted')",
    Path(__file__),
    1,
)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many relays were begun behind another, and how many of them in vain."""
    seen: Counter[str] = Counter()
    begin, abandoned = Relays.begin, Relays.abandoned

    def begun(self: Relays, programs: Any, order: Any, behind: Relay | None = None) -> Relay | None:
        made = begin(self, programs, order, behind)
        seen["ahead"] += behind is not None and made is not None
        return made

    def dropped(self: Relays, relay: Relay) -> Any:
        seen["in vain"] += 1
        return abandoned(self, relay)

    monkeypatch.setattr(Relays, "begin", begun)
    monkeypatch.setattr(Relays, "abandoned", dropped)
    return seen


def explored(template: Template, sql: str = "", **plan: Any) -> Exploration:
    wanted: dict[str, Any] = {"variants": ("own scanner, qr",), "keys": (2,), "reduction": False} | plan
    with template.clone() as database:
        if sql:
            with database.connect() as connection:
                connection.execute(sql.encode())
        return explore(database.dsn, SCAN, Plan(**wanted), (*invariants.load((), SCAN), ACCOUNTED))


def endings(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """How every schedule that is judged ended, by its text."""
    found: dict[str, list[str]] = {}
    take = Judge.take

    def noted(self: Judge, carried: Any) -> None:
        found[carried.replay] = [f"{o.client} {o.outcome.label} {o.called} {o.returned}" for o in carried.operations]
        take(self, carried)

    monkeypatch.setattr(Judge, "take", noted)
    return found


@pytest.mark.parametrize("plan", [{}, {"keys": (1, 2), "reduction": True}, {"calls": 3, "max_schedules": 300}], ids=str)
def test_every_schedule_ends_as_one_after_the_other(
    template: Template, looked: Counter[str], monkeypatch: pytest.MonkeyPatch, plan: dict[str, Any]
) -> None:
    """The same schedules, each with the same answers at the same positions."""
    with monkeypatch.context() as patched:
        ahead = endings(patched)
        one = explored(template, **plan)
    assert looked["ahead"] > 10
    with monkeypatch.context() as patched:
        alone = endings(patched)
        patched.setattr(Search, "_may_begin", lambda *_: False)
        looked.clear()
        other = explored(template, **plan)
    assert not looked["ahead"]
    assert ahead == alone
    assert (one.schedules, one.before_reduction, one.exhausted) == (
        other.schedules,
        other.before_reduction,
        other.exhausted,
    )


@pytest.fixture(scope="module")
def on(server: Server) -> Iterator[keyed.KeyedComparer]:
    with keyed.comparer(server.dsn) as made:
        yield made


def test_functions_that_nobody_wrote_end_as_choice_by_choice(on: keyed.KeyedComparer) -> None:
    """20 functions from a fixed seed, on fresh keys: every schedule has the same answers and leaves the same rows."""
    compared = number = ahead = 0
    while compared < 20:
        number += 1
        found = on.compared(keyed.drawn(f"ci.{number}", (1, 2)), most=40)
        if found is None:
            continue
        assert not found.differing, found.case.script()
        compared += 1
        ahead += found.begun_ahead
    assert ahead > 50


def test_foresight_that_is_believed_is_caught(on: keyed.KeyedComparer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a schedule is taken to have gone as was foreseen, whatever came of it, one ends otherwise soon."""
    collect = Relays.collect

    def believing(self: Relays, relay: Relay) -> Any:
        events, answers = collect(self, relay)
        return relay.foreseen or events, answers

    monkeypatch.setattr(Relays, "collect", believing)
    assert any(
        found.differing
        for number in range(40)
        if (found := on.compared(keyed.drawn(f"ci.{number}", (1, 2)), most=40)) is not None
    )


def test_nearly_every_schedule_is_begun_ahead(template: Template, looked: Counter[str]) -> None:
    """Of 70 schedules of calls that never meet, but for those that come first and those that are repeated."""
    found = explored(template)
    assert found.schedules == 70
    assert looked["ahead"] >= 55
    assert not looked["in vain"]


@pytest.mark.parametrize(
    "act", ["PERFORM count(*) FROM events;", "UPDATE events SET name = name;"], ids=["reads more", "waits"]
)
def test_what_was_begun_in_vain_is_known_to_the_invariants(template: Template, looked: Counter[str], act: str) -> None:
    """A function that now and then does more is foreseen wrongly: every call that was made all the same is counted."""
    found = explored(template, OFTEN.format(every=9, act=act), max_schedules=60)
    assert looked["in vain"]
    wrong = [f for f in found.findings if f.truth is Truth.BROKEN]
    assert not wrong, wrong


def test_what_was_begun_in_vain_late_is_forgotten_in_time(template: Template, looked: Counter[str]) -> None:
    """What sessions are made to forget after it has as long as every schedule, whenever the search began."""
    found = explored(template, OFTEN.format(every=41, act="PERFORM count(*) FROM events;"), schedule_seconds=0.4)
    assert looked["in vain"]
    assert found.timeouts == ()


def test_a_call_that_nobody_knows_of_would_be_found(
    template: Template, looked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what was begun in vain is told to nobody, the invariants object to rows that no call accounts for."""
    monkeypatch.setattr(Search, "_drop", _dropped_silently)
    found = explored(template, OFTEN.format(every=9, act="PERFORM count(*) FROM events;"), max_schedules=60)
    assert looked["in vain"]
    assert any(f.truth is Truth.BROKEN for f in found.findings)


def _dropped_silently(self: Search) -> None:
    begun, self._following = self._following, None
    if begun is not None and begun.relay is not None:
        self.controller.relays.abandoned(begun.relay)
