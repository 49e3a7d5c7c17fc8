"""Run a new process that loads an exported folder and compares it with the reference."""

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
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_SOURCES), os.environ.get("PYTHONPATH")])),
            "HF_MODULES_CACHE": f"{scratch}/modules",  # transformers copies the code of model folders here
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "espalier.export.check", str(folder), scratch, str(result)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise UserError(f"export: a fresh process could not load the checkpoint ({lines[-1]}); it is deleted")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if not found["passed"]:
        raise UserError(f"export: the loaded checkpoint is not the evaluated model: {found['reason']}; it is deleted")
    return found
