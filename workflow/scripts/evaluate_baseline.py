"""Evaluate one unpruned model."""

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espalier import versions
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.recipe import make_recipe
from espalier.evaluation.requests import read_requests
from espalier.evaluation.run import Stopwatch, evaluate_model, write_evaluation
from espalier.evaluation.tasks import load_tasks
from espalier.files import read_json, sha256_of_json
from espalier.jobs import job_log
from espalier.models.loading import choose_device, load_model, load_tokenizer
from espalier.models.manifest import check_unchanged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.evaluate_baseline")


def main(
    *, manifest: str, requests: str, data_folder: Path, protocol: dict[str, Any], dtype: str, device: str,
    token_budget: int, metrics: str, samples: str, threads: int,
) -> None:  # fmt: skip
    torch.set_num_threads(threads)
    stopwatch, settings, described = Stopwatch(), Protocol.from_dict(protocol), read_json(manifest)
    folder, trust = check_unchanged(described), described["trust_remote_code"]
    with stopwatch.part("load"):
        target = choose_device(device)
        model = load_model(folder, dtype=dtype, device=target, trust_remote_code=trust)
        tokenizer = load_tokenizer(folder, trust_remote_code=trust)
    with tempfile.TemporaryDirectory() as scratch:
        with stopwatch.part("requests"):
            tokenised = read_requests(requests)
            tasks = load_tasks(list(settings.tasks), data_folder, Path(scratch))
        result, rows = evaluate_model(
            model,
            tokenizer,
            tasks=tasks,
            requests=tokenised,
            protocol=settings,
            token_budget=token_budget,
            stopwatch=stopwatch,
        )
    recipe = make_recipe(
        version=versions.EVALUATE, protocol=protocol, dtype=dtype, weights=sha256_of_json(described["files"])
    )
    header = {"model": described["model"], "experiment": "baseline", "n_params": described["n_params"]}
    content = {**header, **result, "timing_s": stopwatch.seconds, "recipe": recipe}
    write_evaluation(content, rows, metrics_path=metrics, samples_path=samples)
    logger.info("%s: acc_mean %.4f", described["model"], result["acc_mean"]["value"])


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"baseline {snakemake.wildcards.model}"):
        main(
            manifest=snakemake.input.manifest,
            requests=snakemake.input.requests,
            data_folder=Path(snakemake.params.data_folder),
            protocol=snakemake.params.protocol,
            dtype=snakemake.params.dtype,
            device=snakemake.resources.device,
            token_budget=snakemake.resources.token_budget,
            metrics=snakemake.output.metrics,
            samples=snakemake.output.samples,
            threads=snakemake.threads,
        )
