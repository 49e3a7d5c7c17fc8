"""Tokenise texts and compute logits with llama.cpp: `python -m espalier.export.gguf.llama_process request.json`.

This runs as a separate process, because llama.cpp aborts the process on files that it cannot compute. The request is a
JSON object with these keys:

- `file`: the GGUF file;
- `texts`: texts to tokenise;
- `prompt`: token ids of a prompt;
- `n_generated`: number of tokens to generate greedily after the prompt;
- `threads`: number of CPU threads;
- `answer`: JSON file to write, with the token ids of the texts and the generated tokens;
- `logits`: NumPy file to write, with the logits of prompt and generated tokens, (tokens, vocabulary).

The KV cache is float32 and flash attention is off: a float16 cache or flash attention alone would change logits by
1e-2. The exit status is `CANNOT_LOAD` if llama-cpp-python cannot be imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

GGML_TYPE_F32 = 0
CANNOT_LOAD = 3


def main(request: dict[str, Any]) -> None:
    """Answer a request (see the module docstring for its keys)."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:  # missing or incompatible library, or incomplete package
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(CANNOT_LOAD) from None
    prompt = request["prompt"]
    n_context = len(prompt) + request["n_generated"]
    llama = llama_cpp.Llama(
        request["file"],
        n_ctx=n_context,
        n_batch=n_context,
        n_threads=request["threads"],
        n_threads_batch=request["threads"],
        logits_all=True,
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        flash_attn=False,
        verbose=False,
    )
    ids = [llama.tokenize(text.encode(), add_bos=True, special=True) for text in request["texts"]]
    llama.eval(prompt)
    generated: list[int] = []
    for _ in range(request["n_generated"]):
        generated.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(generated[-1:])
    np.save(request["logits"], llama.scores[: llama.n_tokens])
    Path(request["answer"]).write_text(json.dumps({"ids": ids, "generated": generated}), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
