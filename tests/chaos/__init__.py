"""Attacks on runs: whatever is done to one, its verdict is honest and nothing of it is left.

`python -m tests.chaos` makes many and prints how many; `test_chaos.py` makes a few of each.
"""
