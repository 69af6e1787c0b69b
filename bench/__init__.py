"""Measurements, as ratios from one run. `python -m bench` runs them all, `python -m bench NAME ...` some."""
