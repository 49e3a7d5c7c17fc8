"""Run workflow scripts without importing their libraries each time, which takes longer than most jobs of tests.

`serve` runs in a process of its own. It imports the libraries, nothing of ours, and forks for each script. So every
script has a new process, in which it imports our code from scratch. Snakemake gets a program as its Python interpreter
that hands scripts to the server, and starts Python for everything else. Scripts that stage models and data run in
Python as usual, because libraries decide at import whether they use a network.

A server can run one module (`python -m MODULE`) instead of scripts. It imports what transformers imports, but neither
transformers nor huggingface_hub, because they read environment variables at import.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIBRARIES = (
    "datasets", "jinja2", "lm_eval", "lm_eval.tasks", "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg", "matplotlib.figure", "numpy", "pandas", "pyarrow.parquet", "safetensors.torch",
    "scipy.stats", "snakemake.iocontainers", "snakemake.logging", "tokenizers", "torch", "torch._dynamo",
    "transformers", "transformers.models.llama.modeling_llama", "transformers.models.mistral.modeling_mistral",
    "transformers.models.qwen2.modeling_qwen2", "yaml",
)  # fmt: skip
LIBRARIES_OF_TRANSFORMERS = (
    "jinja2", "numpy", "pandas", "regex", "requests", "safetensors.torch", "scipy.optimize", "scipy.stats", "torch",
    "torch._dynamo", "torch.distributed.tensor", "yaml",
)  # fmt: skip
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}  # as `espalier.jobs.offline`
INTERPRETER = """\
#!{python} -SE
import os, signal, socket, sys
arguments = sys.argv[1:]
name = os.path.basename(arguments[0]) if len(arguments) == 1 else ""
is_script = "/.snakemake/scripts/" in (arguments or [""])[0] and ".stage_" not in name
is_ours = arguments[:2] == ["-m", {module!r}] if {module!r} else is_script
if not is_ours or not os.path.exists({address!r}):
    os.execv({python!r}, [{python!r}, *arguments])
import array, json
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = {{"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ), "group": os.getpgrp()}}
descriptors = array.array("i", [0, 1, 2]).tobytes()
server.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
server.sendall(json.dumps(request).encode() + b"\\n")
answers = server.makefile("r")
script = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(script, number))
status = int(answers.readline() or -signal.SIGKILL)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


class ScriptServer:
    """A process that runs scripts on request. Until it is started, scripts run in Python as usual.

    Args:
        folder: Folder for the socket and for the program to start as a Python interpreter.
        module: The module to run; None for workflow scripts.
    """

    def __init__(self, folder: Path, module: str | None = None) -> None:
        self._address = str(folder / "socket")
        self._libraries = LIBRARIES_OF_TRANSFORMERS if module else LIBRARIES
        self._process: subprocess.Popen[str] | None = None
        self.interpreter = folder / "python"
        program = INTERPRETER.format(python=sys.executable, address=self._address, module=module)
        self.interpreter.write_text(program, encoding="utf-8")
        self.interpreter.chmod(0o755)

    def start(self) -> None:
        """Start the process, unless it runs, and wait until it has imported the libraries."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, self._address, *self._libraries],
                stdout=subprocess.PIPE, env=os.environ | OFFLINE, text=True,
            )  # fmt: skip
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def serve(address: str, libraries: Sequence[str]) -> None:
    """Fork for each connection. The fork runs the script and answers with its process id and its exit status."""
    sys.path.pop(0)  # the folder of this file
    for library in libraries:
        importlib.import_module(library)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    gc.freeze()  # else a collection in a fork writes to all pages that it shares with the others
    print("ready", flush=True)  # noqa: T201 (the answer)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            arguments = _answer(connection)
            if arguments is None:
                os._exit(0)
            _run(arguments)
        connection.close()


def _run(arguments: Sequence[str]) -> None:
    """Run the script or module, and end the process without tearing down the libraries, which takes seconds."""
    status: object = 0
    try:
        if arguments[0] == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _answer(connection: socket.socket) -> Sequence[str] | None:
    """Fork again: the parent waits, answers and returns None, the child becomes the script's process."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile("rb").readline())
    script = os.fork()
    if script:
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(b"%d\n" % script)
        status = os.waitstatus_to_exitcode(os.waitpid(script, 0)[1])
        connection.sendall(b"%d\n" % status)
        return None
    connection.close()
    _become(request, descriptors)
    return list(request["arguments"])


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Turn a forked process into one that was started as `python ARGUMENTS` in the folder."""
    os.setpgid(0, request["group"])  # so that a signal to the group of the job reaches the script
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script, *others = request["arguments"]
    sys.argv = [script, *others[1:]] if script == "-m" else [script]
    paths = request["environment"].get("PYTHONPATH", "")
    first = request["folder"] if script == "-m" else os.path.dirname(script)  # noqa: PTH120
    sys.path[:0] = [first, *filter(None, paths.split(os.pathsep))]
    if threads := request["environment"].get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
