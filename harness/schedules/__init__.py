"""Schedules: every interleaving of concurrent calls or sessions, statement by statement inside functions too.

`explore` (a contract's calls) and `explore_sessions` (anybody's statements) are the doors. Inside, from the ground up:
access (what SQL touches), steps (text to steps), rewrite (the database's copy), trace (what happened), measure (what
the server saw), program (what a session sends), control (one schedule), the schedulers (which schedules), search (all
of them), judging, narrate, and the two engines, which join them.
"""

from harness.schedules.engine import Progress, cases_of, explore
from harness.schedules.plan import MOST_CALLS, SEARCHES, Plan
from harness.schedules.program import Session, Statement, StatementAnswer
from harness.schedules.result import Called, Case, Exploration, Move, Schedule, gone_on, joined, settled
from harness.schedules.sessions import SessionsExplored, SessionsRun, explore_sessions

__all__ = [
    "MOST_CALLS",
    "SEARCHES",
    "Called",
    "Case",
    "Exploration",
    "Move",
    "Plan",
    "Progress",
    "Schedule",
    "Session",
    "SessionsExplored",
    "SessionsRun",
    "Statement",
    "StatementAnswer",
    "cases_of",
    "explore",
    "explore_sessions",
    "gone_on",
    "joined",
    "settled",
]
