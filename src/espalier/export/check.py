"""Load an exported folder with the code in the folder, and compare it with the reference.

Run as `python -m espalier.export.check FOLDER REFERENCE RESULT`. The process reads `reference.safetensors` and
`texts.json` in the folder REFERENCE and writes the file RESULT. This module must not import `espalier.models.pruned`:
transformers would use the classes that it registers instead of the code in the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from espalier.export.parity import compare


def main(folder: str, reference: Path, result: Path) -> None:
    """Compare the logits, generated tokens and token ids of a folder with the reference; write the result as JSON."""
    # A stock checkpoint has no code, and must load where none may run.
    has_code = any(Path(folder).glob("*.py"))
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=has_code, local_files_only=True, use_safetensors=True
    )
    found = compare(model.eval(), load_file(reference / "reference.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=has_code, local_files_only=True)
    texts = json.loads((reference / "texts.json").read_text(encoding="utf-8"))
    wrong = [text for text, tokens in texts.items() if tokenizer(text)["input_ids"] != tokens]
    if wrong:
        reason = f"the tokenizer reads {wrong[0]!r} differently"
        found |= {"passed": False, "reason": "; ".join(filter(None, [found["reason"], reason]))}
    found["tokenizer"] = {"n_texts": len(texts), "equal": not wrong}
    result.write_text(json.dumps(found, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    if "espalier.models.pruned" in sys.modules:
        raise SystemExit("the code in the folder would not be used: espalier.models.pruned is imported already")
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
