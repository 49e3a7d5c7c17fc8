"""Paths of the files that rules write. Rules repeat these patterns literally, and a test compares the two.

The key of a pattern is the rule that writes the file, or `rule.output` for further outputs of a rule. `<results>` is
the folder of the study's results, as in the rules.
"""

from __future__ import annotations

from functools import cache
from string import Formatter
from typing import Any

Wildcards = Any
"""The wildcards that Snakemake passes to a look-up: an object with one attribute for each wildcard."""
CACHE = "cache"
"""Folder of the files that are staged from a hub. All studies share it."""

PATTERNS = {
    "stage_model": "cache/models/{hub_model}/staged.json",
    "stage_dataset": "cache/datasets/{task}.json",
    "stage_text": "cache/texts/{text}.parquet",
    "make_world": "<results>/sandbox/texts/training.parquet",
    "make_world.calibration": "<results>/sandbox/texts/calibration.parquet",
    "make_world.perplexity": "<results>/sandbox/perplexity/{text}.parquet",
    "make_world.tasks": "<results>/sandbox/tasks/{file}",
    "train_sandbox_tokenizer": "<results>/sandbox/tokenizers/{architecture}.json",
    "train_sandbox_model": "<results>/sandbox/models/{model}/model.safetensors",
    "check_model": "<results>/models/{model}.json",
    "tokenize_requests": "<results>/requests/{model}.parquet",
    "check_calibration": "<results>/calibration/{model}/{calibration}.json",
    "collect_gradients": "<results>/gradients/{model}/{calibration}/seq{seq_len}.parquet",
    "collect_gradients.importance": "<results>/importance/{model}/taylor/{calibration}/seq{seq_len}.parquet",
    "measure_importance": "<results>/importance/{model}/{text_criterion}/{calibration}/seq{seq_len}.parquet",
    "measure_weights": "<results>/importance/{model}/{weight_criterion}.parquet",
    "measure_priors": "<results>/priors/{model}/{calibration}/seq{seq_len}.parquet",
    "plan": "<results>/experiments/{model}/{experiment}/plan.json",
    "evaluate_baseline": "<results>/baseline/{model}/metrics.json",
    "evaluate_baseline.samples": "<results>/baseline/{model}/samples.parquet",
    "evaluate": "<results>/experiments/{model}/{experiment}/metrics.json",
    "evaluate.samples": "<results>/experiments/{model}/{experiment}/samples.parquet",
    "import_legacy": "<results>/legacy/{model}/{search_folder}.parquet",
    "consolidate_study": "<results>/consolidated/experiments.parquet",
    "consolidate_study.evaluations": "<results>/consolidated/evaluations.parquet",
    "consolidate_study.layers": "<results>/consolidated/layers.parquet",
    "consolidate": "<results>/consolidated/{model}/global_best_config.json",
    "analyse": "<results>/reports/{model}/analysis.json",
    "analyse.draws": "<results>/reports/{model}/draws.parquet",
    "draw_model": "<results>/reports/{model}/figures.json",
    "analyse_study": "<results>/reports/cross_model/analysis_summary.json",
    "analyse_study.experiments": "<results>/reports/experiments.parquet",
    "draw_study": "<results>/reports/cross_model/figures.json",
    "check_recovery": "<results>/recovered/{model}/checked.json",
    "choose_recovered": "<results>/recovered/{model}/chosen.json",
    "recover": "<results>/recovered/{model}/{experiment}/training.json",
    "recover.config": "<results>/recovered/{model}/{experiment}/adapter/adapter_config.json",
    "recover.weights": "<results>/recovered/{model}/{experiment}/adapter/adapter_model.safetensors",
    "recover_full": "<results>/recovered/{model}/{experiment}/trained/training.json",
    "recover_full.weights": "<results>/recovered/{model}/{experiment}/trained/trained_weights.safetensors",
    "evaluate_recovered": "<results>/recovered/{model}/{experiment}/metrics.json",
    "evaluate_recovered.samples": "<results>/recovered/{model}/{experiment}/samples.parquet",
    "consolidate_recovery": "<results>/consolidated/recovery.parquet",
    "analyse_recovery": "<results>/reports/{model}/recovery.json",
    "measure_inference": "<results>/inference/{model}/{measured}.json",
    "describe_export": "<results>/exports/{model}/{exported}.json",
    "export_checkpoint": "<results>/checkpoints/{model}/{checkpoint}",
    "export_gguf": "<results>/checkpoints/{model}/{name}.{type}.gguf",
}


def results_folder(study: str) -> str:
    """Return the folder of a study's results."""
    return f"results/{study}"


class Paths:
    """Paths of one study.

    Args:
        results: Folder of the study's results.
    """

    def __init__(self, results: str) -> None:
        self.results = results

    def of(self, output: str, *wildcards: str | int) -> str:
        """Return the path of an output.

        Args:
            output: A key of `PATTERNS`.
            wildcards: Values of its wildcards, in the order of the pattern.
        """
        pattern = PATTERNS[output].replace("<results>", self.results)
        return pattern.format(**dict(zip(_wildcards(output), wildcards, strict=True)))

    def pass_store(self, model: str) -> str:
        """Return the folder of the store of a model's passes (`espalier.results.store`)."""
        return f"{self.results}/gradients/{model}/.store"

    def evaluation_store(self, model: str) -> str:
        """Return the folder of the store of a model's evaluations."""
        return f"{self.results}/experiments/{model}/.store"

    def benchmark(self, rule: str, *wildcards: str | int) -> str:
        """Return the benchmark file of a job.

        Args:
            rule: Name of its rule.
            wildcards: Values of its wildcards, in the order of the pattern.
        """
        pattern = benchmark_pattern(rule).replace("<results>", self.results)
        return pattern.format(**dict(zip(_wildcards(rule), wildcards, strict=True)))


@cache
def benchmark_pattern(rule: str) -> str:
    """Return the pattern of a rule's benchmark files: its name, then the parts of its output that have wildcards."""
    folder, *parts = PATTERNS[rule].split("/")
    named = [part for part in parts if "{" in part]
    if named and not named[-1].endswith("}"):
        named[-1] = named[-1].rpartition(".")[0]  # remove the suffix of the file
    return "/".join((folder, "benchmarks", rule, *named)) + ".tsv"


@cache
def _wildcards(output: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in Formatter().parse(PATTERNS[output]) if name)
