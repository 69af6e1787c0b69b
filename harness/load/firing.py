"""The firing loop: the hot path, which `make bench` measures.

A pattern's generator decides when the next call is made and with what; the loop makes it and writes it down. It has two
forms: one client on a thread of its own, whose jobs may wait for the clock, and several clients side by side, whose
jobs wait for one another, or pause. Nothing in either formats, logs or takes a lock, but to reach a caller that can
only wait, behind a pool. What watches them, for timeouts and progress, only reads the columns from the main thread.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from harness.contracts.contract import Effect
from harness.targets.target import Answer, Caller, Duplex

if TYPE_CHECKING:
    from harness.load.crew import Client, Crew

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

JobOrWait = Job | Wait


class Waits(Enum):
    """What a client's jobs wait for, which decides the thread that fires them."""

    CLOCK = "the clock"
    """On a thread of its own."""
    NOTHING = "nothing but its own pause"
    """Side by side with its like on one thread, where its connection can be polled."""
    OTHERS = "the other clients"
    """Side by side with its like on one thread: then released together means by one hand, one send after the other."""


Jobs = Callable[["Client"], Generator[JobOrWait, None, None]]
"""Gives each client its jobs."""

clock = time.perf_counter_ns

TICK = 0.1
"""Seconds between two looks: of the main thread at its clients, of the loop at whether it was stopped."""


def fire(client: Client, jobs: Iterator[JobOrWait], crew: Crew) -> None:
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


def fire_side_by_side(clients: Sequence[tuple[Client, Iterator[JobOrWait]]], crew: Crew) -> None:
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

    def _park(self, lane: _Lane, step: JobOrWait | None) -> None:
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
        return min(max(0.0, first - time.monotonic()), TICK) * 1000

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

    def __init__(self, client: Client, jobs: Iterator[JobOrWait], stack: ExitStack) -> None:
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
