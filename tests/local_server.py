"""A small HTTP server that answers as a test wants it to: the answers a real PostgREST cannot be made to give."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CUT = b""
"""An answer that is none: the connection is cut after the request was read."""

HANG = None
"""No answer, and the connection stays open."""

Answer = bytes | Sequence[bytes] | None


class LocalServer:
    """Answers the requests in the order they come; the last answer serves all that follow."""

    def __init__(self, *answers: Answer, certificate: Path | None = None) -> None:
        self._answers = answers
        self._tls = None if certificate is None else ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._tls is not None and certificate is not None:
            self._tls.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.requests: list[bytes] = []
        """Bodies and heads as they arrived."""
        self.closed_one = threading.Event()
        """Set when the server has closed a connection."""
        self.has_request = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http{'' if self._tls is None else 's'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            while request := _request(connection):
                answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
                self.requests.append(request)
                self.has_request.set()
                self.before_answer(request)
                if answer is HANG:
                    continue
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    if piece == CUT:
                        connection.shutdown(socket.SHUT_RDWR)
                        connection.close()
                        self.closed_one.set()
                        return
                    connection.sendall(piece)

    def before_answer(self, request: bytes) -> None:
        """What a test's own server does first."""

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close alone does not wake the thread that accepts
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@contextmanager
def answering(*answers: Answer, certificate: Path | None = None) -> Iterator[LocalServer]:
    """A server on a loopback port for as long as the context lasts."""
    server = LocalServer(*answers, certificate=certificate)
    try:
        yield server
    finally:
        server.close()


def answer(body: str | bytes, status: str = "200 OK", *headers: str, chunked: bool = False) -> bytes:
    """A whole answer, with its length or chunked."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    if chunked:
        half = len(data) // 2
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (data[:half], data[half:]) if p)
        return "\r\n".join([*lines, "Transfer-Encoding: chunked"]).encode() + b"\r\n\r\n" + pieces + b"0\r\n\r\n"
    return "\r\n".join([*lines, f"Content-Length: {len(data)}"]).encode() + b"\r\n\r\n" + data


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
        if data[:1] == b"\x16":
            return data  # a TLS handshake: no head will come
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
