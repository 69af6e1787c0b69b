"""Connections to a server that was booted here: they obey nobody's environment.

libpq fills what a DSN leaves open from PGHOSTADDR, PGPORT, PGOPTIONS and forty more, and from service files. A run that
left anything open could write into whatever server those mean. So a booted server's DSN names every parameter, and
`Connection` keeps away the four variables that no DSN can answer.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode
from weakref import WeakSet

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

CONNECT_TIMEOUT = 10
"""Seconds to wait for one connection."""

LOST = re.compile(r"57P0[1-4]|08...")
"""SQLSTATEs of a connection that an administrator, a crash, a shutdown, a dropped database or a network has ended."""

CANCEL_TIMEOUT = 2.0
"""Seconds that a request to cancel may take."""

_NO_FILE = "/dev/null/none"
"""Cannot exist: an empty passfile would mean ~/.pgpass. Also what a booted server's DSN is known by."""

_NEUTRAL = {
    "connect_timeout": str(CONNECT_TIMEOUT),
    "passfile": _NO_FILE,
    # A booted server speaks neither; so nobody's certificates and tickets are looked for.
    "sslmode": "disable",
    "gssencmode": "disable",
    # Numbers and words, of which an empty one is an error; as libpq has them where nothing is said.
    "keepalives": "0",  # on this machine a peer that is gone says so
    "keepalives_idle": "0",
    "keepalives_interval": "0",
    "keepalives_count": "0",
    "tcp_user_timeout": "0",
    "sslcertmode": "disable",
    "require_auth": "none,password,md5,scram-sha-256",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
}
"""Values for those parameters that have no default to be named, or one that will not do."""

_NEWER = frozenset(
    [
        *("sslcrldir", "sslsni", "require_auth", "load_balance_hosts", "sslcertmode", "sslnegotiation"),
        *("gssdelegation", "min_protocol_version", "max_protocol_version", "scram_client_key", "scram_server_key"),
        *("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope", "sslkeylogfile", "servicefile"),
    ]
)
"""Parameters that libpq 13 does not know, and so no DSN that any program is given: `Connection` names them."""

_BEYOND_DSN = ("PGSERVICE", "PGTZ", "PGDATESTYLE", "PGGEQO")
"""libpq sends the last three to the server whatever the DSN says, and looks for a service before it reads the DSN."""


def own_dsn(*, user: str, dbname: str, host: str, port: str, password: str = "") -> str:
    """The URI of a booted server: every parameter, those given and the others neutral."""
    login = {"user": user, "password": password, "dbname": dbname}
    found = {"host": host, "port": port}
    found |= {n: v for n, v in _neutral().items() if n not in _NEWER and n not in login and n not in found}
    who = quote(user, safe="") + (":" + quote(password, safe="") if password else "")
    return f"postgresql://{who}@/{quote(dbname, safe='')}?{urlencode(found, quote_via=quote, safe='/')}"


@cache
def _neutral() -> dict[str, str]:
    """Every parameter that an environment or a service can set, with a value that says nothing."""
    return {
        name: _NEUTRAL.get(name, (option.compiled or b"").decode())
        for option in pq.Conninfo.get_defaults()
        if (name := option.keyword.decode()) != "service" and (option.envvar or name not in _NEWER)
    }


def dsn_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a DSN's parameters that say something: all of somebody else's, the chosen ones of a booted server's."""
    if parameters.get("passfile") != _NO_FILE:
        return dict(parameters)
    return {name: parameters[name] for name in ("host", "port", "user", "password", "dbname") if name in parameters}


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of the harness: it obeys nobody's environment where its DSN is that of a booted server, and is cut
    when the server stops answering.
    """

    _server: tuple[str, str]

    @classmethod
    def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, watched: bool = True, **options: Any
    ) -> Connection:
        """As psycopg's; not `watched`, it is not cut. Raises psycopg.Error, at once where the server is silent."""
        if watched and _silent and (reason := _silent.get(_server(conninfo))):
            raise psycopg.OperationalError(reason)
        if _NO_FILE not in conninfo:
            opened = super().connect(conninfo, **options)
        else:
            options |= {name: value for name, value in _neutral().items() if name in _NEWER}
            with _undisturbed():
                opened = super().connect(conninfo, **options)
        if (styles := _unread_styles(opened)) and styles not in str(options.get("options")):
            # A database's own style of dates: the driver reads but one. As an option it also outlasts a RESET ALL.
            options["options"] = " ".join(filter(None, [str(conninfo_to_dict(conninfo).get("options") or ""), styles]))
            opened.close()
            return cls.connect(conninfo, watched=watched, **options)
        if watched:
            opened._server = _server(conninfo)
            with _lock:
                _open.add(opened)
        return opened

    def shut(self) -> None:
        """Cut it under whoever waits for its answer on another thread."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.pgconn.socket)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    def cancel_if_it_answers(self) -> None:
        """Have the server cancel what runs; a server that hangs takes no such request either, which is no error."""
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=CANCEL_TIMEOUT)


def _unread_styles(connection: Connection) -> str:
    """Options that give dates and intervals in a style that the driver reads, where another one is set."""
    date = connection.info.parameter_status("DateStyle") or "ISO"
    interval = connection.info.parameter_status("IntervalStyle") or "postgres"
    style, _, order = date.partition(", ")
    found = [] if style == "ISO" else [f"-c datestyle=ISO,{order or 'MDY'}"]
    return " ".join(found + ([] if interval == "postgres" else ["-c intervalstyle=postgres"]))


_open: WeakSet[Connection] = WeakSet()
_silent: dict[tuple[str, str], str] = {}
"""Servers that do not answer, by host and port, and what is to be said of them."""


def cut(dsn: str, reason: str) -> None:
    """Cut every watched connection to a server, and refuse new ones for that reason, until it answers again."""
    server = _server(dsn)
    with _lock:
        found = list(_open)
    _silent[server] = reason
    for connection in found:
        if connection._server == server:
            connection.shut()


def is_loss(error: psycopg.Error) -> bool:
    """Whether it says that the connection has ended, and so nothing of the statement."""
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or LOST.fullmatch(error.sqlstate) is not None
    )


def listens(dsn: str) -> bool:
    """Whether anybody is at the server's address, be it one who is full, or starts and takes nobody yet."""
    asked = make_conninfo(dsn, connect_timeout=2).encode()  # no other thread runs while libpq waits for it
    with _undisturbed() if _NO_FILE in dsn else nullcontext():
        return pq.PGconn.ping(asked) != pq.Ping.NO_RESPONSE


def next_result(pgconn: pq.abc.PGconn) -> pq.abc.PGresult | None:
    """The next result of what was sent, None behind the last one. Raises psycopg.OperationalError where it is lost.

    Not awaited in get_result, which keeps the interpreter to itself: nobody could cut the connection to a frozen
    server, and no signal would be heeded.
    """
    while pgconn.is_busy():
        ready = select.poll()
        ready.register(pgconn.socket, select.POLLIN)
        ready.poll()
        pgconn.consume_input()
    return pgconn.get_result()


def is_silent(dsn: str) -> bool:
    """Whether the server has stopped answering, as its pulse says."""
    return bool(_silent) and _server(dsn) in _silent


def answers(dsn: str) -> None:
    """The server answers, or is watched no longer."""
    _silent.pop(_server(dsn), None)


def _server(dsn: str) -> tuple[str, str]:
    parts = conninfo_to_dict(dsn)
    host, port = parts.get("host") or os.environ.get("PGHOST"), parts.get("port") or os.environ.get("PGPORT")
    return str(host or ""), str(port or "5432")


def environment() -> dict[str, str]:
    """The environment for the programs of a booted server: without anything of libpq's or the server's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def environment_for(dsn: str) -> dict[str, str]:
    """What a client program needs of libpq's environment to reach the DSN's server under a login of its own.

    Nothing where the server was booted here; somebody else's may be where their environment says.
    """
    if _NO_FILE in dsn:
        return {}
    login = ("PGUSER", "PGPASSWORD", "PGPASSFILE", "PGOPTIONS")
    return {k: v for k, v in os.environ.items() if k.startswith("PG") and not k.startswith("PGRST_") and k not in login}


_lock = threading.Lock()
_inside = 0
_kept: dict[str, str] = {}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the variables that no DSN can answer; side by side too: the first takes them away, the last returns them.

    They are taken for the moment only, since in a test suite the environment is somebody else's.
    """
    global _inside
    with _lock:
        _inside += 1
        for name in _BEYOND_DSN:
            if (value := os.environ.pop(name, None)) is not None:
                _kept[name] = value
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                os.environ.update(_kept)
                _kept.clear()
