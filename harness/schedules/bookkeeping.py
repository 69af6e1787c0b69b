"""The bookkeeping of a schedule: which step a session does, what that touched, and what its transaction has written.

What a step touched is told by its text and measured by the server (measure.py), as the session says at its next stop.
"""

from __future__ import annotations

from collections.abc import Hashable

from harness.schedules.knowledge import Knowledge
from harness.schedules.measure import Keeps
from harness.schedules.program import NOTHING
from harness.schedules.standing import Call
from harness.schedules.ways import Done
from harness.sqltext.access import ADVISORY_LOCKS, SNAPSHOTS, Access


class Bookkeeping:
    """Of all sessions of a controller, into what is known of steps."""

    def __init__(self, known: Knowledge) -> None:
        self._known = known
        self._rewritten = known.rewritten
        self.level = "read committed"
        """The strongest level that a transaction of a session may have: what commutes depends on it."""

    def done(self, call: Call) -> Done:
        """What a session did in a choice, beside the event."""
        certain = call.key not in self._known.exceeding and self._rewritten.read_in_full(call.text)
        return Done(tuple(call.passed), call.key, certain, self._known.version, frozenset(call.keeps))

    def begin_step(self, call: Call, at: int, text: Access, key: Hashable = None) -> None:
        """A session goes on with a step, of which `text` is what is known beforehand."""
        call.at = call.acted_at = at
        if not call.has_snapshot and self.level != "read committed":
            call.has_snapshot = True
            call.touched |= Access(reads=frozenset({SNAPSHOTS}))
        call.key, call.text, call.open = at if key is None else key, text, True

    def measured(self, call: Call, raw: str) -> None:
        """The step that a session does has come to its end, or to another step inside of it."""
        found, _, kept = self._known.between(call.reading, raw)
        call.keeps |= kept
        call.reading = raw
        if call.open:
            call.open = False
            self.touch(call, self._known.learn(call.key, call.text, found))
            if isinstance(call.key, int) and (step := self._rewritten.steps[call.key]).ends and not step.final:
                call.written = NOTHING  # committed, or rolled back
                call.finished, call.has_snapshot = True, False

    def unmeasured(self, call: Call) -> Access:
        """What the step touches that a session does, where it waits, or failed."""
        access = self._known.unmeasured(call.key, call.text)
        call.written |= access
        return access

    def touch(self, call: Call, access: Access) -> None:
        """Its step has touched that: a part of the choice, and of what its transaction has written."""
        call.touched |= access
        call.written |= access
        # What is measured without the locks shows neither of these, but the text does.
        if ADVISORY_LOCKS in access.writes:
            call.keeps.add(Keeps.LOCKS)
        if not access.writes.isdisjoint(self._rewritten.sequences):
            call.keeps.add(Keeps.SEQUENCES)

    def transaction_ended(self, call: Call) -> None:
        """Its transaction is over: what it wrote is committed or gone, and nothing is counted any more."""
        call.written = NOTHING
        call.finished, call.has_snapshot = True, False
        call.impatient = call.always_impatient
        call.reading = ""  # the server was told to put its counters away
        call.open = False

    def executes(self, call: Call, text: str) -> None:
        """A text that was put together is about to be carried out by the step that a session does."""
        call.text |= self._known.executes(call.key, text)

    def measured_nothing(self, call: Call) -> None:
        """The step that a session does has come to its end, and touched what it always did."""
        call.open = False
        self.touch(call, self._known.learn(call.key, call.text, NOTHING))
