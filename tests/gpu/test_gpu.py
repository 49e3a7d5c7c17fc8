"""Results on the GPU: equal to the CPU's in float32, as exact as lm-eval's in bfloat16, correct after out of memory."""

import copy
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from transformers import PreTrainedModel

from espalier.calibration.importance import measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.priors import measure_priors
from espalier.calibration.summed_linear import add_product, writes_float32
from espalier.evaluation.perplexity import measure_perplexity
from espalier.models.decoder import n_mlp_channels
from espalier.models.from_manifest import device_map
from espalier.models.padding import pad_widths, width_multiple
from espalier.models.sizes import sizes_from_shapes
from espalier.models.surgery import prune
from espalier.scoring.compiled import compile_layers
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from tests.conftest import REPOSITORY
from tests.gpu.conftest import DEVICE, VOCABULARY, random_model, random_tokens

logger = logging.getLogger(__name__)  # `--log-cli-level=INFO` shows the measured numbers
COUNTS = [1, 2, 4, 6]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])}
on_a_gpu = pytest.mark.skipif(DEVICE.type != "cuda", reason="a rehearsal on the CPU")


def on_device(model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a copy of a model on the device under test."""
    return copy.deepcopy(model).to(DEVICE, dtype)


def requests() -> list[Request]:
    """Return the requests of 40 documents, with four choices on the same context each, and 8 long requests."""
    rows = random_tokens(40, 300).tolist()
    short = [Request(row[: 5 + 4 * number], row[200 : 201 + k]) for number, row in enumerate(rows) for k in range(4)]
    return short + [Request(row[:250], row[250:]) for row in rows[:8]]


def pruned(model: PreTrainedModel) -> PreTrainedModel:
    """Return a pruned copy: each layer keeps another odd number of channels and loses one KV head."""
    model = copy.deepcopy(model)
    n_layers, n_kv, n_mlp = (
        model.config.num_hidden_layers, model.config.num_key_value_heads, model.config.intermediate_size,
    )  # fmt: skip
    channels = [list(range(layer, n_mlp - 101 - layer)) for layer in range(n_layers)]
    prune(model, [list(range(1, n_kv))] * n_layers, channels)
    return model


def collected(model: PreTrainedModel, **settings: int) -> dict[str, np.ndarray]:
    size = PassSettings(**{"token_budget": 256, **settings})
    found = measure_importance(model, random_tokens(6, 64), COUNTS, settings=size)
    assert found.gradients is not None
    return {"importance": found.importance["importance"], "norm": found.gradients["grad_norm"]} | {
        key: found.importance[key] for key in ("n_samples", "layer", "group")
    }


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], rtol: float) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=rtol, err_msg=name)


def loglikelihoods(model: PreTrainedModel, token_budget: int = 4096) -> np.ndarray:
    return np.array([score.loglikelihood for score in score_requests(model, requests(), token_budget=token_budget)])


def test_importance_is_that_of_the_cpu(model: PreTrainedModel) -> None:
    assert_close(collected(on_device(model)), collected(model), rtol=1e-3)


def test_one_layer_at_a_time_gives_what_all_at_once_do(model: PreTrainedModel) -> None:
    there = on_device(model)
    assert_close(collected(there, layers_per_pass=1), collected(there), rtol=1e-5)
    assert_close(collected(there, layers_per_pass=3, checkpointing=True), collected(there), rtol=1e-4)


def test_priors_are_those_of_the_cpu(model: PreTrainedModel) -> None:
    rows = [
        measure_priors(one, random_tokens(3, 64), token_budget=256).columns(3, 3) for one in (on_device(model), model)
    ]
    for column in ("loss_increase", "cosine_distance"):
        np.testing.assert_allclose(rows[0][column], rows[1][column], atol=1e-4)


def test_scores_are_those_of_the_cpu(model: PreTrainedModel) -> None:
    for one in (model, pruned(model)):
        np.testing.assert_allclose(loglikelihoods(on_device(one)), loglikelihoods(one), atol=1e-3)


def test_perplexity_is_that_of_the_cpu(model: PreTrainedModel) -> None:
    tokens = random_tokens(1, 900)[0].numpy()
    found = [
        measure_perplexity(one, tokens, name="text", window=256, stride=64, token_budget=2048).value
        for one in (on_device(model), model)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@on_a_gpu
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_on_two_devices_gives_what_it_gives_on_one(tied: bool) -> None:
    """The second half of the layers is on the GPU; with untied embeddings, the output embeddings are, too."""
    model = random_model("llama")
    sizes = sizes_from_shapes(
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, model.config.to_dict()
    )
    halves = {name: DEVICE if half else "cpu" for name, half in device_map(sizes, 2, tied=tied).items()}
    divided = dispatch_model(copy.deepcopy(model), halves, main_device="cpu")
    assert divided.model.layers[0].mlp.up_proj.weight.device != divided.model.layers[3].mlp.up_proj.weight.device
    np.testing.assert_allclose(loglikelihoods(divided), loglikelihoods(model), atol=1e-3)
    assert_close(collected(divided), collected(model), rtol=1e-3)
    priors = [measure_priors(one, random_tokens(3, 64), token_budget=256).columns(3, 3) for one in (divided, model)]
    np.testing.assert_allclose(priors[0]["loss_increase"], priors[1]["loss_increase"], atol=1e-4)


@pytest.mark.parametrize("is_pruned", [False, True])
def test_bfloat16_is_as_near_to_float32_as_lm_evals_hf(is_pruned: bool) -> None:
    """Both backends run in bfloat16; our mean error against float32 is at most 5% larger than lm-eval's."""
    model = random_model("llama")
    model = pruned(model) if is_pruned else model
    exact = loglikelihoods(model)
    rough = on_device(model, torch.bfloat16)
    ours = float(np.abs(loglikelihoods(rough) - exact).mean())
    logger.info("mean error in bfloat16: %.4f nats", ours)
    assert ours < 0.05 * float(np.abs(exact).mean())
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    backend = huggingface.HFLM(pretrained=rough, tokenizer=word_tokenizer(), batch_size=8, max_length=1024)
    asked = [(("", ""), list(one.context), list(one.continuation)) for one in requests()]
    scored = backend._loglikelihood_tokens(asked, disable_tqdm=True)
    theirs = float(np.abs(np.array([value for value, _ in scored]) - exact).mean())
    logger.info("of lm-eval's hf: %.4f nats", theirs)
    assert ours <= 1.05 * theirs


def word_tokenizer() -> object:
    """Return the tokenizer that lm-eval requires, even though the test passes tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{number}": number for number in range(VOCABULARY)}
    special = {f"{name}_token": f"w{number}" for number, name in enumerate(("pad", "bos", "eos"))}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary)), **special)


@on_a_gpu
def test_out_of_memory_halves_the_budget_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The allocator's limit is set so low that a batch of the full token budget does not fit."""
    model = random_model("llama", vocab_size=VOCABULARY, hidden_size=1024, num_hidden_layers=8)
    there = on_device(model)
    expected = loglikelihoods(there, token_budget=512)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    loglikelihoods(there, token_budget=512)
    small = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loglikelihoods(there, token_budget=16_384)
    large = torch.cuda.max_memory_allocated()
    assert large > 1.2 * small
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((small + 0.4 * (large - small)) / total)
    try:
        found = loglikelihoods(there, token_budget=16_384)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert "out of memory" in caplog.text


@on_a_gpu
def test_a_pass_out_of_memory_takes_less_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """The allocator's limit leaves room for the sums of some layers, but not for those of all layers."""
    model = random_model("llama", hidden_size=1024, num_hidden_layers=16, intermediate_size=2700)
    there = on_device(model)
    expected = collected(there)
    torch.cuda.empty_cache()
    used = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((1.7 * used) / total)
    caplog.clear()
    try:
        with caplog.at_level(logging.INFO, logger="espalier"):
            found = collected(there)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_close(found, expected, rtol=1e-3)
    assert "out of GPU memory" in caplog.text or "layers_per_pass 16 of 16" not in caplog.text


def test_two_jobs_that_want_one_gpu_take_turns(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from espalier.models.devices import lock_gpus
        taken = lock_gpus(1, n_present=1, folder=Path({str(tmp_path)!r}))
        print(time.time(), *taken, flush=True)
        time.sleep(2)
        print(time.time(), flush=True)
    """
    environment = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "0"}
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"):
        environment.pop(name, None)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [job.communicate(timeout=120)[0].split() for job in jobs]
    assert [words[1] for words in printed] == ["0", "0"]
    (_, first_end), (second_start, _) = sorted((float(words[0]), float(words[2])) for words in printed)
    assert second_start >= first_end


LOADING = """
import sys, threading, time
from pathlib import Path
import torch
from espalier.models.loading import load_model

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

device = torch.device(sys.argv[2])
torch.zeros(1, device=device)
before, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
model = load_model(sys.argv[1], dtype="auto", device=device)
seconds = time.perf_counter() - start
done.set()
watcher.join()
weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
print(weights, max(0, peak[0] - before), seconds)
"""


@on_a_gpu
def test_weights_go_straight_to_the_gpu(tmp_path: Path) -> None:
    """Loading keeps much less in anonymous host memory than the size of the weights."""
    model = random_model("llama", hidden_size=2048, num_hidden_layers=16, intermediate_size=8192).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="1GB")
    done = subprocess.run(
        [sys.executable, "-c", LOADING, tmp_path, str(DEVICE)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    weights, held, seconds = map(float, done.stdout.split()[-3:])
    logger.info("%.1f GB of weights in %.1f s; %.2f GB of anonymous host memory", weights / 1e9, seconds, held / 1e9)
    assert weights > 1.5e9
    assert held < 0.4 * weights


@on_a_gpu
@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(9, 7), (64, 256), (100, 300), (4096, 1027)])
def test_the_taylor_kernel_gives_the_sums_of_float64(
    shape: tuple[int, int], dtype: torch.dtype, *, by_column: bool
) -> None:
    from espalier.calibration.taylor_kernel import reduce_taylor  # needs Triton

    generator = torch.Generator(DEVICE).manual_seed(0)
    weight = torch.randn(shape, device=DEVICE, generator=generator).to(dtype)
    gradient = torch.randn(shape, device=DEVICE, generator=generator)
    features, moments = reduce_taylor(weight, gradient, 4, by_column=by_column)
    expected = (weight.double() * gradient.double() / 4).abs().sum(dim=0 if by_column else 1)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    size = gradient.double().abs()
    torch.testing.assert_close(moments, torch.stack([size.sum(), size.square().sum(), size.max()]), rtol=1e-5, atol=0)


@on_a_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_products_are_added_in_float32(dtype: torch.dtype) -> None:
    """A product is not rounded to half precision before it is added to the sum."""
    assert writes_float32(DEVICE, dtype)
    generator = torch.Generator(DEVICE).manual_seed(0)
    a, b = (torch.randn(256, 256, device=DEVICE, generator=generator).to(dtype) for _ in range(2))
    total = torch.full((256, 256), 1000.0, device=DEVICE)
    add_product(total, a.t(), b)
    torch.testing.assert_close(total.double(), 1000 + a.double().t() @ b.double(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padded_widths_change_no_score(model: PreTrainedModel, dtype: torch.dtype) -> None:
    ragged = on_device(pruned(model), dtype)
    expected = loglikelihoods(ragged)
    padded = copy.deepcopy(ragged)
    multiple = width_multiple(torch.device("cuda"), dtype)
    assert multiple == 16 // dtype.itemsize
    assert pad_widths(padded, multiple) > 0
    assert all(n_mlp_channels(layer) % multiple == 0 for layer in padded.model.layers)
    np.testing.assert_allclose(loglikelihoods(padded), expected, rtol=1e-4 if dtype == torch.float32 else 2e-2)


def test_compiled_layers_change_no_score() -> None:
    """Layers of different widths run through the compiler of PyTorch, which must not give up."""
    ragged = on_device(pruned(random_model("llama")))
    expected = loglikelihoods(ragged)
    compile_layers(ragged)
    np.testing.assert_allclose(loglikelihoods(ragged), expected, rtol=1e-4)
    function = ragged.model.layers[0].forward.func
    assert function.is_compiled
