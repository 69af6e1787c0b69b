"""Exploring a scenario: its sessions as programs of the explorer, and the judge of each schedule."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.checking.world import World
from harness.scenarios.acting import keep
from harness.scenarios.scenario import Session
from harness.scenarios.telling import Result
from harness.scenarios.variables import has_variables, substituted, substituted_by_any
from harness.verdict.findings import Truth
from harness.verdict.observed import Answer, Unit

if TYPE_CHECKING:
    from harness import schedules
    from harness.schedules import SessionsExplored, SessionsRun, StatementAnswer
    from harness.schedules.program import Text

SECONDS = 20.0
"""For the orders of one scenario."""

MOST_SESSIONS = 4
"""Sessions of which every order is tried; with more there are too many."""

_KEEPS_LOCKS = re.compile(r"\bpg_(?:try_)?advisory_lock", re.IGNORECASE)
"""Advisory locks that outlast their transaction."""

_KEEPS_SETTINGS = re.compile(
    r"(?:^|;|\bbegin\b|\bthen\b|\belse\b|\bloop\b)\s*(?:set\s+(?!local\b|transaction\b|constraints\b)|reset\b|listen\b|prepare\b)"
    r"|\bset_config\b|\bwith\s+hold\b",
    re.IGNORECASE,
)
"""What a backend keeps from one transaction to the next: settings, roles, channels, prepared statements, cursors."""


class Exploring:
    """Every order of the statements of one scenario's sessions, and of those inside the functions that they call."""

    def __init__(
        self, world: World, judged: Callable[..., Result], *, seconds: float, replay: str, reduction: bool
    ) -> None:
        """`judged` judges what is in the database when a schedule is over."""
        self.world = world
        self.judged = judged
        self.seconds = seconds
        self.replay = replay
        self.reduction = reduction
        self.schedules = 0
        self.exhausted = False
        self.explored: SessionsExplored | None = None

    def run(self, command: str) -> None:
        """Every order of the statements of the sessions, and of those inside the functions that they call."""
        from harness.schedules import Plan, explore_sessions

        assert self.world.baseline is not None
        for actor in self.world.actors:  # a session of ours must not keep what another waits for
            actor.close()
        rewritten = False

        def restore() -> None:
            nonlocal rewritten
            assert self.world.baseline is not None
            if not rewritten:
                rewritten = True
                self.world.baseline.accept_catalogue()
            self.world.baseline.restore()

        plan = Plan(
            len(self.world.sessions),
            seconds=self.seconds,
            replay=self.replay or None,
            schedule_seconds=self.world.options.timeout,
            reduction=self.reduction,
            command=command,
        )
        found = explore_sessions(
            self.world.dsn(""),
            [self._program(s) for s in self.world.sessions],
            plan,
            restore=restore,
            judge=self._scheduled,
            together=self.world.template.together(),
        )
        self.world.baseline.accept_catalogue()
        self.explored = found
        self.schedules, self.exhausted = found.schedules, found.exhausted

    def _program(self, session: Session) -> schedules.Session:
        """A session as the explorer takes it."""
        from harness.environment.identity import Identity
        from harness.schedules import Session
        from harness.schedules import Statement as Step

        wanted = replace(session.identity, isolation=session.isolation or None)
        identity = None if wanted == Identity() else wanted.statements(self.world.control)
        statements = tuple(
            Step(self._text(session, at), s.line, substituted_by_any(s.text), s.text)
            for at, s in enumerate(session.statements)
        )
        retry = session.retry
        return Session(
            session.name,
            statements,
            begin="BEGIN" if identity is None else identity.begin,
            local="" if identity is None else "; ".join(t for t in (identity.set_transaction, identity.local) if t),
            outside="" if identity is None else identity.session,
            after="" if identity is None else identity.reset,
            isolation=session.isolation,
            retry=frozenset() if retry is None else retry.codes,
            retry_session=retry is not None and retry.session,
            retries=0 if retry is None else retry.times,
            stop_on_error=session.stop_on_error,
            leaves_locks=any(_KEEPS_LOCKS.search(text) for text in self.world.reach.texts),
            leaves_settings=any(_KEEPS_SETTINGS.search(text) for text in self.world.reach.texts),
        )

    def _text(self, session: Session, at: int) -> Text:
        """A statement's text; where it depends on what was answered before, a function of that."""
        text = session.statements[at].text
        if not has_variables(text) or not any(s.then.startswith("gset") for s in session.statements[:at]):
            return substituted(text, session.variables)

        def of(answers: Sequence[StatementAnswer]) -> str:
            variables = session.variables
            for statement, answer in zip(session.statements, answers, strict=False):
                keep(variables, statement.then, answer.columns, answer.rows)
            return substituted(text, variables)

        return of

    def _scheduled(self, run: SessionsRun) -> list[str]:
        """Judge one schedule; the names of what is wrong with it."""
        answers: dict[Unit, tuple[Answer, ...]] = {}
        for place, given in enumerate(run.answers):
            ordered = self.world.actors[place].ordered
            answers[place, -1] = tuple(
                Answer(a.columns, a.types, a.rows, a.command, a.code, a.message, ordered[at])
                for at, a in enumerate(given)
            )
        used_up = frozenset((place, -1) for place in run.used_up)
        self.world.retried[run.replay] = sum(max((a.tries - 1 for a in given), default=0) for given in run.answers)
        result = self.judged(answers, "explore", used_up=used_up)
        result.replays[run.replay] = None
        truth = result.judgement.truth
        names = [] if truth is Truth.HELD else ["one_after_another" if truth is Truth.BROKEN else "undecided"]
        return names + [f"{self.world.scenario.conditions[place].kind}_{place + 1}" for place in result.violated]
