"""Overload: more clients than PostgREST has connections to the database, and what becomes of the calls it turns away.

A request that finds no connection within the pool's time limit is answered with 504 PGRST003. It must have had no
effect, and the calls that did get through must be as right as ever; the database is asked about both.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

from harness.errors import UsageError
from harness.load.crew import Crew
from harness.load.pattern import LATE, Keys
from harness.load.race import Race
from harness.records import RunRecord
from harness.run import Harness
from harness.targets.http import HttpOptions, open_http
from harness.verdict import invariants, overlap
from harness.verdict.judge import judge_history
from harness.verdict.metrics import measure

EXHAUSTED = "PGRST003"


def overload(harness: Harness, options: HttpOptions, *, clients: int = 50, rounds: int = 30) -> RunRecord:
    """Race many clients through a small pool on one fresh database; the record is kept in `harness.runs` as well.

    Raises UsageError when there are not more clients than connections in the pool.
    """
    if clients <= options.pool:
        raise UsageError(
            f"{clients} clients do not overload a pool of {options.pool}.",
            next_step="give more clients, or a smaller pool",
        )
    race, contract = Race(clients, rounds), harness.contract
    with (
        harness.template.lent() as database,
        closing(open_http(harness.server, database, contract, options)) as target,
    ):
        crew = Crew(contract, lambda _: target, clients, timeout=harness.options.timeout, overlap=race.overlap)
        try:
            with database.connect() as connection:
                crew.open(harness.new_keys(connection, clients))
                keys = Keys(harness.new_keys(connection, race.fresh_keys(None)))
            crew.fire(race, keys)
        finally:
            crew.close()
        history = crew.history(())
        metrics = measure(history, contract, race.expected(contract), LATE)
        measured = overlap.measure(history.operations(), crew.spans(), contract.capacity)
        asked = invariants.ask(harness.invariants, history.operations(), database.connect)
        findings = [
            *judge_history(history, contract),
            *([] if measured is None else [overlap.judge(measured)]),
            *asked(),
        ]
        details = target.details()
    turned_away = sum(o.outcome.code == EXHAUSTED for o in history.operations())
    note = (
        f"{clients} clients on a pool of {options.pool}: {len(history) - turned_away} calls got through, {turned_away} "
        f"were turned away with 504 {EXHAUSTED} after waiting {options.pool_timeout:g} s for a connection"
    )
    record = RunRecord(
        kind="overload",
        target=target.name,
        plan=asdict(race) | {"pool": options.pool, "pool_timeout": options.pool_timeout},
        metrics=metrics,
        overlap=measured,
        findings=tuple(findings),
        notes=(note,),
        details={"http": details, "turned_away": turned_away},
    )
    return harness.keep(record)
