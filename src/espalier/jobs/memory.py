"""The line for the user when host memory is exhausted."""

from __future__ import annotations


def memory_line(detail: str, rule: str | None = None) -> str:
    """Return the line for the user.

    Args:
        detail: Result of `out_of_memory`.
        rule: Name of the rule, to name the setting of a cluster job.
    """
    cluster = f", or `--set-resources {rule}:mem_mb=...` on a cluster" if rule else ""
    return (
        f"out of memory ({detail}); give the job more (ulimit, cgroup or container{cluster}) or close other programs, "
        "and run again"
    )
