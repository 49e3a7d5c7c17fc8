"""Run modules of Espalier in new processes, such as the check that loads an exported folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from espalier.errors import UserError
from espalier.export.parity import Tensors

PARITY_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    " leading space, double  space,\n\ttab and newline\n\n",
    "def f(x):\n    return x ** 2  # 1,234.5",
    "naïve café, Größe, Привет, 你好, こんにちは, 🙂",
    "",
)
_SOURCES = Path(__file__).resolve().parents[2]


def run_module(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module of Espalier in a new Python process, and return its status and output.

    Args:
        module: Name of the module.
        arguments: Arguments of the module.
        environment: Environment variables to add to those of this process.
    """
    paths = os.pathsep.join(filter(None, [str(_SOURCES), os.environ.get("PYTHONPATH")]))
    return subprocess.run(  # noqa: S603 (our own module)
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def check_in_fresh_process(folder: Path, expected: Tensors, texts: Mapping[str, list[int]]) -> dict[str, Any]:
    """Load an exported folder in a new process, with the code in the folder, and compare it with the reference.

    Args:
        folder: Exported folder.
        expected: Result of `espalier.export.parity.reference`.
        texts: Texts and their token ids from the tokenizer of the base model.

    Returns:
        The content of `parity.json`.

    Raises:
        UserError: If the folder cannot be loaded, or if its logits, generated tokens or token ids differ.
    """
    with tempfile.TemporaryDirectory() as scratch:
        save_file(expected, Path(scratch) / "reference.safetensors")
        (Path(scratch) / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        result = Path(scratch) / "result.json"
        done = run_module(
            "espalier.export.check", str(folder), scratch, str(result),
            environment={
                "HF_MODULES_CACHE": f"{scratch}/modules",  # transformers copies the code of model folders here
                "HF_HUB_OFFLINE": "1",
            },
        )  # fmt: skip
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise UserError(f"export: a fresh process could not load the checkpoint ({lines[-1]}); it is deleted")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if not found["passed"]:
        raise UserError(f"export: the loaded checkpoint is not the evaluated model: {found['reason']}; it is deleted")
    return found
