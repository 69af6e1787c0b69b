"""Race of 10 clients: plain rounds per second, and how far apart the calls of a round start."""

from bench._support import fire, median, new, opened
from harness.load.patterns import Race
from harness.verdict import overlap

ROUNDS = 500
RUNS = 5


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
