"""Reading SQL text: scripts, PL/pgSQL bodies, and what a statement touches. No connection."""
