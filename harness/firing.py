"""The firing loop, and the crew of client threads that run it. The hot path; `make bench` measures it.

A pattern's generator decides when the next call is made and with what; the loop makes it and writes it down. It has two
forms: one client on a thread of its own, whose jobs may wait, and several clients side by side, whose jobs never do.
Nothing in either formats, logs or takes a lock; what watches them (timeouts, progress) only reads the columns from the
main thread.
"""

from __future__ import annotations

import gc
import select
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from harness.contracts.contract import IN_DOUBT, Contract, Effect, Outcome
from harness.history import History, Log
from harness.targets.target import Caller, Duplex, Span, Target

Job = tuple[int, Any, int, int]
"""When the call was due (clock reading; 0: now), its encoded key, its argument variant, its phase."""

clock = time.perf_counter_ns

_TICK = 0.1
"""Seconds between two looks of the main thread at its clients."""

_READY_TIMEOUT = 60.0
"""Seconds for all client threads to come up; after Ctrl-C in that time the others must not wait for ever."""

_GRACE = 2.0
"""Seconds a cancelled call gets to come back before its connection is cut."""

INTERRUPTED = "interrupted"
"""Code of a call that was given up because the run was ended by Ctrl-C or SIGTERM."""


def fire(client: Client, jobs: Iterator[Job]) -> None:
    """Make each job's call and append it to the client's log, until the jobs or the connection end.

    For one client on a thread of its own: its jobs may wait for the clock, or for what other clients do.
    """
    caller, in_doubt = client.opened, Effect.IN_DOUBT
    call, write = caller.call, client.log.write
    for due, key, variant, phase in jobs:
        client.since = called = clock()
        outcome, evidence = call(key, variant)
        write(called, clock(), due, key, variant, phase, outcome, evidence)
        client.since = 0
        if outcome.effect is in_doubt and not caller.alive:
            return


def fire_side_by_side(clients: Sequence[tuple[Client, Iterator[Job]]], shared: Log) -> None:
    """The same for several clients on one thread, each with one call in flight; their jobs never wait.

    A group commit answers many clients in the same instant. With a thread for each, they would spend more on handing
    the interpreter's lock around than on their calls; here one look at the sockets serves them all. They write into one
    `shared` log, whose few columns stay in the processor's cache, and it is dealt out to theirs at the end.
    """
    in_doubt, write = Effect.IN_DOUBT, shared.write
    # poll, not epoll: it goes by the number, and a caller that connects again keeps its own.
    sockets = select.poll()
    lanes: dict[int, _Lane] = {}
    owners: list[_Lane] = []
    first = clients[0][0].opened
    for client, jobs in clients:
        lane = _Lane(client, jobs)
        lane.caller.beside(first)
        if lane.start():
            lanes[lane.number] = lane
            sockets.register(lane.number, select.POLLIN)
    try:
        while lanes:
            for number, _ in sockets.poll():
                lane = lanes[number]
                answer = lane.receive()
                if answer is None:
                    continue  # only a part of it is there
                returned, called = clock(), lane.client.since
                outcome, evidence = answer
                due, key, variant, phase = lane.job
                # The next call goes out before this one is written down, while the server has something to do.
                if (outcome.effect is in_doubt and not lane.caller.alive) or not lane.start():
                    sockets.unregister(number)
                    del lanes[number]
                    lane.client.since = 0
                write(called, returned, due, key, variant, phase, outcome, evidence)
                owners.append(lane)
    finally:
        for lane, row in zip(owners, shared.rows(), strict=True):
            lane.client.log.write(*row)


class _Lane:
    """One client of the loop above: what it needs of it, looked up once."""

    __slots__ = ("caller", "client", "job", "next_job", "number", "receive", "send")

    job: Job

    def __init__(self, client: Client, jobs: Iterator[Job]) -> None:
        assert isinstance(client.caller, Duplex)
        self.client = client
        self.caller = client.caller
        self.number = client.caller.fileno()
        self.send, self.receive = client.caller.send, client.caller.receive
        self.next_job = jobs.__next__

    def start(self) -> bool:
        """Send the next call; False when there is none."""
        try:
            self.job = job = self.next_job()
        except StopIteration:
            return False
        self.client.since = clock()
        self.send(job[1], job[2])
        return True


@contextmanager
def without_collections() -> Iterator[None]:
    """Put the garbage collector off: it would stop all clients at once, and neither firing nor judging makes cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Client:
    """One simulated client: its connection, its log, and the thread that fires its calls."""

    __slots__ = ("caller", "log", "number", "since", "target")

    def __init__(self, number: int, target: Target, log: Log) -> None:
        self.number = number
        self.since = 0
        """The clock's reading when its call in flight started; 0: none is."""
        self.target = target
        self.log = log
        self.caller: Caller | None = None

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
        self.timeouts = 0
        """Calls that outlasted the timeout and were cancelled."""
        self._progress = progress
        self.clients: list[Client] = []
        evidence = [c.name for c in contract.function.columns if c.evidence]
        for number in range(clients):
            target = target_of(number)
            arguments = [dict(variant.arguments(number)) for variant in contract.variants]
            log = Log(number, target.name, arguments, evidence, target.decode_key, target.decode_evidence)
            self.clients.append(Client(number, target, log))
        self._error: BaseException | None = None
        self._cancelled: dict[int, int] = {}
        self._shared: list[Log] = []

    def open(self, warm_up_keys: Sequence[Hashable]) -> None:
        """Connect and warm every client, side by side. Raises the first error."""

        def connect(client: Client) -> None:
            client.caller = client.target.connect(
                client.number,
                client.log.arguments,
                overlap=self.overlap(client.number),
                warm_up=warm_up_keys[client.number],
            )

        threads = self._start_threads(lambda crew: connect(*crew), [[c] for c in self.clients])
        try:
            self._join(threads, watch=False)
        except BaseException:
            self._stop()
            self._give_up(threads)
            raise

    def fire(
        self,
        jobs: Callable[[Client], Generator[Job, None, None]],
        independent: Callable[[int], bool] = lambda client: False,  # noqa: ARG005
    ) -> None:
        """Fire every client's jobs; they start together, after all threads are up.

        `independent` says which clients' jobs never wait, so that they may share threads.
        """
        crews = self._shared_out(independent)
        ready = threading.Barrier(len(crews) + 1)
        start = threading.Event()

        def run(crew: Sequence[Client]) -> None:
            ready.wait(_READY_TIMEOUT)
            start.wait()
            with ExitStack() as stack:
                mine = [(client, stack.enter_context(closing(jobs(client)))) for client in crew]
                if len(mine) == 1:
                    fire(*mine[0])
                else:
                    shared = crew[0].log.like()
                    self._shared.append(shared)
                    fire_side_by_side(mine, shared)

        with without_collections():
            threads = self._start_threads(run, crews)
            try:
                ready.wait(_READY_TIMEOUT)
                self.started = clock()
                start.set()
                self._join(threads, watch=True)
            except BaseException:
                # Ctrl-C, at whatever moment: no new call, and those in flight are given up.
                self._stop()
                start.set()
                self._give_up(threads)
                raise
        self._shared.clear()

    def history(self, unknown_keys: Sequence[Hashable]) -> History:
        return History([c.log for c in self.clients], self.started, unknown_keys)

    def spans(self) -> list[tuple[int, Hashable, Span]]:
        """(phase, key, span) of every call whose time on the server is known.

        The span of a held call goes on for as long as its transaction was held open after the answer.
        """
        found: list[tuple[int, Hashable, Span]] = []
        for client in self.clients:
            log, spans = client.log, () if client.caller is None else client.caller.spans
            for position, (phase, key, span) in enumerate(zip(log.phases, log.keys, spans, strict=False)):
                if span is not None:
                    longer = Span(span.started, span.ended + log.open_for.get(position, 0) // 1000)
                    found.append((phase, client.target.decode_key(key), longer))
        return found

    def close(self) -> None:
        for client in self.clients:
            if client.caller is not None:
                client.caller.close()

    def _shared_out(self, independent: Callable[[int], bool]) -> list[list[Client]]:
        """Which clients each thread drives."""
        shared = [c for c in self.clients if independent(c.number) and isinstance(c.caller, Duplex)]
        own = [[c] for c in self.clients if c not in shared]
        # One thread for all of them: a second one would contend with it for the interpreter.
        return [*own, shared] if shared else own

    def _start_threads(
        self, work: Callable[[Sequence[Client]], None], crews: Sequence[Sequence[Client]]
    ) -> list[threading.Event]:
        """Start a thread for each crew; the events are set when they end.

        Their ends are awaited by events of our own: a join that Ctrl-C interrupts takes its thread for ended
        (CPython 3.11, `Thread._wait_for_tstate_lock`).
        """
        ends = []
        for crew in crews:
            ended = threading.Event()
            ends.append(ended)

            def guarded(crew: Sequence[Client] = crew, ended: threading.Event = ended) -> None:
                try:
                    work(crew)
                except BaseException as error:
                    self._error = self._error or error
                    self._stop()
                finally:
                    ended.set()

            threading.Thread(target=guarded, name=f"client-{crew[0].number}", daemon=True).start()
        return ends

    def _join(self, threads: Sequence[threading.Event], *, watch: bool) -> None:
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
            if not since or now - since < limit:
                continue
            if self._cancelled.get(client.number) != since:
                self._cancelled[client.number] = since
                self.timeouts += 1
                client.opened.cancel()
            elif now - since > limit + int(_GRACE * 1e9):
                client.opened.abort()
        if self._progress is not None:
            self._progress(sum(len(log) for log in (*(client.log for client in self.clients), *self._shared)))

    def _give_up(self, threads: Sequence[threading.Event]) -> None:
        in_flight = [(client, client.since) for client in self.clients if client.since]
        for client, _ in in_flight:
            client.opened.cancel()
        if not _joined(threads):
            for client, _ in in_flight:
                client.opened.abort()
            _joined(threads)
        for client, since in in_flight:
            log = client.log
            if log.called and log.called[-1] == since and log.outcomes[-1].effect is Effect.FAILED:
                # Our cancellation is no fault of the function's.
                log.outcomes[-1] = Outcome(IN_DOUBT, Effect.IN_DOUBT, INTERRUPTED, "given up by the harness")


def _joined(threads: Sequence[threading.Event]) -> bool:
    """Whether all threads ended within the grace."""
    deadline = time.monotonic() + _GRACE
    return all(ended.wait(max(0.0, deadline - time.monotonic())) for ended in threads)
