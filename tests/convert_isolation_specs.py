"""Turns PostgreSQL's own isolation specs into scenarios: `python -m tests.convert_isolation_specs SPECS FOLDER`.

SPECS is src/test/isolation/specs of PostgreSQL's source (Debian: a deb-src line, then `apt-get source postgresql-15`).
Each session gets its steps in the order in which the spec defines them; a spec's permutations are not taken over, since
the harness tries the orders itself. What an isolation tester only shows is judged: serialization failures and deadlocks
are declared busy, as an application that would try again has it.

Left out, with a reason on standard output: specs that need more than their own SQL.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_BLOCK = re.compile(r"\{((?:[^{}]|\{[^{}]*\})*)\}", re.DOTALL)
_LEFT_OUT = {
    r"prepare transaction": "prepared transactions",
    r"\bdblink|create extension|pg_sleep_until": "an extension",
    r"\bcopy\b.*\bstdin": "COPY from the client",
    r"pg_isolation_test|isolation_": "the tester's own functions",
    r"subscription|replication_slot|pg_logical": "logical replication",
    r"reindex|vacuum|cluster|concurrently|alter table|drop |truncate|create index|attach|detach": "data definition",
    r"pg_cancel_backend|pg_terminate_backend|statement_timeout|lock_timeout|idle_": "timeouts and cancelling",
    r"listen|notify": "notifications, which are no answers",
}


def convert(spec: Path) -> tuple[str, str]:
    """The scenario's text, or nothing and the reason why not."""
    text = re.sub(r"^\s*#.*$", "", spec.read_text(), flags=re.MULTILINE)
    head, *sessions = re.split(r"^session\s+", text, flags=re.MULTILINE)
    setup = [_body(match) for match in re.finditer(r"^setup\s*" + _BLOCK.pattern, head, re.MULTILINE | re.DOTALL)]
    written = [f"-- scenario: {spec.stem} of PostgreSQL's isolation tests", "", "-- setup", *setup, ""]
    inside = ""
    for session in sessions:
        name = re.match(r'"?([\w-]+)"?', session)
        assert name is not None
        session = re.split(r"^permutation\b", session, flags=re.MULTILINE)[0]
        parts = [_body(m) for m in re.finditer(r"^setup\s*" + _BLOCK.pattern, session, re.MULTILINE | re.DOTALL)]
        parts += [_body(m) for m in re.finditer(r"^step\s+\S+\s*" + _BLOCK.pattern, session, re.MULTILINE | re.DOTALL)]
        parts += [_body(m) for m in re.finditer(r"^teardown\s*" + _BLOCK.pattern, session, re.MULTILINE | re.DOTALL)]
        inside += "\n".join(parts)
        written += [f"-- session: {name[1]}", *parts, ""]
    if len(sessions) < 2:
        return "", "one session"
    for pattern, why in _LEFT_OUT.items():
        if re.search(pattern, inside, re.IGNORECASE | re.DOTALL):
            return "", why
    written += ["-- busy: when error 40001", "-- busy: when error 40P01", "-- judge: transactions"]
    return "\n".join(written) + "\n", ""


def _body(match: re.Match[str]) -> str:
    body = "\n".join(line.rstrip() for line in match[1].strip().splitlines())
    # No line of it may be taken for a heading.
    body = re.sub(r"^--", " --", body, flags=re.MULTILINE)
    return body if body.endswith(";") else f"{body};"


def main() -> None:
    specs, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for spec in sorted(specs.glob("*.spec")):
        text, why = convert(spec)
        if why:
            print(f"left out  {spec.stem}: {why}")
            continue
        (folder / f"{spec.stem}.race.sql").write_text(text)
        print(f"written   {spec.stem}")


if __name__ == "__main__":
    main()
