"""Whether the server still answers: a frozen one must not hold a run for ever.

A server that is stopped, or whose machine is, tells nobody: each read waits without end, and a read in C does not even
heed Ctrl-C. So a thread asks the server for a sign of life, on a connection of its own; when none comes, it cuts every
connection of the harness to that server, and whoever waited has an error to report. A server that dies tells every
client, but for those behind a PostgREST, which lives on, and would answer as many calls as are planned with an error.
"""

from __future__ import annotations

import gc
import select
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg

from harness.environment import own

_EVERY = 1.0
"""Seconds between two questions."""

_AT_LEAST, _AT_MOST = 3.0, 10.0
"""Seconds of silence that a server is given; in between, what a call is given."""

_GONE = 2
"""Questions in a row at whose address nobody listened: a server that is restarted is not given up at once."""

_SLICE = 0.1
"""Seconds between two looks whether the run is over."""


class Pulse:
    """Watches a server from start to stop."""

    def __init__(self, dsn: str, timeout: float) -> None:
        """`timeout`, in seconds, is that of a call."""
        self._dsn = dsn
        self._limit = min(max(timeout, _AT_LEAST), _AT_MOST)
        self._unheard = 0
        """Questions in a row that nobody was there to hear."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to watch, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Returns at once: the thread sees to its connection itself."""
        self._over.set()
        own.answers(self._dsn)

    def _watch(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._over.wait(_EVERY):
            if connection is None or connection.closed:
                connection = self._connected()
                continue
            if not self._beats(connection):
                connection.close()
                connection = self._connected()  # perhaps it was only this backend
        if connection is not None:
            connection.close()

    def _connected(self) -> psycopg.Connection[Any] | None:
        try:
            connection = own.Connection.connect(self._dsn, autocommit=True, connect_timeout=2, watched=False)
        except psycopg.errors.ConnectionTimeout:
            gc.collect()  # the socket that was tried hangs in a cycle, and under load nobody else collects
            if not self._over.is_set():
                own.cut(self._dsn, f"the server has not answered for {self._limit + 2:.0f} s: it is stopped, or hangs")
            return None
        except psycopg.Error:
            # One that is full, or starting, tells whoever uses it so.
            self._unheard = 0 if own.listens(self._dsn) else self._unheard + 1
            if self._unheard >= _GONE and not self._over.is_set():
                own.cut(self._dsn, "the server is gone: nobody listens at its address any more")
            return None
        self._unheard = 0
        own.answers(self._dsn)
        return connection

    def _beats(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether the server answers in time. A connection that is closed under us is no silence."""
        pgconn = connection.pgconn
        with suppress(psycopg.Error, OSError):
            pgconn.send_query(b"SELECT")
            poll, deadline = select.poll(), time.monotonic() + self._limit
            poll.register(pgconn.socket, select.POLLIN)
            while not self._over.is_set():
                if poll.poll(_SLICE * 1000):
                    pgconn.consume_input()
                    if not pgconn.is_busy():
                        while pgconn.get_result() is not None:
                            pass
                        return True
                elif time.monotonic() > deadline:
                    return False
        return self._over.is_set()
