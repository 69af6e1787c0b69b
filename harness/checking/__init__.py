"""Checking one scenario: its world, its conditions, its serial orders, the race, and exploring."""
