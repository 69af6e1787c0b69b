"""Scenario files: what several people run at the same time, and what must be true of it, in plain SQL."""
