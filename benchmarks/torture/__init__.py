"""Faults on purpose: kills, damaged files, bad input, full disks. `docs/reliability.md` has the figures."""
