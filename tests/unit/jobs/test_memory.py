"""Errors when host memory runs out, as each library raises them."""

import errno

import numpy as np
import pyarrow as pa
import pytest
import torch

from espalier.errors import UserError, memory_line, out_of_memory

TOO_MUCH = 2**50


def of_numpy() -> None:
    np.empty(TOO_MUCH)


def of_torch() -> None:
    torch.empty(TOO_MUCH)


def of_pyarrow() -> None:
    pa.allocate_buffer(TOO_MUCH)


@pytest.mark.parametrize("allocate", [of_numpy, of_torch, of_pyarrow])
def test_libraries_that_are_asked_for_too_much(allocate: object) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        allocate()  # type: ignore[operator]
    assert out_of_memory(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("unable to mmap 210136096 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
    ],
)
def test_known_errors(error: Exception) -> None:
    detail = out_of_memory(error)
    assert detail is not None
    assert detail.startswith(type(error).__name__)
    wrapped = UserError("the model cannot be built; correct the file")
    wrapped.__context__ = error
    assert out_of_memory(wrapped) == detail


@pytest.mark.parametrize(
    "error",
    [
        ValueError("memory of an elephant"),
        OSError(errno.ENOSPC, "No space left on device"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_other_errors(error: Exception) -> None:
    assert out_of_memory(error) is None


def test_the_line_names_the_setting_of_a_cluster_job() -> None:
    assert memory_line("MemoryError", "plan") == (
        "out of memory (MemoryError); give the job more (ulimit, cgroup or container, or `--set-resources "
        "plan:mem_mb=...` on a cluster) or close other programs, and run again"
    )
    assert "cluster" not in memory_line("MemoryError")
