"""A Postgres in a container, through Testcontainers."""

from __future__ import annotations

import gc
import io
import json
import secrets
import tarfile
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from harness.environment import platforms, remains
from harness.environment.leftovers import Leftover
from harness.environment.own import CONNECT_TIMEOUT, Connection, own_dsn
from harness.environment.servers import DEADLOCK_TIMEOUT, MAX_CONNECTIONS, Server
from harness.errors import HarnessError
from harness.sqltext import queries

if TYPE_CHECKING:
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.core.container import DockerContainer


_START_TIMEOUT = 60.0

_SQL = queries.own("harness.environment")


class ContainerServer(Server):
    """One container from `image`; removed, with its volume, at the end."""

    kind = "container"

    def __init__(self, image: str) -> None:
        super().__init__()
        self.image = image
        self._container: PostgresContainer | None = None

    @property
    def dsn(self) -> str:
        assert self._container is not None
        container = self._container
        return own_dsn(
            host=container.get_container_host_ip(),
            port=str(container.get_exposed_port(container.port)),
            user=container.username,
            password=container.password,
            dbname=container.dbname,
        )

    def start(self) -> None:
        reason = why_not(self.image)
        if reason is not None:
            raise HarnessError(
                f"The container cannot be started: {reason}.",
                tried=f"the Docker engine of this machine, image {self.image}",
                next_step="start Docker, name an image it has with --postgres-image, or use --server embedded",
            )
        for leftover in left():
            remove(leftover)
        self._container = _container(self.image, self.token)
        try:
            self._container.start()
        except Exception as error:  # Testcontainers and docker-py raise many kinds
            raise HarnessError(
                f"The container of {self.image} cannot be started.",
                tried=" ".join(str(error).split()),
                next_step="try `docker run` with the image, or use --server embedded",
            ) from error
        self._await_ready(self._container)
        self._bring_stand_ins(self._container)

    def _bring_stand_ins(self, container: PostgresContainer) -> None:
        """Put control and script files of the stand-ins among the image's own extensions, those that it lacks."""
        with Connection.connect(self.dsn, connect_timeout=CONNECT_TIMEOUT) as connection:
            (there, folder) = connection.execute(_SQL["available_extensions"]).fetchone() or ([], "")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in platforms.files(without=there).items():
                file = tarfile.TarInfo(name)
                file.size, file.mode = len(content.encode()), 0o644
                archive.addfile(file, io.BytesIO(content.encode()))
        container.get_wrapped_container().put_archive(f"{folder}/extension", packed.getvalue())

    def _await_ready(self, container: PostgresContainer) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                with Connection.connect(self.dsn, connect_timeout=2) as connection:
                    self.verify(connection)
            except psycopg.OperationalError as error:
                wrapped = container.get_wrapped_container()
                wrapped.reload()
                if wrapped.status == "exited" or time.monotonic() > deadline:
                    log = wrapped.logs(tail=10).decode(errors="replace").strip()
                    raise HarnessError(
                        f"The container of {self.image} did not become ready ({wrapped.status}).",
                        tried=f"{' '.join(str(error).split())}\n{log}",
                        next_step="mend the image, or use --server embedded",
                    ) from error
                time.sleep(0.05)
            else:
                return

    @property
    def container_id(self) -> str:
        """Id of the running container."""
        assert self._container is not None
        return str(self._container.get_wrapped_container().id)

    def stop(self) -> None:
        if self._container is not None:
            self._container.stop()


def _container(image: str, token: str) -> PostgresContainer:
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(
        image, username="supabase_admin", password=secrets.token_hex(8), dbname="harness", driver=None
    ).with_command(
        [
            "postgres",
            "-c",
            f"max_connections={MAX_CONNECTIONS}",
            "-c",
            f"deadlock_timeout={DEADLOCK_TIMEOUT}",
            "-c",
            "track_functions=all",
            "-c",
            f"cluster_name={token}",
        ]
    )
    # Readiness is asked from outside: its own way, psql in the container once a second, finds it later.
    container._connect = lambda: None
    keep_private(container)
    return container


_LABEL = "pg-concurrency-harness.owner"


def keep_private(container: DockerContainer) -> None:
    """Say whose it is, and publish its ports on loopback only, where the engine is on this machine."""
    container.with_kwargs(**container._kwargs, labels={_LABEL: json.dumps(remains.owner())})
    if container.get_container_host_ip() in ("localhost", "127.0.0.1"):
        ports: Any = dict.fromkeys(container.ports, ("127.0.0.1", None))
        container.ports = ports


def engine_answers() -> bool:
    """Whether there is a Docker engine."""
    try:
        import docker

        client = docker.from_env()
    except Exception:  # docker-py is not there, or finds none: it raises many kinds
        return False
    client.close()
    return True


def left() -> list[Leftover]:
    """Containers of runs that are dead; Testcontainers' own helper, where it runs, has removed them already."""
    import docker

    found = []
    client = docker.from_env()
    try:
        for container in client.containers.list(all=True, filters={"label": _LABEL}):
            with suppress(ValueError):
                owner = json.loads(container.labels[_LABEL])
                if isinstance(owner, dict) and remains.dead(owner):
                    found.append(Leftover("container", str(container.id), str(owner["pid"])))
    finally:
        client.close()
    return found


def remove(leftover: Leftover) -> None:
    """Remove such a container, with its volume."""
    import docker

    client = docker.from_env()
    try:
        with suppress(docker.errors.NotFound):
            client.containers.get(leftover.name).remove(force=True, v=True)
    finally:
        client.close()


def why_not(image: str) -> str | None:
    """Why a container of `image` cannot be had here; None when it can. Pulls images where that is needed."""
    with warnings.catch_warnings():
        # docker-py leaves the socket of a failed connection to the garbage collector: in a suite that makes errors of
        # warnings, somebody's test would fail for it.
        warnings.simplefilter("ignore", ResourceWarning)
        reason = _why_not(image)
        if reason is not None:
            gc.collect()
    return reason


def _why_not(image: str) -> str | None:
    try:
        import docker
        from docker.errors import DockerException, ImageNotFound
        from testcontainers.core.config import testcontainers_config
    except ImportError as error:
        return f"testcontainers is not installed ({error})"
    try:
        client = docker.from_env()
        client.ping()
    except Exception as error:  # requests' own errors pass through docker-py
        return f"no Docker engine answers ({_short(error)})"
    # Ryuk is Testcontainers' own helper, which removes containers that were forgotten.
    ryuk = [] if testcontainers_config.ryuk_disabled else [testcontainers_config.ryuk_image]
    try:
        for wanted in (image, *ryuk):
            try:
                client.images.get(wanted)
            except ImageNotFound:
                client.images.pull(wanted)
    except DockerException as error:
        hint = "; TESTCONTAINERS_RYUK_DISABLED=true does without it" if wanted in ryuk else ""
        return f"image {wanted} is not here and cannot be pulled ({_short(error)}){hint}"
    finally:
        client.close()
    return None


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."
