"""The export of a checkpoint: it is written completely and checked, or not at all."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from espalier.errors import UserError
from espalier.export import folder as writing
from espalier.export import make as making
from espalier.export.licence import licence_of
from espalier.export.make import export_checkpoint
from espalier.export.parity import compare, make_prompts, reference
from espalier.files import read_json, write_json
from espalier.models import pruned_blocks
from espalier.models.loading import load_model
from espalier.models.manifest import make_manifest
from espalier.models.sizes import ModelSizes
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from tests.conftest import REPOSITORY
from tests.unit.export.conftest import (
    N_CHANNELS,
    N_KV,
    N_LAYERS,
    ODD,
    WIDE,
    Source,
    description_of,
    source_in,
)
from tests.unit.models.test_surgery import logits
from tests.unit.wrappers import random_wrapper

Make = Callable[..., Source]
SHAPE = ((1,),) * N_LAYERS, (WIDE[:16],) * N_LAYERS, ()
FOUR_TYPES = {"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]}


def export(source: Source, checkpoint: Path, *, dtype: str = "stored", stubs: bool = False) -> None:
    export_checkpoint(source.manifest, source.description, dtype=dtype, stubs=stubs, checkpoint=checkpoint)


def nothing_left(checkpoint: Path) -> bool:
    return not checkpoint.parent.exists() or not list(checkpoint.parent.iterdir())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, pages: list[str]) -> tuple[Source, Path]:
    """Export a Qwen2 with tied embeddings and a licence, for tests that do not change it."""
    place = tmp_path_factory.mktemp("exported")
    source = source_in(place / "base", "qwen2", pages, tie_word_embeddings=True)
    (source.folder / "LICENSE").write_text("Do as you like.\n")
    export(source, place / "best")
    return source, place / "best"


# --- content of the folder ---


@pytest.mark.usefixtures("quick_check")
@pytest.mark.parametrize("kept", [ODD, SHAPE], ids=["differing", "stock"])
def test_the_text_model_of_a_wrapper(tmp_path: Path, pages: list[str], kept: tuple[Any, ...]) -> None:
    """A fresh process loads the export, which holds nothing of the image part."""
    tokenizer = wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=True)
    wrapper = random_wrapper("gemma3", text={"vocab_size": len(tokenizer), "num_hidden_layers": N_LAYERS, **FOUR_TYPES})
    wrapper.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    tokenizer_config = read_json(tmp_path / "base/tokenizer_config.json") | {"processor_class": "Gemma3Processor"}
    write_json(tmp_path / "base/tokenizer_config.json", tokenizer_config)
    manifest = make_manifest("A", tmp_path / "base", trust_remote_code=False, commit=None)
    plan = Plan((N_KV,) * N_LAYERS, (N_CHANNELS,) * N_LAYERS, *kept)
    description = description_of(manifest, plan, ModelSizes.from_dict(manifest["structure"]))
    export(Source(tmp_path / "base", manifest, description, plan), tmp_path / "out")
    parity = read_json(tmp_path / "out/parity.json")
    assert parity["passed"]
    assert parity["logits"]["max_abs_difference"] == 0.0
    config = read_json(tmp_path / "out/config.json")
    assert not {"text_config", "vision_config", "mm_tokens_per_image"} & set(config)
    if kept == SHAPE:
        assert (config["model_type"], config["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    assert "processor_class" not in read_json(tmp_path / "out/tokenizer_config.json")
    assert read_json(tmp_path / "out/plan.json")["base_model"]["wrapper"] == manifest["wrapper"]
    assert "the text model inside Gemma3ForConditionalGeneration" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("architecture", "changes", "stubs"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 6}, False),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 6}, True),
        ("mistral", {"sliding_window": 5, "tie_word_embeddings": True}, False),
        ("qwen2", {}, True),
        ("qwen3", {"head_dim": 12, "dtype": torch.bfloat16}, False),
        ("phi3", {}, False),
    ],
)
def test_a_fresh_process_finds_the_evaluated_model(
    make_source: Make, tmp_path: Path, architecture: str, changes: dict[str, Any], stubs: bool
) -> None:
    """The parity check passes for a model without attention in layer 0, MLP in layer 1, and both in layer 3."""
    source = make_source(architecture, **changes)
    checkpoint = tmp_path / "out/best"
    export(source, checkpoint, stubs=stubs)
    parity = read_json(checkpoint / "parity.json")
    assert parity["passed"]
    assert parity["logits"]["max_abs_difference"] == 0.0
    assert parity["logits"]["argmax_equal"]
    assert parity["logits"]["max_abs_difference_cached"] < 1e-4
    if architecture != "phi3":  # the others sum in another order with a cache, so a difference of 0 was not measured
        assert parity["logits"]["max_abs_difference_cached"] > 0
    assert parity["weights_dtype"] == str(changes.get("dtype", "torch.float32")).removeprefix("torch.")
    assert "rounding" not in parity
    assert {parity["generation"][name] for name in ("greedy_cached", "greedy_static_cache", "beam_cached")} == {"equal"}
    assert parity["generation"]["left_padded"] == "equal"
    assert parity["tokenizer"] == {"n_texts": 5, "equal": True}
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best"]
    with safe_open(checkpoint / "model.safetensors", framework="pt") as weights:
        left = [name for name in weights.keys() if name.startswith("model.layers.3.") and "proj" in name]  # noqa: SIM118
    biases = ["model.layers.3.mlp.down_proj.bias", "model.layers.3.self_attn.o_proj.bias"]
    if not stubs:
        assert sorted(left) == (biases if changes.get("mlp_bias") else [])


def test_the_folder_holds_what_others_build_on(exported: tuple[Source, Path]) -> None:
    source, folder = exported
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "LICENSE", "config.json", "generation_config.json", "model.safetensors", "plan.json",
        "parity.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "architecture.py",
        "configuration_pruned.py", "modeling_pruned.py", "pruned_blocks.py",
    }  # fmt: skip
    config = read_json(folder / "config.json")
    assert config["model_type"] == "pruned_qwen2"
    assert config["architectures"] == ["PrunedQwen2ForCausalLM"]
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_pruned.PrunedQwen2ForCausalLM"
    assert config["head_dim"] == 8
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["intermediate_size"]) == (4, 2, 48)
    sizes = [("attention",), ("mlp",), (), ("attention", "mlp")]
    kept = [(0, 24), (1, 0), (2, 3), (0, 0)]  # KV groups and channels of the plan; each group has two query heads
    assert config["per_layer_config"] == {
        str(layer): {
            "num_attention_heads": 2 * n_kv, "num_key_value_heads": n_kv, "intermediate_size": n_mlp,
            "skip": list(skip),
        }
        for layer, (skip, (n_kv, n_mlp)) in enumerate(zip(sizes, kept, strict=True))
    }  # fmt: skip
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
    blocks = {re.sub(r"model\.layers\.(\d)\.(self_attn|mlp)\..*", r"\1 \2", name) for name in names if "proj" in name}
    assert blocks == {"0 mlp", "1 self_attn", "2 self_attn", "2 mlp"}
    assert "lm_head.weight" not in names  # tied
    plan = read_json(folder / "plan.json")
    assert {key: plan[key] for key in source.description["plan"]} == source.description["plan"]
    assert plan["base_model"]["files"] == source.manifest["files"]


def test_a_stranger_needs_trust_remote_code_and_we_do_not(exported: tuple[Source, Path], tmp_path: Path) -> None:
    """The folder loads with `trust_remote_code`, or without it after `import espalier.models.pruned`."""
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM\n"
        "for trust in (False, True):\n"
        "    try: model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=trust)\n"
        "    except ValueError as error: print('refused', 'trust_remote_code' in str(error))\n"
        "    else: print(type(model).__module__, model(torch.arange(5)[None]).logits.shape[1])"
    )

    def run(code: str, path: str = "") -> list[str]:
        environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", code, str(exported[1])],
            capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    refused, loaded = run(code)
    assert refused == "refused True"
    assert re.fullmatch(r"transformers_modules\.best.*\.modeling_pruned 5", loaded)
    ours, _ = run(f"import espalier.models.pruned\n{code}", str(REPOSITORY / "src"))
    assert ours == "espalier.models.modeling_pruned 5"


def test_sharded_weights_load(make_source: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedModel

    save = PreTrainedModel.save_pretrained
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", lambda self, to: save(self, to, max_shard_size="40KB"))
    export(make_source("llama"), tmp_path / "best")
    assert len(list((tmp_path / "best").glob("model-*.safetensors"))) > 1
    assert read_json(tmp_path / "best/parity.json")["passed"]


# --- dtypes ---


def test_another_dtype_is_compared_after_rounding(make_source: Make, tmp_path: Path) -> None:
    source = make_source("llama")
    export(source, tmp_path / "best", dtype="bfloat16")
    parity = read_json(tmp_path / "best/parity.json")
    assert parity["weights_dtype"] == "bfloat16"
    assert parity["logits"]["max_abs_difference"] == 0.0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "best")
    assert loaded.dtype == torch.bfloat16
    exact = load_model(source.folder, dtype="float32", device=torch.device("cpu"))
    prune(exact, source.plan.kept_kv_groups, source.plan.kept_mlp_channels)
    prompts = make_prompts(exact.config.vocab_size, 128)
    moved = (logits(loaded.float(), prompts) - logits(exact, prompts)).abs().max()
    assert parity["rounding"] == {"from": "float32", "max_abs_logit_difference": pytest.approx(float(moved))}
    assert parity["rounding"]["max_abs_logit_difference"] > 1e-3
    card = (tmp_path / "best/README.md").read_text()
    assert "rounding from float32 moves logits" in card


def test_float16_that_overflows_is_refused(make_source: Make, tmp_path: Path) -> None:
    source = make_source("llama", scale=1e5)  # the largest float16 is 65,504
    with pytest.raises(UserError, match=r"export\.dtype: float16 cannot hold the values of .*weight; give bfloat16"):
        export(source, tmp_path / "out/best", dtype="float16")
    assert nothing_left(tmp_path / "out/best")


# --- the parity check ---


@pytest.fixture
def reference_of_another(make_source: Make, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Simulate wrong weights in the folder: the reference is computed after a weight has changed."""

    def changed(model: Any, prompts: torch.Tensor) -> dict[str, torch.Tensor]:
        model.lm_head.weight.data[7] += 0.5
        return reference(model, prompts)

    monkeypatch.setattr(making, "reference", changed)
    return make_source("llama")


def test_a_checkpoint_that_differs_is_deleted_with_the_reason(reference_of_another: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not the evaluated model: logits differ by .* \(allowed: 0\.001\).*delete"):
        export(reference_of_another, tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


def test_code_that_does_not_load_is_deleted_with_the_reason(
    make_source: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        writing.pruned, "EXPORTED_FILES", ("architecture.py", "configuration_pruned.py", "modeling_pruned.py")
    )
    with pytest.raises(UserError, match=r"a fresh process could not load the checkpoint \(.*pruned_blocks.*deleted"):
        export(make_source("llama"), tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


def test_another_tokenizer_is_noticed(make_source: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "tokens_of", lambda _, texts: {text: [1, 2, 3] for text in texts})
    with pytest.raises(UserError, match=r"not the evaluated model: the tokenizer reads 'The quick.*' differently"):
        export(make_source("llama"), tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


@pytest.mark.parametrize("what", ["greedy_cached", "greedy_static_cache", "beam_cached", "left_padded"])
def test_each_way_to_generate_is_judged(make_source: Make, what: str) -> None:
    """With one token of the reference changed, beam search is `different` and the other comparisons are a `tie`."""
    source = make_source("llama")
    model = load_model(source.folder, dtype="float32", device=torch.device("cpu"))
    expected = reference(model, make_prompts(model.config.vocab_size, 128))
    assert compare(model, expected)["passed"]
    key = {"beam_cached": "beam", "left_padded": "padded_1"}.get(what, "greedy")
    expected[key] = expected[key].clone()
    expected[key][0, -1] = (expected[key][0, -1] + 1) % model.config.vocab_size
    # Greedy and padded: the generated tokens still have the largest logits, so only a wrong model makes a difference.
    found = compare(model, expected)
    verdict = found["generation"][what]
    assert verdict == ("different" if what == "beam_cached" else "tie")


def test_a_cache_that_goes_wrong_is_noticed(make_source: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached decoding goes wrong if the removed attention of layer 0 does not count tokens in the cache."""
    source = make_source("llama")
    model = load_model(source.folder, dtype="float32", device=torch.device("cpu"))
    prune(model, source.plan.kept_kv_groups, source.plan.kept_mlp_channels)
    expected = reference(model, make_prompts(model.config.vocab_size, 128))
    assert compare(model, expected)["passed"]
    monkeypatch.setattr(
        pruned_blocks.RemovedAttention, "forward",
        lambda _, hidden_states, **__: (torch.zeros_like(hidden_states), None),
    )  # fmt: skip
    found = compare(model, expected)
    assert found["logits"]["max_abs_difference"] == 0.0
    assert found["logits"]["max_abs_difference_cached"] > 0.01
    assert {found["generation"][what] for what in ("greedy_static_cache", "left_padded")} == {"different"}
    assert not found["passed"]
    assert re.search(r"logits with a cache differ by .*; generation greedy_static_cache differs", found["reason"])


# --- errors ---


def test_a_plan_of_another_revision(make_source: Make, tmp_path: Path) -> None:
    source = make_source("llama")
    ours = source.description["plan"]["recipe"]["weights"]
    source.description["plan"]["recipe"]["weights"] = "0" * 64
    with pytest.raises(
        UserError, match=rf"another weights \(0{{12}}\) than configured \({ours[:12]}\); restore that rev"
    ):
        export(source, tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("plan", "model"),
            "B",
            r"'B', 'random-p50': was made with another model \(B\) than configured \(A\)",
        ),
        (("plan", "recipe"), {}, r"another weights \(none\) than configured"),
        (
            ("results", "weights"),
            "1" * 64,
            r"'random-p50': was made with another weights \(1{12}\) than configured",
        ),
        (
            ("results", "plan"),
            "2" * 64,
            r"'random-p50': was made with another plan \(2{12}\) than configured",
        ),
        (("results", "n_params"), 7, r"the plan keeps [\d,]+ parameters, but 7 were evaluated; evaluate it again"),
    ],
)
def test_what_does_not_belong_together(
    make_source: Make, tmp_path: Path, path: tuple[str, str], value: object, message: str
) -> None:
    source = make_source("llama")
    source.description[path[0]][path[1]] = value
    with pytest.raises(UserError, match=message):
        export(source, tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


def test_missing_weights(make_source: Make, tmp_path: Path) -> None:
    source = make_source("llama")
    (source.folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: is missing; it changed after it was checked\. Restore"):
        export(source, tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


def test_weights_of_the_same_size_but_other_content(make_source: Make, tmp_path: Path) -> None:
    source = make_source("llama")
    file = source.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match=r"model\.safetensors: has checksum \w{12}, not \w{12} as when it was checked"):
        export(source, tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


def test_a_model_that_no_class_expresses(make_source: Make, tmp_path: Path) -> None:
    source = make_source("llama")
    source.manifest["model_type"] = "olmo2"
    with pytest.raises(
        UserError, match=r"model 'A' is of type 'olmo2'.*; allowed: llama, mistral, qwen2, qwen3, .*\. Leave"
    ):
        export(source, tmp_path / "out/best")
    assert nothing_left(tmp_path / "out/best")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 256 kB; skip the test if that is not possible."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small_is_seen_before(make_source: Make, small_disk: Path) -> None:
    with pytest.raises(UserError, match=r"disk: no room: the checkpoint needs 32 MiB, 0 MiB are free; make room"):
        export(make_source("llama"), small_disk / "best")
    assert nothing_left(small_disk / "best")


def test_a_disk_that_fills_midway(make_source: Make, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "check_space", lambda *_: None)
    source = make_source("llama", hidden_size=128)
    with pytest.raises(UserError, match=r"best: the disk is full; nothing of the checkpoint was kept\. Make room and"):
        export(source, small_disk / "best")
    assert nothing_left(small_disk / "best")


# --- licences ---


@pytest.mark.parametrize("text", ["a: {", "a: 2024-13-45", "[" * 3000, "&a [*a]", "license: [mit]", "- x"])
def test_metadata_that_say_no_licence_are_skipped(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{text}\n---\n")
    assert licence_of(tmp_path) == {"files": []}


def test_a_licence_is_read_from_the_folder(tmp_path: Path) -> None:
    assert licence_of(tmp_path) == {"files": []}
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: tiny-1\n---\n# A\n")
    (tmp_path / "LICENSE.txt").write_text("text")
    (tmp_path / "USE_POLICY.md").write_text("text")
    found = licence_of(tmp_path)
    assert found == {"license": "other", "license_name": "tiny-1", "files": ["LICENSE.txt", "USE_POLICY.md"]}
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    assert licence_of(tmp_path)["files"] == ["LICENSE.txt", "USE_POLICY.md"]


def test_the_tokenizer_keeps_its_template(exported: tuple[Source, Path]) -> None:
    source, folder = exported
    ours, base = (AutoTokenizer.from_pretrained(each) for each in (folder, source.folder))
    chat = [{"role": "user", "content": "Who?"}]
    assert ours.apply_chat_template(chat, tokenize=False) == base.apply_chat_template(chat, tokenize=False)
    assert (ours.bos_token, ours.eos_token) == (base.bos_token, base.eos_token)
    assert json.loads((folder / "generation_config.json").read_text()) == json.loads(
        (source.folder / "generation_config.json").read_text()
    )
