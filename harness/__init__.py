"""A database-level concurrency harness for PostgreSQL functions.

It boots a throwaway Postgres, applies SQL migrations, calls a function from many real connections at once, and says
with evidence whether the function keeps its promise under concurrency and how fast it is.

The floors; a file imports only from floors below::

    cli.py  plugin.py        7  two thin faces: console command, pytest plugin
    reports/                 6  read a record, nothing else
    experiments/             6  the same run with one thing changed: compare, overload
    run.py  staging.py       5  environment -> pattern/schedule -> history -> verdict -> record
    record.py                4  the value a run leaves, and its JSON form
    schedules/               4  every interleaving inside a function
    patterns.py              4  burst, race, arrivals, rescan as plans
    firing.py                3  the one firing loop, and the crew of client threads that run it
    verdict/                 3  findings, thresholds, invariants, linearizability: pure judgement
    targets/                 2  sql, http, memory: one call in, one outcome out
    history.py               2  operations and the recorder
    contracts/               1  what is right: a function's call, answer, model, claims
    environment/             1  servers, PostgREST and scratch databases
    options.py               1  the options, read once
    signals.py               0  Ctrl-C, SIGTERM and SIGHUP
    errors.py                0  what failed, what was tried, what to do next
"""

__version__ = "0.1.0"
