"""Which server: what `--server` names, or the best that this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.environment.database import ApplyPlan, Template
from harness.environment.roles import SupabaseRoles
from harness.environment.servers import ExternalServer, Server
from harness.errors import UsageError
from harness.options import Options

SUPABASE_MIGRATIONS = Path("supabase/migrations")
"""Taken where the default folder of migrations is not there."""


def open_server(choice: str, image: str, database: str | None = None) -> Server:
    """The server for `--server`: `auto`, `container`, `embedded` or a DSN; not yet started.

    `database` is that of `--database`. Raises UsageError for what is none of these.
    """
    dsn = "=" in choice or "://" in choice
    if database is not None and not dsn:
        raise UsageError(
            "--database is for a server that is not booted here.",
            tried=f"--server {choice}, where each run gets a database of its own",
            next_step="leave it out, or name the server with --server and a DSN",
        )
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
    if dsn:
        return ExternalServer(choice, database)
    raise UsageError(
        f"--server {choice!r} is neither auto, container or embedded nor a DSN.",
        next_step="a DSN looks like postgresql://user:password@host:port/database",
    )


def open_template(options: Options, server: Server, *, alone: bool = False, bare: bool = False) -> Template:
    """The template that the options ask for; nothing is created yet.

    `alone`: what became of the files is all that is wanted, and a failure stands in that. `bare`: without files there
    is still a database, where the default folders are not there. In both the default seed, which belongs to the default
    migrations, is not applied after others. Raises HarnessError for files that are not there or cannot be read.
    """
    defaults = Options()
    migrations, seed = options.migrations, options.seed
    if migrations == defaults.migrations and not migrations[0].exists() and SUPABASE_MIGRATIONS.is_dir():
        migrations = (SUPABASE_MIGRATIONS,)
    if (bare or options.setup) and migrations == defaults.migrations and not migrations[0].exists():
        migrations = ()
    others = migrations != defaults.migrations and (alone or bare)
    if seed == defaults.seed and (others or not seed[0].exists()):
        seed = ()
    plan = ApplyPlan(
        options.platform,
        options.default_privileges,
        options.keep_going,
        options.apply_timeout,
        options.setup,
        raising=not alone,
    )
    return Template(server, migrations, seed, server_goes=not isinstance(server, ExternalServer), plan=plan)


@contextmanager
def applied(options: Options) -> Iterator[tuple[Server, Template]]:
    """Boot the server and apply the files; everything is taken away at the end. Raises HarnessError."""
    server = open_server(options.server, options.postgres_image, options.database)
    template = open_template(options, server, alone=True)
    with ExitStack() as stack:
        stack.enter_context(server)
        if not isinstance(server, ExternalServer):
            stack.enter_context(SupabaseRoles(server))
        stack.enter_context(template)
        yield server, template
