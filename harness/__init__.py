"""A database-level concurrency harness for PostgreSQL functions.

It boots a throwaway Postgres, applies SQL migrations, calls a function from many real connections at once, and says
with evidence whether the function keeps its promise under concurrency and how fast it is.

The floors; a file imports only from floors below::

    cli.py  plugin.py        two thin faces: console command, pytest plugin
    reports/                 terminal: reads a record, nothing else
    experiments/             the same run with one thing changed: overhead, overload
    run.py  staging.py       environment -> pattern/schedule -> history -> verdict -> record
    schedules/               every interleaving inside a function
    records.py               the value a run leaves, and its JSON form
    load/                    patterns, and the firing loop (the hot path)
    verdict/                 findings, thresholds, invariants, linearizability
    targets/                 sql, http, memory: one call in, one outcome out
    history.py               operations and the recorder
    gate/                    what `pytest harness/` runs
    contracts/               what is right: a function's call, answer, model, claims
    environment/             servers, PostgREST and scratch databases
    sqltext/                 reading SQL: scripts, PL/pgSQL bodies, access by text
    options.py               the options, read once
    errors.py  signals.py    what failed, what was tried, what to do next; Ctrl-C, SIGTERM and SIGHUP
"""

__version__ = "0.1.0"
