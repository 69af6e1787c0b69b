"""HTTP/1.1 on one kept-alive connection: one request out, one answer in, and never the same request twice.

A minimal exchange of our own, for two reasons (`python -m bench.http` measures the first):

- Client CPU per request, ten clients: http.client 245 us, pycurl 140 us, this one 75 us in the same minutes. What a
  client burns on a small machine it takes from the server it measures.
- A call must reach the server at most once. libcurl sends a POST again when a kept-alive connection is cut before the
  first byte of the answer, and says nothing of it: a scan would be made twice and counted once.

What it does not do: pipelining, proxies, following redirects, compression.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
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


class Wire:
    """One client's connection. `exchange` is the hot path."""

    def __init__(self, address: SplitResult) -> None:
        """Nothing is opened yet."""
        self._address = address
        self._socket: socket.socket | None = None
        self._used = 0.0
        self._refused = False
        self._shut = False
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
                if secure:
                    connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
                connection.settimeout(limit)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            self._refused = True
            raise _no_connection(self._address, error) from error
        self._socket, self._refused, self._shut, self._used = connection, False, False, time.monotonic()
        self.opened += 1

    def exchange(self, head: Head, body: bytes, now: float) -> tuple[bytes, bytes, bytes]:
        """Send one request; status, head in lower case and body of its answer. `now` is time.monotonic()'s.

        Raises HarnessError where a connection had to be opened and could not, NotSentError and LostError.
        """
        connection = self._socket
        if connection is None or self._shut or now - self._used > _IDLE:
            connection = self._usable()
        try:
            connection.sendall(head.of(len(body)) + body)
        except OSError as error:
            self.close()
            raise NotSentError(str(error)) from error
        try:
            answer = self._receive(connection)
        except (OSError, ValueError) as error:
            self.close()
            raise LostError(str(error)) from error
        self._used = time.monotonic()
        return answer

    def shut(self) -> None:
        """End the exchange in flight, from another thread."""
        connection = self._socket
        if connection is not None:
            self._shut = True
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def _usable(self) -> socket.socket:
        """The connection after a pause, or a new one."""
        connection = self._socket
        # Nothing is owed to us, so something to read is the end of the connection: the server closed it meanwhile.
        if connection is not None and not self._shut and not select.select([connection], [], [], 0)[0]:
            return connection
        self.close()
        self.open()
        assert self._socket is not None
        return self._socket

    def _receive(self, connection: socket.socket) -> tuple[bytes, bytes, bytes]:
        """Status, head in lower case and body of one answer. Raises ValueError or OSError when it is incomplete."""
        data = connection.recv(_CHUNK)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += _more(connection)
        head, rest = data[: end + 2].lower(), data[end + 4 :]
        if not head.startswith(b"http/1."):
            raise ValueError("the answer is not HTTP/1")
        status = head[9:12]
        if not status.isdigit():
            raise ValueError("the answer has no status")
        if status[:1] == b"1":
            raise ValueError(f"an interim answer {status.decode()} nobody asked for")
        if b"\r\ntransfer-encoding: chunked" in head:
            body = _dechunk(connection, rest)
        elif (at := head.find(b"\r\ncontent-length:")) >= 0:
            length = int(head[at + 17 : head.index(b"\r\n", at + 17)])
            while len(rest) < length:
                rest += _more(connection)
            body = rest[:length]
        elif status in (b"204", b"304"):
            body = b""
        else:  # ends with the connection
            while piece := connection.recv(_CHUNK):
                rest += piece
            body = rest
            self.close()
        if b"\r\nconnection: close" in head:
            self.close()
        return status, head, body


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
        f"{url!r} is no address of a PostgREST.",
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


def _dechunk(connection: socket.socket | ssl.SSLSocket, data: bytes) -> bytes:
    """The body of a chunked answer of which `data` was read. Raises ValueError or OSError when it is incomplete."""
    body = b""
    at = 0
    while True:
        while (end := data.find(b"\r\n", at)) < 0:
            data += _more(connection)
        size = int(data[at:end].partition(b";")[0], 16)
        at = end + 2 + size
        while len(data) < at + 2:
            data += _more(connection)
        if size == 0:
            while data[at : at + 2] != b"\r\n":  # trailers, up to the empty line
                while (end := data.find(b"\r\n", at)) < 0:
                    data += _more(connection)
                at = end + 2
                while len(data) < at + 2:
                    data += _more(connection)
            return body
        body += data[end + 2 : at]
        at += 2


def _more(connection: socket.socket) -> bytes:
    piece = connection.recv(_CHUNK)
    if not piece:
        raise ValueError("cut before the answer was complete")
    return piece
