"""Host memory that jobs use, compared with the memory that they request.

    PYTHONPATH=src python benchmarks/memory.py [--layers 16 --hidden 2048 --dtype bfloat16]

The workflow runs on the CPU for a Llama with random weights. Memory depends on the size of the model, so few sequences
and documents are enough. For each job, the script reports the peak of its anonymous pages (RssAnon) and of all its
pages (RSS), sampled ten times a second. RssAnon excludes pages of mapped files, which the system can drop.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from espalier.files import read_json
from espalier.sandbox.corpora import make_pages
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world
from espalier.study.host_memory import MEMORY_PER_PARAM, cpu_mb

REPOSITORY = Path(__file__).resolve().parents[1]
JOBS = {  # kind of job, by rule
    "collect_gradients": "gradients",
    "measure_importance": "gradients",
    "measure_weights": "weights",
    "measure_priors": "priors",
    "evaluate_baseline": "evaluation",
    "evaluate": "evaluation",
    "export_checkpoint": "export",
}
VOCABULARY = 32_000


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Write a model in bfloat16 and the config of a study of it."""
    pages = make_pages(make_world(0), "training", 60, 0)
    tokenizer = wrap(train_tokenizer("llama", pages, 400), model_max_length=256, chat=False)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=arguments.hidden, num_hidden_layers=arguments.layers,
        intermediate_size=3 * arguments.hidden, num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=arguments.hidden // 256, max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    study: dict[str, Any] = {
        "study": "memory",
        "models": [{"name": "M", "family": "Llama", "kind": "base", "path": "model"}],
        "methods": [
            {"name": "blockwise", "scope": "block"}, {"name": "taylor2", "criterion": "taylor2"},
            {"name": "magnitude", "criterion": "magnitude"},
        ],
        "grid": {
            "methods": ["blockwise", "taylor2", "magnitude"], "taylor_seq_len": [32], "taylor_num_samples": [2],
            "pruning_ratio": [0.2],
        },
        "calibration": {"dataset": "sandbox"},
        "evaluation": {
            "tasks": ["piqa"], "data": "sandbox", "device": "cpu", "dtype": arguments.dtype, "experiments_per_job": 1,
            "perplexity": {"window": 64, "stride": 64, "texts": [{"name": "p", "dataset": "sandbox"}]},
        },
        "gradients": {"passes_per_job": 1},  # so that each rule is measured by itself
        "sandbox": {"documents_per_task": 6, "calibration_pages": 40, "perplexity_lines": 20},
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")


def watch(root: psutil.Process, peaks: dict[str, list[int]], done: threading.Event) -> None:
    """Record the largest RssAnon and RSS of the processes of each rule, in bytes, until `done` is set."""
    while not done.wait(0.1):
        for process in root.children(recursive=True):
            try:
                rule = next(word for word in process.cmdline() if word.endswith(".py") and "/scripts/" in word)
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except (psutil.Error, OSError, StopIteration):
                continue
            found = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("RssAnon", "VmRSS")))
            peak = peaks[rule.removesuffix(".py").rsplit(".", 1)[-1]]
            for number, key in enumerate(("RssAnon", "VmRSS")):
                peak[number] = max(peak[number], 1024 * int(found.get(key, "0 kB").split()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments)
        command = [sys.executable, "-m", "snakemake", "evaluations", "export", "--cores", "1", "--quiet", "all"]
        command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", "study.yaml"]
        peaks: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        done = threading.Event()
        process = subprocess.Popen(command, cwd=folder)
        watcher = threading.Thread(target=watch, args=(psutil.Process(process.pid), peaks, done))
        watcher.start()
        status = process.wait()
        done.set()
        watcher.join()
        if status:
            raise SystemExit(status)
        manifest = read_json(folder / "results/memory/models/M.json")
        print(f"{manifest['n_params']:,} parameters stored as bfloat16, evaluated in {arguments.dtype}\n")
        print("| job | RssAnon (MB) | RSS (MB) | asked for (MB) |\n|---|---:|---:|---:|")
        for rule, kind in JOBS.items():
            held = MEMORY_PER_PARAM[kind]
            asked = cpu_mb(manifest, held, "auto" if held.dtype == "stored" else arguments.dtype)
            print(f"| `{rule}` | {peaks[rule][0] / 1e6:,.0f} | {peaks[rule][1] / 1e6:,.0f} | {asked:,} |")


if __name__ == "__main__":
    main()
