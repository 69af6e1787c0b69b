"""The firing loop, and the crew of client threads that run it.

One loop serves every pattern: a pattern's generator decides when the next call is made and with what, `fire` makes it
and writes it down. Nothing in the loop formats, logs or takes a lock; what watches it (timeouts, progress) only reads
the columns from the main thread. `make bench` measures it against pgbench.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import closing
from typing import Any

from harness.contracts.contract import Contract, Effect
from harness.history import History, Log
from harness.targets.target import Caller, Span, Target

Job = tuple[int, Any, int, int]
"""When the call is due (clock reading; 0: now), its encoded key, its argument variant, its phase."""

clock = time.perf_counter_ns

_TICK = 0.1
"""Seconds between two looks of the main thread at its clients."""

_GRACE = 2.0
"""Seconds a cancelled call gets to come back before its connection is cut."""


def fire(caller: Caller, log: Log, jobs: Iterator[Job]) -> None:
    """Make each job's call and append it to the log, until the jobs or the connection end. The hot path."""
    call, in_doubt = caller.call, Effect.IN_DOUBT
    key_append, variant_append, phase_append = log.keys.append, log.variants.append, log.phases.append
    due_append, called_append, returned_append = log.due.append, log.called.append, log.returned.append
    outcome_append, evidence_extend = log.outcomes.append, log.evidence.extend
    for due, key, variant, phase in jobs:
        called = clock()
        called_append(called)
        outcome, evidence = call(key, variant)
        returned = clock()
        due_append(due or called)
        key_append(key)
        variant_append(variant)
        phase_append(phase)
        outcome_append(outcome)
        evidence_extend(evidence)
        returned_append(returned)
        if outcome.effect is in_doubt and not caller.alive:
            return


class Client:
    """One simulated client: its connection, its log, and the thread that fires its calls."""

    __slots__ = ("caller", "error", "log", "number", "target")

    def __init__(self, number: int, target: Target, log: Log) -> None:
        self.number = number
        self.target = target
        self.log = log
        self.caller: Caller | None = None
        self.error: BaseException | None = None


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
        self._cancelled: dict[int, tuple[int, int]] = {}

    def open(self, warm_up_keys: Sequence[Hashable]) -> None:
        """Connect and warm every client, side by side. Raises the first error."""

        def connect(client: Client) -> None:
            client.caller = client.target.connect(
                client.number,
                client.log.arguments,
                overlap=self.overlap(client.number),
                warm_up=warm_up_keys[client.number],
            )

        self._on_threads(connect, self.clients, watch=False)

    def fire(self, jobs: Callable[[Client], Generator[Job, None, None]]) -> None:
        """Fire every client's jobs; they start together, after all threads are up."""
        crew = self.clients
        ready = threading.Barrier(len(crew) + 1)
        start = threading.Event()

        def run(client: Client) -> None:
            assert client.caller is not None
            ready.wait()
            start.wait()
            with closing(jobs(client)) as mine:
                fire(client.caller, client.log, mine)

        # A collection in the middle would stand still with all clients, and the loop makes no cycles.
        gc.collect()
        gc.disable()
        try:
            threads = self._start_threads(run, crew)
            ready.wait()
            self.started = clock()
            start.set()
            self._await(threads, crew, watch=True)
        finally:
            gc.enable()

    def history(self, unknown_keys: Sequence[Hashable]) -> History:
        return History([c.log for c in self.clients], self.started, unknown_keys)

    def spans(self) -> list[tuple[int, Span]]:
        """(phase, span) of every call whose time on the server is known."""
        return [
            (phase, span)
            for client in self.clients
            if client.caller is not None
            for phase, span in zip(client.log.phases, client.caller.spans, strict=False)
            if span is not None
        ]

    def close(self) -> None:
        for client in self.clients:
            if client.caller is not None:
                client.caller.close()

    def _on_threads(self, work: Callable[[Client], None], crew: Sequence[Client], *, watch: bool) -> None:
        self._await(self._start_threads(work, crew), crew, watch=watch)

    def _start_threads(self, work: Callable[[Client], None], crew: Sequence[Client]) -> list[threading.Thread]:
        def guarded(client: Client) -> None:
            try:
                work(client)
            except BaseException as error:
                client.error = error
                self.stopped.set()

        threads = [
            threading.Thread(target=guarded, args=(client,), name=f"client-{client.number}", daemon=True)
            for client in crew
        ]
        for thread in threads:
            thread.start()
        return threads

    def _await(self, threads: Sequence[threading.Thread], crew: Sequence[Client], *, watch: bool) -> None:
        """Join the threads; meanwhile cancel calls that outlast the timeout and show progress."""
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_TICK)
                    if watch:
                        self._watch(crew)
        except BaseException:
            # Ctrl-C: no new call, and those in flight are given up.
            self.stopped.set()
            self._give_up(threads, crew)
            raise
        for client in crew:
            if client.error is not None:
                raise client.error

    def _watch(self, crew: Sequence[Client]) -> None:
        now, limit = clock(), int(self.timeout * 1e9)
        for client in crew:
            in_flight = self._in_flight(client)
            if in_flight is None or now - in_flight[1] < limit:
                continue
            assert client.caller is not None
            if self._cancelled.get(client.number) != in_flight:
                self._cancelled[client.number] = in_flight
                self.timeouts += 1
                client.caller.cancel()
            elif now - in_flight[1] > limit + int(_GRACE * 1e9):
                client.caller.abort()
        if self._progress is not None:
            self._progress(sum(len(client.log) for client in crew))

    @staticmethod
    def _in_flight(client: Client) -> tuple[int, int] | None:
        """Number and start of the call that a client is waiting for."""
        calls = len(client.log.called)
        return (calls, client.log.called[calls - 1]) if calls > len(client.log.returned) else None

    def _give_up(self, threads: Sequence[threading.Thread], crew: Sequence[Client]) -> None:
        for client in crew:
            if client.caller is not None and self._in_flight(client) is not None:
                client.caller.cancel()
        deadline = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for client, thread in zip(crew, threads, strict=True):
            if thread.is_alive() and client.caller is not None:
                client.caller.abort()
        for thread in threads:
            thread.join(_GRACE)
