"""What llama.cpp makes of a file, in a process of its own: `python -m espalier.export.gguf.llama_process request.json`.

A process of its own, because llama.cpp aborts on files that it cannot compute. The request names the file, texts to
tokenise, a prompt and how many tokens to generate greedily after it; ids go to `answer` as JSON, and the logits of
prompt and generated tokens to `logits` as a NumPy array of shape (tokens, vocabulary). The KV cache is float32 and
flash attention off: either alone would differ by 1e-2. The exit status is `CANNOT_LOAD` where llama-cpp-python cannot
be imported.
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
    """Answer a request."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:  # a missing library, one of a newer system, half a package
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
