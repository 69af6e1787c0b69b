"""The history: what clients wrote down, put together and decoded."""

from __future__ import annotations

import os
import tracemalloc
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from harness import Effect, Outcome
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.history import NEVER, WARM_UP, History, Log, LongAnswers
from harness.load.crew import Client, Crew
from harness.load.firing import Job, fire
from harness.load.patterns import Burst
from harness.targets.memory import MemoryTarget
from harness.targets.target import decoded
from tests.histories import Gate, play

ACCEPTED = Outcome("accepted", Effect.APPLIED)


class FreshAnswers:
    """Answers as the database does: a new bytes object for every value of every row."""

    alive = True

    def call(self, key: Any, variant: int) -> tuple[Outcome, Sequence[Any]]:
        return ACCEPTED, [os.urandom(8), os.urandom(16)]


def new_log() -> Log:
    arguments = [dict(variant.arguments(0)) for variant in SCAN_TICKET.variants]
    target = MemoryTarget(SCAN_TICKET, Gate())
    return Log("memory", {0: arguments}, ("scanned_at", "scanned_by"), target.decode_key, target.decode_evidence)


def write(log: Log, jobs: Iterator[Job], caller: Any = None) -> None:
    """Have the firing loop write these calls down."""
    target = MemoryTarget(SCAN_TICKET, Gate())
    client = Client(0, target, log.arguments[0])
    client.log = log
    client.caller = caller or FreshAnswers()
    fire(client, jobs, Crew(SCAN_TICKET, lambda _: target, 1, timeout=10, overlap=lambda _: False))


def test_an_operation_costs_less_than_200_bytes() -> None:
    """Everything that a call leaves in memory, its key included, is under 200 bytes."""
    calls, log = 20_000, new_log()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        write(log, ((0, os.urandom(16), 0, 0) for _ in range(calls)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(log) == calls
    assert (after - before) / calls < 200


def test_operations_come_in_order_of_their_calls_with_all_that_was_asked() -> None:
    """Whatever client made it, an operation carries its number in the whole history, its arguments and its answer."""
    made = play(Burst(3, calls=4), Gate())
    operations = made.operations()
    assert [o.number for o in operations] == list(range(12))
    assert [o.called for o in operations] == sorted(o.called for o in operations)
    assert {o.client for o in operations} == {0, 1, 2}
    assert all(set(o.arguments) == {"p_scanned_by", "p_device_id", "p_scan_method"} for o in operations)
    assert all(o.answer["scanned_by"] == o.arguments["p_scanned_by"] for o in operations)
    assert all(0 <= o.due <= o.called <= o.returned for o in operations)


def test_an_amended_call_ends_with_its_transaction() -> None:
    """A call whose transaction was held open returned when that ended, and says if it was rolled back."""
    log = new_log()
    write(log, iter([(0, uuid.UUID(int=1), 0, 1)]))
    log.amend(0, log.returned[0] + 5, rolled_back=True)
    write(log, iter([(0, uuid.UUID(int=1), 0, 1)]))
    held, plain = History([log]).operations()
    assert (held.held, held.rolled_back, held.returned) == (True, True, log.returned[0] + 5)
    assert (plain.held, plain.rolled_back, plain.returned) == (False, False, log.returned[1])


def test_a_call_in_doubt_never_returned() -> None:
    """A call without an answer may take effect at any time, so its end is never."""

    class Dying(FreshAnswers):
        alive = False

        def call(self, key: Any, variant: int) -> tuple[Outcome, Sequence[Any]]:
            return Outcome("in_doubt", Effect.IN_DOUBT, "connection_lost"), (None, None)

    log = new_log()
    write(log, iter([(0, uuid.UUID(int=1), 0, 0), (0, uuid.UUID(int=2), 0, 0)]), Dying())
    (operation,) = History([log]).operations()  # the client stops: its connection is gone
    assert operation.returned == NEVER
    assert operation.answer == {}


@pytest.mark.parametrize("unknown", [True, False])
def test_keys_that_were_never_created_are_marked(unknown: bool) -> None:
    """The judges learn from the history which keys could not be found."""
    log, key = new_log(), uuid.UUID(int=1)
    write(log, iter([(0, key, 0, WARM_UP)]))
    (one,) = History([log], 0, [key] if unknown else []).by_key()
    assert one.exists is not unknown


def test_many_calls_are_decoded_some_at_a_time_and_none_is_lost_or_split() -> None:
    """The calls of a key stay together, also where several clients made them; read at once or one key at a time."""
    keys = [uuid.UUID(int=n % 700) for n in range(4000)]  # each is called by every client, from first to last
    logs = [new_log() for _ in range(3)]
    for turn in range(40):
        for log in logs:
            write(log, ((0, key, 0, 0) for key in keys[turn * 100 : turn * 100 + 100]))
    made = History(logs)
    batches = list(made.batches())
    assert len(batches) > 5
    found = [history for batch in batches for history in batch]
    assert [history.key for history in found] == list(dict.fromkeys(keys))
    assert [o.number for history in found for o in history.operations] == [
        o.number for key in dict.fromkeys(keys) for o in made.operations() if o.key == key
    ]
    assert sorted(o for history in found for o in history.operations) == list(made.operations())


def test_a_call_whose_evidence_nobody_can_read_has_failed_for_the_figures_too() -> None:
    """The figures are taken without the answers, and yet a call that is no answer counts as failed."""
    log = new_log()
    write(log, ((0, uuid.UUID(int=n), 0, 0) for n in range(3)))
    unread = log.evidence[log.stride]  # the second call's first column

    def load(value: bytes) -> bytes:
        if value == unread:
            raise ValueError("it is no time")
        return value

    log.decode_evidence = lambda _, raw: decoded(load, raw, ValueError)
    asked_first, judged_first = History([log]), History([log])
    expected = [o.outcome for o in judged_first.operations()]
    assert [outcome.label for outcome in expected] == ["accepted", "failed", "accepted"]
    assert [call.outcome for call in asked_first.calls()] == expected


def test_long_answers_are_counted_also_where_they_are_json_that_was_read() -> None:
    """As bytes over SQL, as values through PostgREST; what is short counts for nothing."""
    log = new_log()
    kept = LongAnswers(log)
    for evidence in ([b"x" * 10**6, b"y"], [{"a": ["x" * 10**6]}, None], [["x" * 10**6], 7], [{"a": 1}, "y"]):
        log.write(0, 0, 1, 0, 1, 0, 0, ACCEPTED, evidence)
    assert 3 * 10**6 <= kept.bytes() < 3.1 * 10**6


def test_calls_that_are_put_off_keep_their_order_and_length() -> None:
    """As if a pause after them had not been."""
    log = new_log()
    for at in (3, 5):
        log.write(0, at, at + 1, at, 1, 0, 0, ACCEPTED, [None, None])
    log.put_off(10)
    assert [list(each) for each in (log.due, log.called, log.returned)] == [[13, 15], [13, 15], [14, 16]]
