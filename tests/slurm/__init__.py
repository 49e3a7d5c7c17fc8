"""Tests of the Slurm profile: by dry run everywhere, and on a real Slurm where one can be started."""
