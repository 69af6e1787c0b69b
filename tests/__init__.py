"""The harness's own tests: unit (no server), integration (real Postgres), acceptance (as a user runs it)."""
