"""Race of 10 clients: plain rounds per second, and how far apart the calls of a round start.

Each backend has a processor of its own, as far as there are any, which costs rounds: what it is for shows where two
locks are taken in two orders. Left to the scheduler, which queues all of them on one processor, one call is over before
the next one moves, and they do not meet.
"""

from collections.abc import Callable
from pathlib import Path

from bench._support import fire, median, new, opened
from harness.load.patterns import Race
from harness.run import Harness
from harness.verdict import overlap

ROUNDS = 500
RUNS = 5
IN_TWO_ORDERS = 40
"""Rounds."""

TWO_ORDERS = Path(__file__).with_name("two_orders.sql").read_text()


def main() -> None:
    with opened() as found:
        rates, spreads, shares = [], [], []
        for _ in range(RUNS):
            with found.template.clone() as database:
                plan, keys = Race(10, ROUNDS, mixed=False), new(database, ROUNDS)
                crew, seconds, _ = fire(database, plan, keys, run_beside=found.server.run_beside)
                measured = overlap.measure(crew.history(()).operations(), crew.spans())
            assert measured is not None
            rates.append(ROUNDS / seconds)
            spreads.append(measured.spread_p50_us)
            shares.append(measured.overlapped / ROUNDS)
            print(f"{rates[-1]:5.0f} rounds/s, starts within {spreads[-1]:4.0f} us (p50), {shares[-1]:.0%} overlapped")
        print(f"rounds/s: {median(rates):.0f} (median of {RUNS}; at least 300)")
        print(f"start spread p50: {median(spreads):.0f} us (median of {RUNS}; at most 350)")
        beside = median([deadlocks(found, found.server.run_beside) for _ in range(RUNS)])
        alone = median([deadlocks(found, None) for _ in range(RUNS)])
        print(f"two locks in two orders: a deadlock in {beside:.0%} of the rounds", end="; ")
        print(f"{alone:.0%} where the scheduler places the backends (median of {RUNS})")


def deadlocks(found: Harness, run_beside: Callable[[int, int], None] | None) -> float:
    """The share of the rounds in which their locks met."""
    with found.template.clone() as database:
        with database.connect() as connection:
            connection.execute(TWO_ORDERS.encode())
        plan, keys = Race(10, IN_TWO_ORDERS, mixed=False), new(database, IN_TWO_ORDERS)
        crew, _, _ = fire(database, plan, keys, run_beside=run_beside)
    met = {
        phase
        for log in crew.logs
        for phase, outcome in zip(log.phases, log.outcomes, strict=True)
        if outcome.code == "40P01"
    }
    return len(met) / IN_TWO_ORDERS


if __name__ == "__main__":
    main()
