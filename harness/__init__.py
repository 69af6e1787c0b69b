"""A database-level concurrency harness for PostgreSQL functions.

It boots a throwaway Postgres, applies SQL migrations, calls a function from many real connections at once, and says
with evidence whether the function keeps its promise under concurrency and how fast it is.

The floors; a file imports only from floors below::

    cli.py  plugin.py  gate/    two thin faces: console command, pytest plugin; what `pytest harness/` runs
    console.py                  from a command to its exit status: errors, signals, the record printed and written
    arguments.py  progress.py   options that commands share; the bar while one takes its time
    reports/                    each reads a record, nothing else
    dry_run.py                  what a run would do, without a server
    doctor.py                   what is there, and what to do for what is not
    experiments/  matrix.py     the same run with one thing changed: overhead, overload; isolation levels
    run.py  check.py  staging.py  changed.py    what a face asks for: open, run or check, give a record
    conduct.py  sources.py  jobs.py    the one conductor: plan -> crew -> history -> findings -> run record
    checking/                   one scenario: its world, its conditions, its serial orders, the race, exploring
    schedules/                  every interleaving inside calls or sessions
    records.py                  the record: to and from JSON
    load/                       patterns, each of which describes itself, and the firing loop (the hot path)
    scenarios/                  .race.sql files: read, carried out, told
    verdict/                    findings, thresholds, linearizability, serial orders: judges values, asks nobody
    targets/                    sql, http, memory: one call in, one outcome out; what the database holds afterwards
    history.py                  operations and the recorder
    contracts/                  what is right: a function's call, answer, model, claims, invariants
    environment/                servers, PostgREST, platforms and scratch databases
    sqltext/                    reading SQL: scripts, queries, PL/pgSQL bodies, access by text
    configuration.py            what a project's files say about options
    options.py                  the options, read once
    files.py                    files written whole
    errors.py  signals.py  plain.py    what failed and what to do next; Ctrl-C; values to JSON and back
    text.py                     text from elsewhere, as it may be shown
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.conduct import Actor
    from harness.contracts.claims import (
        UpTo,
        at_least_one,
        at_most,
        busy_only_in_flight,
        names_the_winner,
        others_refused,
    )
    from harness.contracts.contract import (
        BROKEN_ANSWER,
        FAILED,
        IN_DOUBT,
        NOT_REACHED,
        TIMEOUT,
        Claim,
        Column,
        Contract,
        Effect,
        ErrorAnswer,
        Function,
        KeyHistory,
        Model,
        Operation,
        Outcome,
        Parameter,
        Retry,
        Variant,
        Violation,
    )
    from harness.contracts.scan_ticket import SCAN_TICKET
    from harness.environment.database import Database
    from harness.environment.identity import Identity
    from harness.errors import ExitStatus, HarnessError, UsageError
    from harness.options import Options
    from harness.records import Record, RunRecord
    from harness.run import Explored, Harness, Result, Verdict, open_harness
    from harness.verdict.findings import Finding, Location, Truth

__version__ = "0.1.0"

__all__ = [
    "BROKEN_ANSWER",
    "FAILED",
    "IN_DOUBT",
    "NOT_REACHED",
    "SCAN_TICKET",
    "TIMEOUT",
    "Actor",
    "Claim",
    "Column",
    "Contract",
    "Database",
    "Effect",
    "ErrorAnswer",
    "ExitStatus",
    "Explored",
    "Finding",
    "Function",
    "Harness",
    "HarnessError",
    "Identity",
    "KeyHistory",
    "Location",
    "Model",
    "Operation",
    "Options",
    "Outcome",
    "Parameter",
    "Record",
    "Result",
    "Retry",
    "RunRecord",
    "Truth",
    "UpTo",
    "UsageError",
    "Variant",
    "Verdict",
    "Violation",
    "at_least_one",
    "at_most",
    "busy_only_in_flight",
    "names_the_winner",
    "open_harness",
    "others_refused",
]
"""What a user may touch; what is not listed is private. Each is imported when it is asked for."""

_HOMES = {
    "Actor": "conduct",
    "Database": "environment.database",
    "ExitStatus": "errors",
    "Explored": "run",
    "Finding": "verdict.findings",
    "Harness": "run",
    "HarnessError": "errors",
    "Identity": "environment.identity",
    "Location": "verdict.findings",
    "Options": "options",
    "Record": "records",
    "Result": "run",
    "RunRecord": "records",
    "SCAN_TICKET": "contracts.scan_ticket",
    "Truth": "verdict.findings",
    "UsageError": "errors",
    "Verdict": "run",
    **dict.fromkeys(
        ("UpTo", "at_least_one", "at_most", "busy_only_in_flight", "names_the_winner", "others_refused"),
        "contracts.claims",
    ),
    "open_harness": "run",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    value = getattr(import_module(f"harness.{_HOMES.get(name, 'contracts.contract')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
