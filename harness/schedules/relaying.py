"""Carrying out relays: a schedule is handed to the server whole, and what its sessions tell is gone through (relay.py).

Two may be under way. The second takes for granted that the first goes as is foreseen; where it does not, the second was
begun in vain: what it committed is told, and nothing else comes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from harness.schedules import relay as handed
from harness.schedules.bookkeeping import Bookkeeping
from harness.schedules.connections import Connections
from harness.schedules.knowledge import Knowledge
from harness.schedules.measure import Keeps
from harness.schedules.program import NOTHING, Does, Program
from harness.schedules.relay import LETTING_GO, Message, Pipelines, Sent, Told
from harness.schedules.standing import Call, Ending, Mode
from harness.schedules.trace import Choice, Event, Happening, top
from harness.schedules.ways import Foresight, Order, State, Way, Ways, start

_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)

_DRAINED_WITHIN = 5.0
"""Seconds in which all calls of a relay must end that is given up."""


class _UnfitError(Exception):
    """What the sessions of a relay told cannot be gone through."""


@dataclass(frozen=True, slots=True, eq=False)
class Relay:
    """A schedule that was handed to the server whole."""

    programs: Sequence[Program]
    order: Order
    told: Sequence[Told]
    """By session."""
    foreseen: tuple[Event, ...] | None
    """What it comes to, if all goes as is foreseen; None: not all of that is known."""
    end: tuple[int, int]
    """Who opens which gate at its end."""


class Relays:
    """Those of a controller's sessions."""

    def __init__(
        self,
        connections: Connections,
        known: Knowledge,
        books: Bookkeeping,
        ways: Ways,
        make_ready: Callable[[Sequence[Program]], None],
        seconds: float,
    ) -> None:
        """`make_ready` has the sessions forget what they keep of the last schedule; a relay may take `seconds`."""
        self._connections = connections
        self._known = known
        self._books = books
        self._ways = ways
        self._make_ready = make_ready
        self._seconds = seconds
        self._deadline = 0.0
        self._turn = 0
        """Number of the last relay."""
        self._pipelines = Pipelines()
        self._under_way: list[Relay] = []
        """Those that were begun and not collected: two at most."""
        self.wanted = True
        """Not where something may come to a session that is its controller's to do."""
        self.possible = connections.tells_waits and connections.counts_calls
        # Who looks at locks should meet those of the turnstiles only, told from others when they are met.
        self.possible &= connections.isolation == "read committed" and not known.rewritten.sees_locks

    def foresight(self, programs: Sequence[Program]) -> Foresight | None:
        """What may be foreseen of a schedule of these programs; None where nobody may be sent all that it does."""
        if not self.possible or not self.wanted or None in map(self._pipelines.of, programs):
            return None
        return Foresight(self._ways, start(self._ways, programs))

    def begin(self, programs: Sequence[Program], order: Order, behind: Relay | None = None) -> Relay | None:
        """Hand a schedule to the server, by a plan of whose turn it is; None where that cannot be done.

        `behind` another, which is still under way, and of which nothing may be left for the sessions to forget.
        """
        foreseen = self._foreseen(order)
        if behind is not None and (foreseen is None or self._forgets(programs, behind.order)):
            return None
        turns = [
            (leg.call, leg.way.passed, leg.way.own[-1][2]) if leg.way is not None else (leg.call, (), None)
            for leg in order
        ]
        made = handed.scripts(
            turns,
            self._turn + 1,
            [call.gates for call in self._connections.calls],
            None if behind is None else behind.end,
        )
        if made is None:
            return None
        scripts, end = made
        if behind is None:
            self._deadline = time.monotonic() + self._seconds
            self._make_ready(programs)
        lacking = [
            call.gates.missing(self._turn + 1, len(script.opens))
            for call, script in zip(self._connections.calls, scripts, strict=True)
        ]
        if any(lacking):
            if behind is not None:
                return None
            for call, gates in zip(self._connections.calls, lacking, strict=True):
                self._post(call, handed.shutting(gates))
                call.gates.held.update(gates)
            self._drain(None)
        self._turn += 1
        told = []
        for call, program, script in zip(self._connections.calls, programs, scripts, strict=True):
            mine = [leg.way for leg in order if leg.call == call.number]
            measures = any(way is None or not way.certain or way.key in self._known.exceeding for way in mine)
            fails = any(way is None or way.fails for way in mine)
            told.append(Told(script.foreseen, script.opens, measures))
            again = call.gates.again(self._turn)
            text = f"{'measure' if measures else '-'} {script.text}"
            pipeline = self._pipelines.of(program)
            assert pipeline is not None
            self._post(call, handed.entering(text, again, script.awaited), told[-1])
            self._post(call, pipeline.doubtful if fails else pipeline.sure, told[-1], program.parameters)
            call.gates.held.update(again)
            call.gates.held.difference_update(script.opens)
        self._under_way.append(Relay(programs, order, told, foreseen, end))
        return self._under_way[-1]

    def _foreseen(self, order: Order) -> tuple[Event, ...] | None:
        """The events of a plan that is known in full, and in which nobody fails."""
        events: list[Event] = []
        enabled = tuple(sorted({Choice(leg.call) for leg in order}))
        for leg in order:
            did = leg.way
            if (
                did is None
                or not did.certain
                or did.fails
                or did.version != self._known.version
                or did.key in self._known.exceeding
            ):
                return None
            events.append(did.event(leg.call, enabled))
            if did.ended:
                enabled = tuple(choice for choice in enabled if choice.call != leg.call)
        return None if enabled else tuple(events)

    def _forgets(self, programs: Sequence[Program], order: Order) -> bool:
        """Whether sessions have something to forget before these programs, after a plan of which all is foreseen."""
        kept = [set(call.keeps) for call in self._connections.calls]
        for leg in order:
            assert leg.way is not None
            kept[leg.call] |= leg.way.keeps
        return any(p.leaves_settings or not k.isdisjoint(p.reset) for p, k in zip(programs, kept, strict=True))

    def collect(self, relay: Relay) -> tuple[tuple[Event, ...] | None, tuple[Ending, ...]]:
        """What came of a relay, and how its sessions ended; the one begun first comes first.

        That is a schedule, but not always the one that was planned: it is the relay's `foreseen` itself where all went
        so. None where it is no schedule, since a session waited for another; the answers are then of what was
        committed all the same.
        """
        self._deadline = time.monotonic() + self._seconds
        try:
            self._drain(relay)
            for call, program, told in zip(self._connections.calls, relay.programs, relay.told, strict=True):
                call.stand_ready(program, impatient=self._connections.impatient)
                call.told = told
            if all(told.whole and not told.spoiled for told in relay.told):
                with suppress(_UnfitError):
                    events = self._gone_through(relay)
                    return events, tuple(call.ending() for call in self._connections.calls)
            else:
                self._let_go(relay)
            return None, _committed(relay)
        finally:
            self._collected(relay)

    def abandoned(self, relay: Relay) -> tuple[Ending, ...]:
        """What was committed of a relay that nobody wants any more."""
        self._deadline = time.monotonic() + self._seconds
        self._drain(relay)
        if not all(told.whole and not told.spoiled for told in relay.told):
            self._let_go(relay)
        for call in self._connections.calls:
            call.keeps |= set(Keeps)
        self._collected(relay)
        return _committed(relay)

    def _collected(self, relay: Relay) -> None:
        if relay in self._under_way:
            self._under_way.remove(relay)
        for call in self._connections.calls:
            call.mode, call.told = Mode.ENDED, None
            call.unflushed = True
            call.came.clear()
            call.caught.clear()
            if call.died:
                self._connections.replace(call)

    def reset(self) -> bool:
        """Give up what is under way; whether there was any, so that its sessions cannot go on."""
        for each in self._under_way:
            for told in each.told:
                told.over = True
        given_up = bool(self._under_way)
        self._under_way.clear()
        return given_up

    def _let_go(self, relay: Relay) -> None:
        """After a relay that failed: whoever was cancelled at a gate may hold it since."""
        # What a session did to all settings or locks, it will do again.
        self.possible &= not any(told.lost for told in relay.told)
        for call in self._connections.calls:
            if not call.died:
                call.gates.held.clear()
                self._post(call, LETTING_GO)
        self._drain(None)

    def _post(
        self,
        call: Call,
        sent: Sequence[Message],
        told: Told | None = None,
        parameters: Sequence[bytes | None] = (),
    ) -> None:
        pgconn = call.pgconn
        for message in sent:
            query = message.query
            if query is None:
                pgconn.pipeline_sync()
            elif query.name:
                given = parameters if query.parameters is None else query.parameters
                pgconn.send_query_prepared(query.name, given, query.formats or None, query.result_format)
            else:
                assert isinstance(query.text, str)
                pgconn.send_query_params(query.text.encode(), None)
        call.expected.extend([(message, told) for message in sent])

    def _drain(self, relay: Relay | None) -> None:
        """Wait until a relay is over (None: everything that was posted is answered).

        Where a session waits for another in it, nobody is spared.
        """
        cancelled = False
        while (
            any(not told.over for told in relay.told)
            if relay
            else any(call.expected for call in self._connections.calls)
        ):
            ready = self._connections.poll.poll(self._connections.ask_after * 1000)
            for socket, _ in ready:
                self._overhear(self._connections.by_socket[socket])
            spoiled = relay is not None and any(told.spoiled for told in relay.told)
            if (spoiled or time.monotonic() > self._deadline) and not cancelled:
                cancelled = True
                self._deadline = time.monotonic() + _DRAINED_WITHIN
                for call, told in zip(self._connections.calls, relay.told if relay else (), strict=False):
                    told.spoiled = True  # that it was cancelled is no answer of the function's
                    # Who gives up already opens its gates, which must not be cancelled.
                    if call.expected and call.expected[0][1] is told and told.arrived == -1:
                        self._connections.ask(b"cancel", b"%d" % call.pid)
            elif cancelled and time.monotonic() > self._deadline:
                for call in self._connections.calls:
                    if call.expected:
                        self._connections.ask(b"terminate", b"%d" % call.pid)
                self._deadline = time.monotonic() + _DRAINED_WITHIN

    def _overhear(self, call: Call) -> None:
        """Take in what one connection has to say in a relay."""
        self._take_answers(call)
        self._connections.raise_what_was_raised()

    def _take_answers(self, call: Call) -> None:
        pgconn = call.pgconn
        try:
            pgconn.consume_input()
            while call.expected and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None or pgconn.status == ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection is lost")
                message, told = call.expected.popleft()
                if message.query is not None:
                    pgconn.get_result()  # what separates two answers: it is there
                    if told is not None and (message.sent is not Sent.OURS or result.status in _FAILED):
                        told.result(message, result)
                elif result.status != ExecStatus.PIPELINE_SYNC:
                    raise psycopg.OperationalError("the connection is out of step")
                elif message.sent is Sent.END and told is not None:
                    self._ended(call, told)
        except psycopg.OperationalError:
            self._connections.poll.unregister(call.socket)
            for _, told in call.expected:
                if told is not None:
                    told.over = True
            call.expected.clear()
            call.mode, call.died = Mode.ENDED, True

    def _ended(self, call: Call, told: Told) -> None:
        """A session has come to the end of a relay, or of giving it up."""
        if told.arrived == -1:
            told.arrived = -2
            self._post(call, handed.giving_up(told.opens), told)
        else:
            told.over = True
            # While more is expected the status is not known; it is what it was where the session did the same before.
            idle = bool(call.expected) or call.pgconn.transaction_status == TransactionStatus.IDLE
            told.whole = told.arrived >= 0 and idle

    def _gone_through(self, relay: Relay) -> tuple[Event, ...] | None:
        """The events of a relay, by what the sessions told, in the order of the turns."""
        order = relay.order
        foreseen = {call.number for call in self._connections.calls if self._as_foreseen(call, order)}
        state = start(self._ways, relay.programs)
        if relay.foreseen is not None and len(foreseen) == len(self._connections.calls):
            for position, leg in enumerate(order, 1):
                assert leg.way is not None
                state = self._went(state, leg.call, leg.way, position)
            return relay.foreseen
        events: list[Event] = []
        walks = [self._walk(call) for call in self._connections.calls]
        last = {leg.call: at for at, leg in enumerate(order)}
        left = set(last)
        for at, leg in enumerate(order):
            call = self._connections.calls[leg.call]
            while leg.call in left:
                enabled = tuple(Choice(number) for number in sorted(left))
                if leg.call in foreseen:
                    did = leg.way
                    assert did is not None
                    events.append(did.event(leg.call, enabled))
                    state = self._went(state, leg.call, did, len(events))
                    if did.ended:
                        left.discard(leg.call)
                    break
                call.passed, call.touched = [], NOTHING
                call.caught.clear()
                call.came.clear()
                ended = next(walks[leg.call])
                found = [Happening(leg.call, "caught", each) for each in call.caught] + call.came
                if ended:
                    left.discard(leg.call)
                    if not call.came:
                        found.append(Happening(leg.call, "commits"))
                else:
                    found.append(Happening(leg.call, "parks" if call.at >= 0 else "returns", "", call.at))
                access = call.touched | call.written.ending() if call.caught else call.touched
                assert call.acted_at is not None
                event = Event(Choice(leg.call), call.acted_at, access, tuple(found), enabled)
                way = self._ways.known(state[leg.call], tuple(call.passed), event)
                assert call.told is not None
                if not call.told.measures and (way is None or not way.certain):
                    raise _UnfitError
                state = self._ways.after(state, event, self._books.done(call))
                events.append(event)
                call.began = call.began or len(events)
                if ended:
                    call.ended = len(events)
                if at != last[leg.call]:
                    break
        return tuple(events)

    def _went(self, state: State, number: int, did: Way, position: int) -> State:
        """A session did what was foreseen."""
        call = self._connections.calls[number]
        call.keeps |= did.keeps
        call.began = call.began or position
        if did.ended:
            call.ended = position
        return self._ways.went(state, number, did)

    def _as_foreseen(self, call: Call, order: Order) -> bool:
        """Whether a session did what was foreseen, and all of that is known; then its answers are taken."""
        told = call.told
        assert told is not None
        if told.measures or told.arrivals or told.texts or told.arrived != len(told.order):
            return False
        caught, place = {}, 0
        for leg in order:
            if leg.call == call.number:
                if leg.way is None or leg.way.version != self._known.version:
                    return False
                place += len(leg.way.passed)
                if codes := [detail for what, detail, _ in leg.way.own if what == "caught"]:
                    caught[place] = codes
                place += 1
        if caught != told.caught:
            return False
        for number, unit in enumerate(call.program.units):
            result = told.results.get(number)
            if result is None or result.status in _FAILED:
                return False
            if unit.answers and unit.statement is not None:
                call.results[unit.statement] = result
        return True

    def _walk(self, call: Call) -> Iterator[bool]:
        """Go through what a session told in a relay, as far as its next stop each time; True: it has ended."""
        told = call.told
        assert told is not None
        units, place = call.program.units, 0
        skipped: int | None = None
        call.reading = told.began

        def comes_to(place: int) -> None:
            """What happened since it arrived the last time."""
            for text in told.texts.get(place, ()):
                self._books.executes(call, text)
            call.caught += told.caught.get(place, ())

        def settles(raw: str | None) -> None:
            if raw is not None:
                self._books.measured(call, raw)
            elif call.open:
                self._books.measured_nothing(call)

        for quiet, number in handed.groups(call.program):
            unit = units[number]
            for each in (*quiet, number):
                result = told.results.get(each)
                if result is None or result.status == ExecStatus.PIPELINE_ABORTED:
                    raise _UnfitError
                if each != number and result.status == ExecStatus.FATAL_ERROR:
                    raise _UnfitError
                if each != number and units[each].statement is not None:
                    call.results[units[each].statement or 0] = result
            if skipped is not None:
                # The rest of the statement is not done; the end of its transaction was a rollback.
                if number + 1 < len(units) and units[number + 1].statement == skipped:
                    continue
                skipped = None
                self._books.transaction_ended(call)
                if number + 1 < len(units):
                    call.reading = told.at(place)[1] or ""
                    place += 1
                    call.at = top(number + 1)
                    yield False
                continue
            result = told.results[number]
            ends = unit.does in (Does.COMMITS, Does.ROLLS_BACK)
            text = unit.access | call.written.ending() if ends else unit.access
            self._books.begin_step(call, top(number), text, unit.key)
            if ends:
                call.open = False
                self._books.touch(call, text)
            entering = unit.does is Does.ACTS
            while place < told.arrived and told.at(place)[0] >= 0:
                step, raw = told.at(place)
                comes_to(place)
                through = entering and not call.text and (raw is None or not self._known.between(call.reading, raw)[1])
                if place < len(told.order) and told.order[place][1] != through:
                    raise _UnfitError
                settles(raw)
                if through:
                    call.passed.append(step)
                else:
                    call.at = step
                    yield False
                rewritten = self._known.rewritten.steps[step]
                known = self._known.of_step(step)
                self._books.begin_step(call, step, known | call.written.ending() if rewritten.ends else known)
                entering = False
                place += 1
            comes_to(place)
            if result.status == ExecStatus.FATAL_ERROR:
                if not unit.own:
                    raise _UnfitError  # the session goes on in a transaction that has failed
                call.came.append(Happening(call.number, "fails", handed.code(result)))
                call.keeps |= set(Keeps)
                if call.open:
                    self._books.touch(call, self._books.unmeasured(call))
                call.touched |= call.written.ending()
                assert unit.statement is not None
                call.results[unit.statement] = result
                skipped = unit.statement
                continue
            if unit.statement is not None and unit.answers:
                call.results[unit.statement] = result
            if place < told.arrived:
                step, raw = told.at(place)
                settles(raw)
                place += 1
                if ends:
                    self._books.transaction_ended(call)
                    call.reading = raw or ""
                call.at = top(number + 1)
                yield False
            elif ends:
                self._books.transaction_ended(call)
        yield True


def _committed(relay: Relay) -> tuple[Ending, ...]:
    """How the sessions of a relay ended that is no schedule: those that did not come to their end left nothing."""
    found = []
    for program, told in zip(relay.programs, relay.told, strict=True):
        results = [told.results.get(number) for number in range(len(program.units))]
        whole = all(r is not None and r.status not in _FAILED for r in results)
        answers = {u.statement: r for u, r in zip(program.units, results, strict=True) if u.answers}
        first = {0: answers[0]} if whole and answers.get(0) is not None else {}
        found.append(Ending(first, 1, 1, died=not first))
    return tuple(found)
