"""Host memory that jobs ask for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.files import write_json
from espalier.study.memory import (
    EVALUATION,
    EXPORT,
    GPU_PROCESS_MB,
    GRADIENTS,
    PROCESS_MB,
    RECOVERY,
    Memory,
    stored_dtype,
)

N_PARAMS = 8_030_261_248  # Llama-3-8B


def asked(folder: Path, held: Any, *, attempt: int = 1, uses_gpu: bool = False, **dtypes: str) -> int:
    path = folder / "M.json"
    write_json(path, {"n_params": N_PARAMS, "config": {"dtype": "bfloat16"}})
    return Memory(dtypes, uses_gpu=uses_gpu).of(held)(None, SimpleNamespace(manifest=str(path)), attempt)


def test_a_job_on_the_cpu_asks_for_what_it_holds(tmp_path: Path) -> None:
    gib = N_PARAMS / 2**20  # megabytes of one byte per parameter
    assert asked(tmp_path, EVALUATION, evaluation="bfloat16") == PROCESS_MB + int(2 * 2 * gib)
    assert asked(tmp_path, EVALUATION, evaluation="float32") == PROCESS_MB + int(2 * 4 * gib)
    assert asked(tmp_path, EVALUATION, evaluation="auto") == asked(tmp_path, EVALUATION, evaluation="bfloat16")
    assert asked(tmp_path, GRADIENTS, evaluation="bfloat16") == PROCESS_MB + int((2 * 2 + 8) * gib)
    assert asked(tmp_path, RECOVERY, evaluation="float32", recovery="bfloat16") == PROCESS_MB + int((4 + 4) * gib)
    assert asked(tmp_path, GRADIENTS, attempt=3) == 3 * asked(tmp_path, GRADIENTS)


def test_beside_a_gpu_the_size_of_the_model_does_not_matter_but_for_exports(tmp_path: Path) -> None:
    assert asked(tmp_path, GRADIENTS, uses_gpu=True) == GPU_PROCESS_MB
    assert asked(tmp_path, GRADIENTS, uses_gpu=True, attempt=2) == 2 * GPU_PROCESS_MB
    export = asked(tmp_path, EXPORT, uses_gpu=True, evaluation="float32")
    assert export == PROCESS_MB + int((2 + 8) * N_PARAMS / 2**20)  # as stored, whatever it is evaluated in


def test_a_manifest_that_is_missing_or_made_again_is_noticed(tmp_path: Path) -> None:
    """Snakemake shows `<TBD>` where a function does not find one of the job's inputs."""
    resource = Memory({}, uses_gpu=False).of(EVALUATION)
    path = tmp_path / "M.json"
    with pytest.raises(FileNotFoundError) as missing:
        resource(None, SimpleNamespace(manifest=str(path)), 1)
    assert missing.value.filename == str(path)
    found = []
    for n_params in (2**20, 2**30):
        write_json(path, {"n_params": n_params, "config": {}})
        found.append(resource(None, SimpleNamespace(manifest=str(path)), 1))
    assert found == [PROCESS_MB + 8, PROCESS_MB + 8 * 2**10]


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"dtype": "float16"}, "float16"), ({"torch_dtype": "bfloat16"}, "bfloat16"), ({}, "float32")],
)
def test_the_dtype_on_disk(config: dict[str, str], expected: str) -> None:
    assert stored_dtype({"config": config}) == expected
