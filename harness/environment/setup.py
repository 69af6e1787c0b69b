"""A schema that another tool builds: its command is run once against the template, told where that is."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

from harness.environment.own import dsn_parameters, environment
from harness.errors import HarnessError
from harness.signals import uninterrupted

_SHOWN = 30
"""Lines of the command's output that an error shows."""


def run(command: str, dsn: str, limit: float) -> str:
    """Run a command of the shell with DATABASE_URL, PGHOST and the like set for `dsn`; its output.

    It is ended after `limit` seconds, and when the run is. Raises HarnessError, with the end of its output, where it
    fails or takes longer.
    """
    with tempfile.TemporaryFile() as output:
        with uninterrupted():
            process = subprocess.Popen(  # noqa: S602 - the user's own command line
                command, shell=True, env=environment() | _where(dsn), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise HarnessError(
                f"The setup command was not done after {limit:g} s, and was ended.",
                tried=f"{command}\n{_tail(output)}",
                next_step="see what it waits for, or give --apply-timeout more seconds",
            ) from error
        finally:
            # Also what a command that is done has left in the background.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            raise HarnessError(
                f"The setup command failed with status {process.returncode}.",
                tried=f"{command}\n{_tail(output)}",
                next_step="run it by hand against a database of yours; it finds the scratch database by DATABASE_URL, "
                "PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE",
            )
        return _tail(output)


def _tail(output: object) -> str:
    output.seek(0)  # type: ignore[attr-defined]
    lines = output.read().decode(errors="replace").splitlines()  # type: ignore[attr-defined]
    return "\n".join(f"    {line}" for line in lines[-_SHOWN:])


def _where(dsn: str) -> dict[str, str]:
    parts: Mapping[str, str] = {name: str(value) for name, value in dsn_parameters(conninfo_to_dict(dsn)).items()}
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    names |= {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "options": "PGOPTIONS"}
    return {variable: parts[name] for name, variable in names.items() if name in parts} | {"DATABASE_URL": _url(parts)}


def _url(parts: Mapping[str, str]) -> str:
    """As most tools read it; a socket's folder stands behind the question mark."""
    host, port = parts.get("host", ""), parts.get("port", "")
    login = quote(parts.get("user", ""), safe="")
    if "password" in parts:
        login += ":" + quote(parts["password"], safe="")
    more = {name: parts[name] for name in ("sslmode", "sslrootcert", "options") if name in parts}
    address = f"[{host}]" if ":" in host else host
    if host.startswith("/"):
        more, address = {"host": host, "port": port} | more, ""
    elif port:
        address += f":{port}"
    query = "?" + urlencode(more, safe="/", quote_via=quote) if more else ""
    return f"postgresql://{login}@{address}/{quote(parts.get('dbname', ''), safe='')}{query}"
