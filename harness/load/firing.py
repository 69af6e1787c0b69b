"""The firing loop, and the crew of client threads that run it. The hot path; `make bench` measures it.

A pattern's generator decides when the next call is made and with what; the loop makes it and writes it down. It has two
forms: one client on a thread of its own, whose jobs may wait for the clock, and several clients side by side, whose
jobs wait for one another, or pause. Nothing in either formats, logs or takes a lock, but to reach a caller that can
only wait, behind a pool. What watches them, for timeouts and progress, only reads the columns from the main thread.
"""

from __future__ import annotations

import gc
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from harness.contracts.contract import FAILED, IN_DOUBT, NOT_REACHED, TIMEOUT, Contract, Effect, Outcome
from harness.history import History, Log
from harness.signals import ending
from harness.targets.target import Answer, Caller, Duplex, Span, Target

Job = tuple[int, Any, int, int]
"""When the call was due (clock reading; 0: now), its encoded key, its argument variant, its phase."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a generator yields in place of a job, to be asked again later."""

    longest: float | None = None
    """Seconds after which it is asked; None: together with all others that wait so, when no call is in flight."""
    early: bool = False
    """Be asked before, too, when no call beside it is in flight any more."""


TOGETHER = Wait()
"""To go on together with all the others."""

Step = Job | Wait


class Waits(Enum):
    """What a client's jobs wait for, which decides the thread that fires them."""

    CLOCK = "the clock"
    """On a thread of its own."""
    NOTHING = "nothing but its own pause"
    """Side by side with its like on one thread, where its connection can be polled."""
    OTHERS = "the other clients"
    """Side by side with its like on one thread: then released together means by one hand, one send after the other."""


class Plan(Protocol):
    """What a crew fires: the part of a pattern that it needs."""

    def waits(self, client: int) -> Waits: ...

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Any) -> Jobs: ...


Jobs = Callable[["Client"], Generator[Step, None, None]]
"""Gives each client its jobs."""

clock = time.perf_counter_ns

_TICK = 0.1
"""Seconds between two looks of the main thread at its clients."""

_READY_TIMEOUT = 60.0
"""Seconds for all client threads to come up; after Ctrl-C in that time the others must not wait for ever."""

_GRACE = 2.0
"""Seconds a cancelled call gets to come back before its connection is cut."""

_CANCELLED = "57014"

INTERRUPTED = "interrupted"
"""Code of a call that was given up because the run was ended by Ctrl-C or SIGTERM."""


def fire(client: Client, jobs: Iterator[Step], crew: Crew) -> None:
    """Make each job's call and append it to the client's log, until the jobs or the connection end, or the crew stops.

    For one client on a thread of its own: its jobs may wait for the clock.
    """
    caller, number, in_doubt = client.opened, client.number, Effect.IN_DOUBT
    call, write = caller.call, client.log.write
    for step in jobs:
        if isinstance(step, Wait):
            crew.stopped.wait(step.longest)
            continue
        if crew.stopping:
            return
        due, key, variant, phase = step
        client.since = called = clock()
        outcome, evidence = call(key, variant)
        write(number, called, clock(), due, key, variant, phase, outcome, evidence)
        client.since = 0
        if outcome.effect is in_doubt and not caller.alive:
            return


def fire_side_by_side(clients: Sequence[tuple[Client, Iterator[Step]]], crew: Crew) -> None:
    """The same for several clients on one thread, each with one call in flight; their jobs may wait for one another.

    A group commit answers many clients in the same instant, and a race lets them all go at once. With a thread for
    each, they would spend more on handing the interpreter's lock around than on their calls; here one look at the
    sockets serves them all. What came is read and written down once the next calls are on their way, while the server
    has something to do.
    """
    with ExitStack() as stack:
        _Ring([_Lane(client, jobs, stack) for client, jobs in clients], crew).fire()


class _Ring:
    """The state of that loop: each lane is in flight, waits in one of two ways, or is done."""

    def __init__(self, lanes: list[_Lane], crew: Crew) -> None:
        self._crew = crew
        for lane in lanes:
            lane.caller.beside(lanes[0].caller)
        self._in_flight: dict[int, _Lane] = {}
        self._waiting: list[_Lane] = []
        self._together = lanes
        # poll, not epoll: it goes by the number, and a caller that connects again keeps its own.
        self._sockets = select.poll()
        self._came: list[tuple[_Lane, int, int, Job, Any]] = []

    def fire(self) -> None:
        in_flight, poll, came, crew = self._in_flight, self._sockets.poll, self._came, self._crew
        try:
            while in_flight or self._waiting or self._together:
                if self._waiting or not in_flight:
                    self._let_go()
                    if not in_flight and not self._waiting:
                        continue
                for number, _ in poll(self._patience() if self._waiting else None):
                    lane = in_flight[number]
                    received = lane.receive()
                    if received is None:
                        continue  # only a part of it is there
                    client = lane.client
                    came.append((lane, client.since, clock(), lane.job, received))
                    step = next(lane.jobs, None)
                    if crew.stopping:
                        step = None
                    elif type(step) is tuple:
                        lane.job = step
                        client.since = clock()
                        if lane.send(step[1], step[2]):
                            continue
                        client.lost = True
                        step = None
                    client.since = 0
                    self._sockets.unregister(number)
                    del in_flight[number]
                    self._park(lane, step)
                self._write_down()
        finally:
            self._write_down()

    def _let_go(self) -> None:
        """Ask those whose wait is over for their next step, and send what they have, one right after the other."""
        if self._waiting:
            now, idle = time.monotonic(), not self._in_flight
            asked = [
                lane for lane in self._waiting if lane.until <= now or (idle and lane.early) or self._crew.stopping
            ]
            self._waiting = [lane for lane in self._waiting if lane not in asked]
        else:
            asked, self._together = self._together, []
        sent: list[int] = []
        for lane, step in [(lane, next(lane.jobs, None)) for lane in asked]:
            if type(step) is not tuple:
                self._park(lane, step)
                continue
            if self._crew.stopping:
                continue
            lane.job = step
            lane.client.since = clock()
            if lane.send(step[1], step[2]):
                self._in_flight[lane.number] = lane
                sent.append(lane.number)
            else:
                lane.client.since = 0
                lane.client.lost = True
        for number in sent:
            self._sockets.register(number, select.POLLIN)

    def _park(self, lane: _Lane, step: Step | None) -> None:
        """Keep a lane that waits; one that has no next step is done."""
        if not isinstance(step, Wait):
            return
        if step.longest is None:
            self._together.append(lane)
        else:
            lane.until, lane.early = time.monotonic() + step.longest, step.early
            self._waiting.append(lane)

    def _patience(self) -> float:
        """Milliseconds until the first wait is over, or until it is time to see whether the crew was stopped."""
        first = min(lane.until for lane in self._waiting)
        return min(max(0.0, first - time.monotonic()), _TICK) * 1000

    def _write_down(self) -> None:
        came, self._came[:] = self._came[:], []
        for lane, called, returned, (due, key, variant, phase), received in came:
            outcome, evidence = lane.read(received)
            lane.write(lane.client.number, called, returned, due, key, variant, phase, outcome, evidence)


class _Lane:
    """One client of the loop above: what it needs of it, looked up once."""

    __slots__ = ("caller", "client", "early", "job", "jobs", "number", "read", "receive", "send", "until", "write")

    job: Job
    until: float
    early: bool
    """When its wait is over, and whether it is with the last call in flight, too."""

    def __init__(self, client: Client, jobs: Iterator[Step], stack: ExitStack) -> None:
        caller = client.opened
        self.client = client
        self.jobs = jobs
        self.caller: Duplex = caller if isinstance(caller, Duplex) else stack.enter_context(closing(_OnThread(caller)))
        self.number = self.caller.fileno()
        self.send, self.receive, self.read = self.caller.send, self.caller.receive, self.caller.read
        self.write = client.log.write


class _OnThread:
    """A caller that can only wait for its answer, on a thread of its own, so that it can be fired beside others."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._jobs: queue.SimpleQueue[tuple[Any, int] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        self._here, self._there = socket.socketpair()
        self._lost = False
        threading.Thread(target=self._serve, name="client-call", daemon=True).start()

    def _serve(self) -> None:
        with self._there:
            while (job := self._jobs.get()) is not None:
                try:
                    self._answers.put(self._caller.call(*job))
                except BaseException as error:
                    self._answers.put(error)
                with suppress(OSError):  # nobody listens any more: the loop ended by an error
                    self._there.send(b".")

    def beside(self, first: Duplex) -> None:
        """Its answers are read on its own thread."""

    def fileno(self) -> int:
        return self._here.fileno()

    def send(self, key: Any, variant: int) -> bool:
        if self._lost:
            return False
        self._jobs.put((key, variant))
        return True

    def receive(self) -> Answer:
        self._here.recv(1)
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        self._lost = answer[0].effect is Effect.IN_DOUBT and not self._caller.alive
        return answer

    def read(self, received: Answer) -> Answer:
        return received

    def close(self) -> None:
        self._jobs.put(None)
        self._here.close()


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
        self._passed = True
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Whether it has come to pass, at once or within so many seconds."""
        if not self._passed and self._lock.acquire(timeout=seconds):
            self._lock.release()
        return self._passed


def _raise_interrupt() -> None:
    """In place of an error that came of one."""
    if ending():
        raise KeyboardInterrupt


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
        """The clock's reading when the clients were last let go."""
        self.cpu_started = 0.0
        """The seconds of CPU that this process had used then: encoding the keys, before that, is no part of a load."""
        self.timeouts = 0
        """Calls that outlasted the timeout and were cancelled."""
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
            _raise_interrupt()
            raise

    def fire(self, plan: Plan, keys: Any) -> list[Log]:
        """Fire the jobs of every client, all let go together once their threads are up; what they wrote."""
        jobs = plan.prepare(self, self.clients, keys)
        crews = self._shared_out(plan)
        logs = [log for crew in crews for log in self._new_logs(crew)]
        self.logs += logs
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
                self.started, self.cpu_started = clock(), time.process_time()
                start.set()
                self._join(threads, watch=True)
            except BaseException:
                # Ctrl-C, at whatever moment: no new call, and those in flight are given up.
                self._stop()
                start.set()
                self._give_up(threads)
                self._tell_timeouts()
                _raise_interrupt()
                raise
        self._tell_timeouts()
        return logs

    def history(self, unknown_keys: Sequence[Hashable]) -> History:
        return History(self.logs, self.started, unknown_keys)

    @property
    def lost(self) -> bool:
        """Whether a client's connection was lost: under its last call, or between two."""
        last = ((log, log.last(client)) for log in self.logs for client in log.arguments)
        in_doubt = any(at is not None and log.outcomes[at].effect is Effect.IN_DOUBT for log, at in last)
        return in_doubt or any(client.lost for client in self.clients)

    def spans(self) -> list[tuple[int, Hashable, Span]]:
        """(phase, key, span) of every call whose time on the server is known."""
        targets = {client.target.name: client.target for client in self.clients}
        return [
            (phase, log.decode_key(key), targets[log.target].span(timing))
            for log in self.logs
            for phase, key, timing in log.timings()
        ]

    def close(self) -> None:
        for client in self.clients:
            if client.caller is not None and client.thread.wait(0):
                client.caller.close()  # under a thread that still uses it, it would be freed in its hands

    def _shared_out(self, plan: Plan) -> list[list[Client]]:
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
        evidence = [c.name for c in self.contract.function.columns if c.evidence]
        logs: dict[tuple[str, bool], Log] = {}
        for client in crew:
            target, overlap = client.target, self.overlap(client.number)
            log = logs.get((target.name, overlap))
            if log is None:
                log = logs[target.name, overlap] = Log(
                    target.name,
                    {each.number: each.arguments for each in crew},
                    evidence,
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

    def _join(self, threads: Sequence[Done], *, watch: bool) -> None:
        """Await the threads' ends; meanwhile cancel calls that outlast the timeout and show progress."""
        for ended in threads:
            while not ended.wait(_TICK):
                if watch:
                    self._watch()
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
        if self._progress is not None:
            self._progress(sum(map(len, self.logs)))

    def _give_up(self, threads: Sequence[Done]) -> None:
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
        given_up = Outcome(IN_DOUBT, Effect.IN_DOUBT, INTERRUPTED, "given up by the harness")
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


def _alone(client: Client, plan: Plan) -> bool:
    waits = plan.waits(client.number)
    return waits is Waits.CLOCK or (waits is Waits.NOTHING and not isinstance(client.caller, Duplex))


def _joined(threads: Sequence[Done]) -> bool:
    """Whether all threads ended within the grace."""
    deadline = time.monotonic() + _GRACE
    return all(ended.wait(max(0.0, deadline - time.monotonic())) for ended in threads)
