-- The run's calls, for invariants to join with. One row per call, warm-up calls included.
CREATE SCHEMA IF NOT EXISTS harness;

CREATE UNLOGGED TABLE harness.operations (
    number      integer NOT NULL,  -- in order of their calls, from 0
    client      integer NOT NULL,
    phase       integer NOT NULL,  -- a race's round, a rescan's pass; -1: warm-up
    key         text    NOT NULL,
    label       text    NOT NULL,  -- accepted, busy, ...
    effect      text    NOT NULL,  -- applied, refused, failed, in doubt
    code        text,              -- SQLSTATE or PGRSTnnn of a call that failed
    arguments   jsonb   NOT NULL,
    answer      jsonb   NOT NULL,  -- the contract's evidence columns
    rolled_back boolean NOT NULL   -- after the answer, so it had no effect
);
