"""Schedules: every interleaving of concurrent calls, statement by statement inside the function.

`explore` is the door. Inside, from the ground up: access (what SQL touches), steps (text to steps), rewrite (the
database's copy), trace (what happened), control (one schedule), the schedulers (which schedules), judging, narrate, and
the engine, which joins them.
"""

from harness.schedules.engine import MOST_CALLS, SEARCHES, Plan, explore
from harness.schedules.result import Called, Case, Exploration, Move, Schedule

__all__ = ["MOST_CALLS", "SEARCHES", "Called", "Case", "Exploration", "Move", "Plan", "Schedule", "explore"]
