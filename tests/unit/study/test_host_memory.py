"""Host memory that jobs request."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from espalier.files import write_json
from espalier.study.host_memory import GPU_PROCESS_MB, PROCESS_MB, Memory, stored_dtype

N_PARAMS = 8_030_261_248  # Llama-3-8B


def memory_of(folder: Path, job: str, *, attempt: int = 1, uses_gpu: bool = False, **dtypes: str) -> int:
    path = folder / "M.json"
    write_json(path, {"n_params": N_PARAMS, "config": {"dtype": "bfloat16"}})
    return Memory(dtypes, uses_gpu=uses_gpu).mem_mb(job)(None, SimpleNamespace(manifest=str(path)), attempt)


def test_a_job_on_the_cpu_asks_for_what_it_holds(tmp_path: Path) -> None:
    mb = N_PARAMS / 1e6  # at one byte per parameter
    assert memory_of(tmp_path, "evaluation", evaluation="bfloat16") == PROCESS_MB + int(2 * 2 * mb)
    assert memory_of(tmp_path, "evaluation", evaluation="float32") == PROCESS_MB + int(2 * 4 * mb)
    assert memory_of(tmp_path, "evaluation", evaluation="auto") == memory_of(
        tmp_path, "evaluation", evaluation="bfloat16"
    )
    assert memory_of(tmp_path, "gradients", evaluation="bfloat16") == PROCESS_MB + int((2 * 2 + 8) * mb)
    assert memory_of(tmp_path, "recovery", evaluation="float32", recovery="bfloat16") == PROCESS_MB + int((4 + 4) * mb)
    full, mixed = ({"recovery": dtype} for dtype in ("float32", "bfloat16"))
    assert memory_of(tmp_path, "recovery_distillation", **mixed) == PROCESS_MB + int((3 * 2 + 4) * mb)
    assert memory_of(tmp_path, "recovery_full", **full) == PROCESS_MB + int((4 + 16) * mb)
    assert memory_of(tmp_path, "recovery_full_distillation", **mixed) == PROCESS_MB + int((2 * 2 + 16) * mb)
    assert memory_of(tmp_path, "gradients", attempt=3) == 3 * memory_of(tmp_path, "gradients")


def test_beside_a_gpu_the_size_of_the_model_does_not_matter_but_for_exports(tmp_path: Path) -> None:
    assert memory_of(tmp_path, "gradients", uses_gpu=True) == GPU_PROCESS_MB
    assert memory_of(tmp_path, "gradients", uses_gpu=True, attempt=2) == 2 * GPU_PROCESS_MB
    export = memory_of(tmp_path, "export", uses_gpu=True, evaluation="float32")
    assert export == PROCESS_MB + int((2 + 8) * N_PARAMS / 1e6)  # the stored dtype counts, not that of the evaluation


def test_a_manifest_that_is_missing_or_made_again_is_noticed(tmp_path: Path) -> None:
    """Snakemake shows `<TBD>` if a resource function raises FileNotFoundError for an input of the job."""
    resource = Memory({}, uses_gpu=False).mem_mb("evaluation")
    path = tmp_path / "M.json"
    with pytest.raises(FileNotFoundError) as missing:
        resource(None, SimpleNamespace(manifest=str(path)), 1)
    assert missing.value.filename == str(path)
    found = []
    for n_params in (10**6, 10**9):
        write_json(path, {"n_params": n_params, "config": {}})
        found.append(resource(None, SimpleNamespace(manifest=str(path)), 1))
    assert found == [PROCESS_MB + 8, PROCESS_MB + 8000]


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"dtype": "float16"}, "float16"), ({"torch_dtype": "bfloat16"}, "bfloat16"), ({}, "float32")],
)
def test_the_dtype_on_disk(config: dict[str, str], expected: str) -> None:
    assert stored_dtype({"config": config}) == expected


def test_a_damaged_manifest_is_left_to_the_job(tmp_path: Path) -> None:
    """An error here would end the whole run with a traceback; the job of this model says it in one line."""
    (tmp_path / "A.json").write_text('{"n_params": 10')
    resource = Memory({}, uses_gpu=False).mem_mb("evaluation")
    assert resource(None, input=SimpleNamespace(manifest=str(tmp_path / "A.json")), attempt=2) == 2 * PROCESS_MB
