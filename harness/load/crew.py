"""The crew: the clients of one run, their connections, and the threads that fire their calls.

What watches the loop, for timeouts and progress, only reads its columns from the main thread.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Protocol

from harness.contracts.contract import FAILED, IN_DOUBT, NOT_REACHED, OUT_OF_TIME, TIMEOUT, Contract, Effect, Outcome
from harness.history import History, Log, LongAnswers
from harness.load.firing import TICK, Jobs, Waits, clock, fire, fire_side_by_side
from harness.signals import heed
from harness.targets.target import Caller, Duplex, Span, Target

_READY_TIMEOUT = 60.0
"""Seconds for all client threads to come up; after Ctrl-C in that time the others must not wait for ever."""

_GRACE = 2.0
"""Seconds a cancelled call gets to come back before its connection is cut."""

MOST_KEPT = 128 * 2**20
"""Bytes of long answers that one firing keeps: no more calls are made then. All of them are decoded and judged, and a
megabyte each for as long as the calls are fast would take the machine's memory."""

_CANCELLED = "57014"

INTERRUPTED = "interrupted"
"""Code of a call that was given up because the run was ended by Ctrl-C or SIGTERM."""


_INTERRUPTED = Outcome(IN_DOUBT, Effect.IN_DOUBT, INTERRUPTED, "given up by the harness")


class FiringPlan(Protocol):
    """What a crew fires: the part of a pattern that it needs."""

    @property
    def patience(self) -> float | None:
        """Seconds after the start at which calls in flight are given up; None: as long as one call may take."""
        ...

    def waits(self, client: int) -> Waits:
        """What this client's jobs wait for."""
        ...

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Any) -> Jobs:
        """The jobs of each client; `keys` are those that were made for the run."""
        ...


@contextmanager
def without_collections() -> Iterator[None]:
    """Put the garbage collector off: it would stop all clients at once, and neither firing nor judging makes cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Done:
    """Something that comes to pass once, and is awaited by the main thread.

    A `threading.Event` that Ctrl-C interrupts in its wait may raise "release unlocked lock" in place of it.
    """

    __slots__ = ("_lock", "_passed")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._passed = False

    def set(self) -> None:
        """It has come to pass."""
        self._passed = True
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Whether it has come to pass, at once or within so many seconds."""
        if not self._passed and self._lock.acquire(timeout=seconds):
            self._lock.release()
        return self._passed


class Client:
    """One simulated client: its connection, the log it writes in, and its call in flight."""

    __slots__ = ("arguments", "caller", "log", "lost", "number", "since", "target", "thread")

    log: Log
    """That of the last firing, which others may write in, too."""

    def __init__(self, number: int, target: Target, arguments: Sequence[Mapping[str, Any]]) -> None:
        self.number = number
        self.since = 0
        """The clock's reading when its call in flight started; 0: none is."""
        self.target = target
        self.arguments = arguments
        """Of each variant, without the key."""
        self.caller: Caller | None = None
        self.thread = Done()
        """Whether the thread that it was given to last has ended."""
        self.lost = False
        """Whether its connection was found gone when its next call was to be sent."""

    @property
    def opened(self) -> Caller:
        """Its connection, which is there once the crew is open."""
        assert self.caller is not None
        return self.caller


class Crew:
    """The clients of one run. `open` connects and warms them, `fire` lets them all go at once.

    `target_of` gives each client its target, so that a run can mix doors.
    """

    def __init__(
        self,
        contract: Contract,
        target_of: Callable[[int], Target],
        clients: int,
        *,
        timeout: float,
        overlap: Callable[[int], bool],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """`timeout` is in seconds and holds for one call; `progress` is told the number of calls made so far."""
        self.contract = contract
        self.timeout = timeout
        self.overlap = overlap
        self.stopped = threading.Event()
        self.stopping = False
        """The same as `stopped`, for generators that look at it before every call."""
        self.started = 0
        """The clock's reading when the clients were last let go, less the time that their plan had had before."""
        self.cpu_started = 0.0
        """The seconds of CPU that this process had used then: encoding the keys, before that, is no part of a load."""
        self.timeouts = 0
        """Calls that outlasted the timeout and were cancelled."""
        self.out_of_time = False
        """Whether the last firing's time was over while calls were in flight, which were given up."""
        self.full = False
        """Whether the last firing was ended because its answers had filled MOST_KEPT."""
        self._progress = progress
        self.clients: list[Client] = []
        for number in range(clients):
            arguments = [dict(variant.arguments(number)) for variant in contract.variants]
            self.clients.append(Client(number, target_of(number), arguments))
        self.logs: list[Log] = []
        """Of all firings."""
        self._error: BaseException | None = None
        self._cancelled: set[tuple[int, int]] = set()
        """Client and start of each call that was cancelled."""
        self._kept: dict[Log, LongAnswers] = {}

    def open(self, warm_up_keys: Sequence[Hashable]) -> None:
        """Connect and warm every client, side by side. Raises the first error."""

        def connect(client: Client) -> None:
            client.caller = client.target.connect(
                client.number,
                client.arguments,
                overlap=self.overlap(client.number),
                warm_up=warm_up_keys[client.number],
            )

        threads = self._start_threads(lambda crew: connect(*crew), [[c] for c in self.clients])
        try:
            self._join(threads, watch=False)
        except BaseException:
            self._stop()
            self._give_up(threads)
            heed()  # in place of an error that came of it
            raise

    def fire(self, plan: FiringPlan, keys: Any, *, spent: int = 0) -> list[Log]:
        """Fire the jobs of every client, all let go together once their threads are up; what they wrote.

        `spent`: nanoseconds of its time that the plan has had, where it goes on with more keys.
        """
        jobs = plan.prepare(self, self.clients, keys)
        crews = self._shared_out(plan)
        logs = [log for crew in crews for log in self._new_logs(crew)]
        self.logs += logs
        self._kept = (self._kept if spent else {}) | {log: LongAnswers(log) for log in logs}
        if self.full:
            self.full = self.stopping = False
            self.stopped.clear()
        ready = {crew[0].number: Done() for crew in crews}
        start = threading.Event()

        def run(crew: Sequence[Client]) -> None:
            ready[crew[0].number].set()
            start.wait()
            with ExitStack() as stack:
                mine = [(client, stack.enter_context(closing(jobs(client)))) for client in crew]
                if _alone(crew[0], plan):
                    fire(*mine[0], self)
                else:
                    fire_side_by_side(mine, self)

        with without_collections():
            threads = self._start_threads(run, crews)
            try:
                for up in ready.values():
                    up.wait(_READY_TIMEOUT)
                self.started, self.cpu_started = clock() - spent, time.process_time()
                start.set()
                ends = None if plan.patience is None else self.started + int(plan.patience * 1e9)
                if not self._join(threads, watch=True, ends=ends):
                    self.out_of_time = True
                    self._stop()
                    why = f"no answer when the time was over, after {plan.patience:g} s"
                    self._give_up(threads, Outcome(IN_DOUBT, Effect.IN_DOUBT, OUT_OF_TIME, why))
                    self._raise_error()
            except BaseException:
                # Ctrl-C, at whatever moment: no new call, and those in flight are given up.
                self._stop()
                start.set()
                self._give_up(threads)
                self._tell_timeouts()
                heed()  # in place of an error that came of it
                raise
        self._tell_timeouts()
        return logs

    def history(self, unknown_keys: Sequence[Hashable]) -> History:
        """All that the clients wrote down; `unknown_keys` are those that were never created."""
        target = self.clients[0].target
        if self.contract.missing == self.contract.accepted:
            unknown_keys = ()  # the function makes a key that is not there: it is as good as a fresh one
        # As a key comes back: text may have become what the parameter's type makes of it.
        return History(self.logs, self.started, [target.decode_key(target.encode_key(key)) for key in unknown_keys])

    @property
    def lost(self) -> bool:
        """Whether a client's connection was lost: under its last call, or between two."""
        last = ((log, log.last(client)) for log in self.logs for client in log.arguments)
        in_doubt = any(at is not None and log.outcomes[at].effect is Effect.IN_DOUBT for log, at in last)
        return in_doubt or any(client.lost for client in self.clients)

    @property
    def calls(self) -> int:
        """How many calls have been answered so far."""
        return sum(map(len, self.logs))

    def spans(self) -> list[tuple[int, Hashable, Span]]:
        """(phase, key, span) of every call whose time on the server is known."""
        targets = {client.target.name: client.target for client in self.clients}
        return [
            (phase, log.decode_key(key), targets[log.target].span(timing))
            for log in self.logs
            for phase, key, timing in log.timings()
        ]

    def close(self) -> None:
        """Close every connection; a call that is still in flight ends in doubt."""
        for client in self.clients:
            if client.caller is not None and client.thread.wait(0):
                client.caller.close()  # under a thread that still uses it, it would be freed in its hands

    def _shared_out(self, plan: FiringPlan) -> list[list[Client]]:
        """Which clients each thread drives."""
        crews: list[list[Client]] = []
        shared: dict[Waits, list[Client]] = {}
        for client in self.clients:
            if not client.opened.alive:
                client.lost = True
            elif _alone(client, plan):
                crews.append([client])
            else:
                shared.setdefault(plan.waits(client.number), []).append(client)
        # One thread for all of them: a second one would contend with it for the interpreter.
        return [*crews, *shared.values()]

    def _new_logs(self, crew: Sequence[Client]) -> Iterable[Log]:
        """Give the clients of one thread their log, one for each target."""
        logs: dict[tuple[str, bool], Log] = {}
        for client in crew:
            target, overlap = client.target, self.overlap(client.number)
            log = logs.get((target.name, overlap))
            if log is None:
                log = logs[target.name, overlap] = Log(
                    target.name,
                    {each.number: each.arguments for each in crew},
                    target.evidence_names,
                    target.decode_key,
                    target.decode_evidence,
                    timing=target.timing if overlap else 0,
                )
            client.log = log
        return logs.values()

    def _start_threads(self, work: Callable[[Sequence[Client]], None], crews: Sequence[Sequence[Client]]) -> list[Done]:
        """Start a thread for each crew; what is given back is set when they end.

        Not joined: a join that Ctrl-C interrupts takes its thread for ended (CPython 3.11,
        `Thread._wait_for_tstate_lock`).
        """
        ends = []
        for crew in crews:
            ended = Done()
            ends.append(ended)
            for client in crew:
                client.thread = ended

            def guarded(crew: Sequence[Client] = crew, ended: Done = ended) -> None:
                try:
                    work(crew)
                except BaseException as error:
                    self._error = self._error or error
                    self._stop()
                finally:
                    ended.set()

            threading.Thread(target=guarded, name=f"client-{crew[0].number}", daemon=True).start()
        return ends

    def _join(self, threads: Sequence[Done], *, watch: bool, ends: int | None = None) -> bool:
        """Await the threads' ends; meanwhile cancel calls that outlast the timeout and show progress.

        False when the clock comes to `ends` before.
        """
        for ended in threads:
            heed()
            while not ended.wait(TICK):
                heed()
                if watch:
                    self._watch()
                if ends is not None and clock() > ends:
                    return False
        self._raise_error()
        return True

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _stop(self) -> None:
        self.stopping = True
        self.stopped.set()

    def _watch(self) -> None:
        now, limit = clock(), int(self.timeout * 1e9)
        for client in self.clients:
            since = client.since
            over = now - max(since, client.opened.began) - limit
            if not since or over < 0:
                continue
            if (client.number, since) not in self._cancelled:
                self._cancelled.add((client.number, since))
                client.opened.cancel()
            elif over > _GRACE * 1e9:
                client.opened.abort()
        if not self.stopping and sum(kept.bytes() for kept in self._kept.values()) > MOST_KEPT:
            self.full = True
            self._stop()
        if self._progress is not None:
            self._progress(self.calls)

    def _give_up(self, threads: Sequence[Done], given_up: Outcome = _INTERRUPTED) -> None:
        in_flight = self._in_flight()
        for client, _ in in_flight:
            client.opened.cancel()
        if not _joined(threads):
            # Also those that were being sent when the others were cancelled.
            in_flight |= self._in_flight()
            for client, _ in in_flight:
                client.opened.abort()
            _joined(threads)
        # Our cancellation is no fault of the function's.
        for client, since in in_flight:
            log = client.log
            at = log.last(client.number, since)
            if at is not None and log.outcomes[at].effect is Effect.FAILED:
                log.outcomes[at] = given_up

    def _in_flight(self) -> set[tuple[Client, int]]:
        return {(client, client.since) for client in self.clients if client.since}

    def _tell_timeouts(self) -> None:
        """Name the calls that were cancelled; one that ended well before its cancellation came is none."""
        timed_out = Outcome(FAILED, Effect.FAILED, TIMEOUT, f"no answer within {self.timeout:g} s")
        for number, since in self._cancelled:
            log = self.clients[number].log
            at = log.last(number, since)
            if at is None or log.outcomes[at].code in NOT_REACHED:
                continue  # it was a transaction's end, or waited for a connection
            if log.outcomes[at].code == _CANCELLED:
                log.outcomes[at] = timed_out
            self.timeouts += log.outcomes[at].effect in (Effect.FAILED, Effect.IN_DOUBT)
        self._cancelled.clear()


def _alone(client: Client, plan: FiringPlan) -> bool:
    waits = plan.waits(client.number)
    return waits is Waits.CLOCK or (waits is Waits.NOTHING and not isinstance(client.caller, Duplex))


def _joined(threads: Sequence[Done]) -> bool:
    """Whether all threads ended within the grace."""
    deadline = time.monotonic() + _GRACE
    return all(ended.wait(max(0.0, deadline - time.monotonic())) for ended in threads)
