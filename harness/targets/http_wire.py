"""HTTP/1.1 on one kept-alive connection: one request out, one answer in, and never the same request twice.

A minimal exchange of our own, for two reasons (`python -m bench.http` measures the first):

- Client CPU per request with ten clients, http.client's being 1: pycurl 0.55, this one 0.44, and no fewer requests/s.
  What a client burns on a small machine it takes from the server it measures.
- A call must reach the server at most once. libcurl sends a POST again when a kept-alive connection is cut before the
  first byte of the answer, and says nothing of it: a scan would be made twice and counted once.

What it does not do: pipelining, proxies, following redirects, compression.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from harness.errors import HarnessError, UsageError

_CONNECT_TIMEOUT = 10.0

_IDLE = 1.0
"""Seconds of silence after which a connection is looked at before it is used: the server may have closed it."""

_BACK_OFF = 0.05
"""Seconds between two tries to connect, so that a server that is gone is not flooded."""

_CHUNK = 65536


class NotSentError(Exception):
    """The kernel did not take the whole request, so no complete one is on its way."""


class LostError(Exception):
    """The request was sent and no complete answer came: it may have taken effect."""


class Head:
    """A request's head for every length of its body. It holds the token and does not show it."""

    __slots__ = ("_known", "_start")

    def __init__(self, path: str, headers: Mapping[str, str]) -> None:
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self._start = "\r\n".join(lines).encode("latin-1")
        self._known: dict[int, bytes] = {}

    def of(self, length: int) -> bytes:
        """The whole head, with its empty line."""
        known = self._known.get(length)
        if known is None:
            known = self._known[length] = self._start + b"\r\nContent-Length: %d\r\n\r\n" % length
        return known


class Response(NamedTuple):
    """One whole HTTP response."""

    status: bytes
    head: bytes
    """In lower case."""
    body: bytes
    last: bool
    """Nothing more can be asked on this connection."""


class Wire:
    """One client's connection. `send` and `receive` are the hot path."""

    def __init__(self, address: SplitResult) -> None:
        """Nothing is opened yet."""
        self._address = address
        self._socket: socket.socket | None = None
        self._open = False
        self._used = 0.0
        self._refused = False
        self._data = b""
        self.opened = 0
        """Connections opened so far."""

    def open(self, limit: float | None = None) -> None:
        """Connect; `limit` is the longest silence in seconds. Raises HarnessError with what was tried.

        Calls of a run have no limit here (a limit costs a system call each): whoever runs them cancels late ones.
        """
        if self._refused:
            time.sleep(_BACK_OFF)
        host, port = self._address.hostname or "", self._address.port
        secure = self._address.scheme == "https"
        try:
            connection = socket.create_connection((host, port or (443 if secure else 80)), _CONNECT_TIMEOUT)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = self._in_place_of_the_last(connection)
                if secure:
                    connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
                connection.settimeout(limit)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            self._refused = True
            raise _no_connection(self._address, error) from error
        self._socket, self._open, self._refused, self._used = connection, True, False, time.monotonic()
        self.opened += 1

    def fileno(self) -> int:
        """The same for all connections of this wire, one after the other."""
        assert self._socket is not None
        return self._socket.fileno()

    def send(self, head: Head, body: bytes, now: float) -> None:
        """Send one request; `now` is time.monotonic()'s.

        Raises HarnessError where a connection had to be opened and could not, and NotSentError.
        """
        if not self._open or now - self._used > _IDLE:
            self._make_usable()
        assert self._socket is not None
        try:
            self._socket.sendall(head.of(len(body)) + body)
        except OSError as error:
            self._end()
            raise NotSentError(str(error)) from error

    def receive(self) -> Response | None:
        """Read once; the answer, or None while only a part of it is there. Raises LostError."""
        assert self._socket is not None
        try:
            piece = self._socket.recv(_CHUNK)
            data = self._data + piece if self._data else piece
            answer = parse(data, ended=not piece)
        except (OSError, ValueError) as error:
            self._end()
            raise LostError(str(error)) from error
        if answer is None:
            self._data = data
            if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
                return self.receive()  # decrypted already: nobody who polls the socket would see it
            return None
        self._data = b""
        self._used = time.monotonic()
        if answer.last:
            self._end()
        return answer

    def exchange(self, head: Head, body: bytes, now: float) -> Response:
        """Send one request and wait for its answer."""
        self.send(head, body, now)
        answer = self.receive()
        while answer is None:
            answer = self.receive()
        return answer

    def shut(self) -> None:
        """End the exchange in flight, from another thread."""
        connection = self._socket
        self._open = False
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        connection, self._socket = self._socket, None
        self._open = False
        if connection is not None:
            connection.close()

    def _end(self) -> None:
        """End the connection and keep its number, on which somebody may be polling, for the next one."""
        self._data = b""
        self.shut()

    def _in_place_of_the_last(self, connection: socket.socket) -> socket.socket:
        """The new connection under the number of the one before."""
        last, self._socket = self._socket, None
        if last is None:
            return connection
        number = last.detach()
        os.dup2(connection.fileno(), number)
        connection.close()
        return socket.socket(fileno=number)

    def _make_usable(self) -> None:
        """Look at the connection after a pause, and open another where it has ended."""
        if self._open:
            assert self._socket is not None
            # Nothing is owed to us, so something to read is the end of the connection: the server closed it meanwhile.
            if not select.select([self._socket], [], [], 0)[0]:
                return
            self._end()
        self.open()


def parse(data: bytes, *, ended: bool) -> Response | None:
    """The answer that `data` holds; None while it is not whole. `ended`: nothing more will come.

    Raises ValueError for what is no answer of HTTP/1, or will never be whole.
    """
    answer = _parsed(data, ended)
    if answer is None and ended:
        raise ValueError("cut before the answer was complete")
    return answer


def _parsed(data: bytes, ended: bool) -> Response | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, at = data[: end + 2].lower(), end + 4
    if not head.startswith(b"http/1."):
        raise ValueError("the answer is not HTTP/1")
    status = head[9:12]
    if not status.isdigit() or status[:1] == b"1":
        raise ValueError(f"the answer has the status {status!r}")
    last = b"\r\nconnection: close" in head
    body: bytes | None
    if b"\r\ntransfer-encoding: chunked" in head:
        body = _dechunked(data, at)
    elif (length_at := head.find(b"\r\ncontent-length:")) >= 0:
        length = int(head[length_at + 17 : head.index(b"\r\n", length_at + 17)])
        body = data[at : at + length] if len(data) >= at + length else None
    elif status in (b"204", b"304"):
        body = b""
    else:  # it ends with the connection
        body, last = data[at:] if ended else None, True
    return None if body is None else Response(status, head, body, last)


def _dechunked(data: bytes, at: int) -> bytes | None:
    """The chunked body that starts at `at`; None while it is not whole."""
    pieces: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end].partition(b";")[0], 16)
        at = end + 2 + size
        if size == 0:  # then trailers, up to an empty line
            return b"".join(pieces) if data.find(b"\r\n\r\n", end) >= 0 else None
        if len(data) < at + 2:
            return None
        pieces.append(data[end + 2 : at])
        at += 2


def address_of(url: str) -> SplitResult:
    """The parts of a base URL. Raises UsageError where it is none."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - read for the error it raises
    except ValueError as error:
        raise _no_address(url, str(error)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _no_address(url, "no http:// or https:// with a host")
    if parts.username is not None:
        raise _no_address(f"{parts.scheme}://...", "a user name in it")
    return parts


def _no_address(url: str, why: str) -> UsageError:
    return UsageError(
        f"{url!r} is not an address of a PostgREST.",
        tried=why,
        next_step="it looks like https://PROJECT.supabase.co/rest/v1 or http://127.0.0.1:3000",
    )


def _no_connection(address: SplitResult, error: OSError) -> HarnessError:
    if isinstance(error, ssl.SSLCertVerificationError):
        tried, next_step = f"TLS: {error.verify_message}", "check the certificate, its name and the machine's CA bundle"
    elif isinstance(error, ssl.SSLError):
        tried, next_step = f"TLS: {error.reason or error}", "check whether the server speaks TLS there (https or http?)"
    elif isinstance(error, socket.gaierror):
        tried, next_step = f"the name {address.hostname}: {error.strerror}", "check the host's name"
    else:
        tried, next_step = str(error), "check that PostgREST runs there, and its port"
    return HarnessError(f"No connection to {address.scheme}://{address.netloc}.", tried=tried, next_step=next_step)
