"""Numbers of a real pretrained model, compared with lm-eval's own backend, a masked model and the exported model."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scipy.stats import spearmanr
from transformers import AutoTokenizer

from espalier.calibration.importance import measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.priors import measure_priors
from espalier.calibration.sequences import SequenceSettings
from espalier.config.evaluation import SEVEN_TASKS
from espalier.evaluation.tasks import load_tasks
from espalier.files import read_json, read_table
from espalier.jobs.calibration import load_sequences
from espalier.models.surgery import mask, prune
from tests.real.conftest import LIMIT, N_SAMPLES, RATIOS, SEQ_LEN, RealStudy

pytestmark = pytest.mark.long

logger = logging.getLogger(__name__)  # `--log-cli-level=INFO` shows the measured numbers
# Loads an exported folder with transformers alone, and scores requests one by one.
FRESH = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
folder, requests = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()
found = []
with torch.inference_mode():
    for context, continuation in json.load(open(requests)):
        tokens = torch.tensor([[*context, *continuation]])
        log_probs = model(tokens[:, :-1]).logits[0].log_softmax(-1)
        rows = log_probs[len(context) - 1 :]
        found.append(rows.gather(1, tokens[0, len(context) :, None]).sum().item())
print(json.dumps(found))
"""


@pytest.mark.usefixtures("no_report_on_the_machine")
@pytest.mark.parametrize("ratio", [0.0, RATIOS[-1]])
def test_every_value_equals_lm_evals_hf_backend(ratio: float, real_study: RealStudy, tmp_path: Path) -> None:
    """Metrics are identical and log-likelihoods agree within 1e-3, for the unpruned and for a pruned model."""
    model = real_study.load()
    if ratio:
        plan = real_study.plan(ratio)
        prune(model, plan.kept_kv_groups, plan.kept_mlp_channels)
    tasks = load_tasks(SEVEN_TASKS, real_study.data / "tasks", tmp_path)
    theirs = simple_evaluate(
        HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(real_study.model), batch_size=4, device="cpu"),
        tasks=list(tasks.leaves.values()),
        num_fewshot=0,
        limit=LIMIT,
        task_manager=TaskManager(include_defaults=False),
    )
    ours = read_json(real_study.folder(ratio) / "metrics.json")["tasks"]
    samples = read_table(real_study.folder(ratio) / "samples.parquet")
    largest = 0.0
    for task in SEVEN_TASKS:
        assert ours[task]["n_samples"] == LIMIT
        assert ours[task]["metrics"]
        for metric, value in ours[task]["metrics"].items():
            assert value["value"] == theirs["results"][task][f"{metric},none"], (task, metric)
            assert value["stderr"] == theirs["results"][task][f"{metric}_stderr,none"], (task, metric)
        expected = [answer[0] for sample in theirs["samples"][task] for answer in sample["filtered_resps"]]
        found = samples[samples.task == task].loglikelihood.to_numpy()
        assert len(found) == len(expected)
        largest = max(largest, float(np.abs(found - expected).max()))
    logger.info("largest difference of log-likelihoods from lm-eval's hf at ratio %s: %.1e", ratio, largest)
    assert largest < 1e-3


def test_the_pruned_model_computes_what_the_masked_one_does(real_study: RealStudy) -> None:
    plan = real_study.plan(RATIOS[-1])
    tokens = torch.from_numpy(sequences(real_study)[:2])
    logits = []
    for cut in (prune, mask):
        model = real_study.load()
        cut(model, plan.kept_kv_groups, plan.kept_mlp_channels)
        with torch.inference_mode():
            logits.append(model(tokens).logits)
    difference = float((logits[0] - logits[1]).abs().max())
    logger.info("largest difference of logits, pruned and masked: %.1e", difference)
    assert difference < 1e-3


def test_importance_and_priors_in_bfloat16_rank_as_in_float32(real_study: RealStudy) -> None:
    model = real_study.load().to(torch.bfloat16)
    tokens = torch.from_numpy(sequences(real_study))
    settings = PassSettings(token_budget=SEQ_LEN * N_SAMPLES)
    rough = pd.DataFrame(measure_importance(model, tokens, [N_SAMPLES], settings=settings).importance)
    exact = read_table(one(real_study.results / "importance/SmolLM2/taylor"))
    exact = exact[exact.n_samples == N_SAMPLES]
    keys = ["layer", "block", "group"]
    both = exact.merge(rough, on=keys, suffixes=("", "_rough"), validate="one_to_one")
    assert len(both) == len(exact) == len(rough)
    importance = spearmanr(both.importance, both.importance_rough).statistic
    logger.info("rank correlation of importance, bfloat16 with float32: %.5f", importance)
    assert importance > 0.999

    table = read_table(one(real_study.results / "priors/SmolLM2"))
    table = table[table.n_samples == N_SAMPLES]
    n_sequences = -(-N_SAMPLES // 5)
    priors = pd.DataFrame(
        measure_priors(model, tokens[:n_sequences], token_budget=SEQ_LEN * N_SAMPLES).columns(N_SAMPLES, n_sequences)
    )
    keys = [name for name in table.columns if name not in {"loss_increase", "cosine_distance"}]
    both = table.merge(priors, on=keys, suffixes=("", "_rough"), validate="one_to_one")
    assert len(both) == len(table) == len(priors)
    for column in ("loss_increase", "cosine_distance"):
        found = spearmanr(both[column], both[f"{column}_rough"]).statistic
        logger.info("rank correlation of %s, bfloat16 with float32: %.4f", column, found)
        assert found > 0.99, column


def test_the_exported_folder_gives_the_evaluated_loglikelihoods(real_study: RealStudy, tmp_path: Path) -> None:
    """A new process loads the folder with transformers alone."""
    folder = real_study.results / "checkpoints/SmolLM2/best"
    best = read_json(folder / "plan.json")["experiment"]
    samples = read_table(real_study.results / f"experiments/SmolLM2/{best}/samples.parquet")
    wanted = samples[samples.task.isin(["arc_easy", "piqa"])]
    requests = read_table(real_study.results / "requests/SmolLM2.parquet")
    pairs = wanted.merge(requests, on=["task", "doc_id", "choice"], validate="one_to_one")
    assert len(pairs) == len(wanted) > 20
    (tmp_path / "requests.json").write_text(
        pairs.apply(lambda row: [list(map(int, row.context)), list(map(int, row.continuation))], axis=1).to_json(
            orient="values"
        ),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-c", FRESH, folder, tmp_path / "requests.json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    difference = float(np.abs(found - pairs.loglikelihood.to_numpy()).max())
    logger.info("largest difference of log-likelihoods, exported and evaluated: %.1e", difference)
    assert difference < 1e-3


@pytest.mark.llama
def test_llama_cpp_loads_the_gguf_file(real_study: RealStudy) -> None:
    """The export job loads the file in llama.cpp and compares logits; the test checks the recorded comparison."""
    (facts,) = (real_study.results / "checkpoints/SmolLM2").glob("best.F16.gguf.json")
    found = read_json(facts)["llama_cpp"]
    assert found["checked"]
    assert found["same_argmax"] > 0.95
    assert found["n_of_them_with_other_ids"] == 0


def test_tables_and_reports_are_there_and_perplexity_rises_with_the_ratio(real_study: RealStudy) -> None:
    table = pd.read_parquet(real_study.results / "consolidated/experiments.parquet").sort_values("pruning_ratio")
    assert table.status.tolist() == ["ok"] * 3
    perplexities = table.ppl_wikitext2.tolist()
    assert perplexities == sorted(perplexities)
    assert perplexities[0] < perplexities[1] < perplexities[2]
    for page in ("SmolLM2", "cross_model"):
        assert "</html>" in (real_study.results / f"reports/{page}/report.html").read_text(encoding="utf-8")


def sequences(study: RealStudy) -> np.ndarray:
    """Return the calibration sequences of the study."""
    manifest = read_json(study.results / "models/SmolLM2.json")
    settings = SequenceSettings(text_field="text", seed=0, seq_len=SEQ_LEN, n_samples=N_SAMPLES)
    return load_sequences(manifest, study.data / "texts/c4_sample.jsonl", settings)


def one(folder: Path) -> Path:
    """Return the only Parquet file in a folder and its subfolders."""
    (path,) = folder.rglob("*.parquet")
    return path
