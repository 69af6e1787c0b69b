"""Which server: what `--server` names, or the best that this machine has."""

from __future__ import annotations

from harness.environment.servers import ExternalServer, Server
from harness.errors import UsageError


def open_server(choice: str, image: str) -> Server:
    """The server for `--server`: `auto`, `container`, `embedded` or a DSN; not yet started.

    Raises UsageError for what is none of these.
    """
    # Imported here: an external DSN must not need Docker or the embedded binaries.
    if choice == "container":
        from harness.environment.container import ContainerServer

        return ContainerServer(image)
    if choice == "embedded":
        from harness.environment.embedded import EmbeddedServer

        return EmbeddedServer()
    if choice == "auto":
        from harness.environment.container import ContainerServer, why_not
        from harness.environment.embedded import EmbeddedServer

        reason = why_not(image)
        server: Server = ContainerServer(image) if reason is None else EmbeddedServer()
        # Why in a few words: this line heads every report. `--server container` says the whole of it.
        why = "a Docker engine answers and has the image" if reason is None else reason.partition(" (")[0]
        server.why = f"auto: {why}"
        return server
    if "=" in choice or "://" in choice:
        return ExternalServer(choice)
    raise UsageError(
        f"--server {choice!r} is none of auto, container, embedded and no DSN.",
        next_step="a DSN looks like postgresql://user:password@host:port/database",
    )
