"""Start Snakemake many times without importing it each time, which takes longer than most dry runs.

`serve` runs in a process of its own. It imports Snakemake and nothing of ours, and forks once for each request. So
every run has a new process, in which the Snakefile imports the library from scratch.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


class SnakemakeServer:
    """A process that runs Snakemake on request.

    Args:
        interpreter: The program with which Snakemake runs scripts, instead of Python.
    """

    def __init__(self, interpreter: Path) -> None:
        self._interpreter = str(interpreter)
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str], folder: Path, output: Path, timeout_s: int) -> int:
        """Run Snakemake in a folder and write what it prints to `output.out` and `output.err`.

        Returns:
            The exit status.

        Raises:
            TimeoutExpired: If it takes longer.
        """
        request = {
            "arguments": arguments, "folder": str(folder), "output": str(output), "timeout_s": timeout_s,
            "environment": dict(os.environ), "interpreter": self._interpreter,
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        if status == -signal.SIGALRM:  # else a test that expects a failure would take a hang for one
            raise subprocess.TimeoutExpired(["snakemake", *arguments], timeout_s)
        return status

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Read requests, one JSON object per line, and answer each with the exit status of Snakemake."""
    from snakemake.cli import main

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
            main(request["arguments"])
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 (the answer)


def _become(request: dict[str, Any]) -> None:
    """Turn a forked process into one that was started as `python -m snakemake ...` in the folder."""
    signal.alarm(request["timeout_s"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{request['output']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["snakemake", *request["arguments"]]
    sys.executable = request["interpreter"]
    sys.path[0] = request["folder"]  # as `python -m` does


if __name__ == "__main__":
    serve()
