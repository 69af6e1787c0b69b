"""Reports: each draws a record and reads nothing else."""
