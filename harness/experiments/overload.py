"""Overload: more clients than PostgREST has connections to the database, and what becomes of the calls it turns away.

A request that finds no connection within the pool's time limit is answered with 504 PGRST003. It must have had no
effect, and the calls that did get through must be as right as ever; the database is asked about both.
"""

from __future__ import annotations

from contextlib import closing

from harness.conduct import Fired, Load, Told, conduct, judge, record_of, what_was_lost
from harness.contracts.contract import Effect
from harness.errors import UsageError
from harness.load.race import Race
from harness.records import RunRecord
from harness.run import Harness
from harness.targets import state
from harness.targets.http_serving import HttpOptions, open_http

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
    plan = {"clients": clients, "rounds": rounds, "pool_timeout": options.pool_timeout}
    repeat = harness.command("overload", *(f"--{name.replace('_', '-')}={value:g}" for name, value in plan.items()))

    with (
        harness.template.checkout() as database,
        database.connect() as connection,
        closing(open_http(harness.server, database, contract, options)) as target,
    ):

        def keep(fired: Fired) -> RunRecord:
            asked, lost = None, None
            if not fired.interrupted:
                lost = what_was_lost(fired, database.dsn)
                again = lost.again if lost else database.connect
                asked = state.ask(harness.invariants, fired.history.stream(), again)
            judged = judge(fired, asked, harness.invariants, with_thresholds=False)
            calls = list(fired.history.calls())
            turned_away = sum(call.outcome.code == EXHAUSTED for call in calls)
            through = len(calls) - turned_away - sum(call.outcome.effect is Effect.IN_DOUBT for call in calls)
            note = (
                f"{clients} clients on a pool of {options.pool}: {through} calls got through, "
                f"{turned_away} were turned away with 504 {EXHAUSTED} after waiting {options.pool_timeout:g} s for a "
                "connection"
            )
            told = Told(
                repeat,
                {"pool": options.pool, "pool_timeout": options.pool_timeout},
                (note,),
                lost,
                {"http": target.details(), "turned_away": turned_away},
            )
            return harness.keep(record_of(fired, judged, told, kind="overload"))

        load = Load(race, contract, (target,), harness.options.timeout, connect=database.connect)
        return conduct(load, harness.keys(connection), keep)
