"""Tests of the two faces, the console command and the pytest plugin, run as a user runs them."""
