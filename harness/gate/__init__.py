"""What `pytest harness/` runs: each test reads as a specification of the function under test."""
