"""Experiments: the same run with one thing changed, and what the difference says."""
