"""A pretended GPU, on which `tests/gpu` runs where there is none: a device of PyTorch whose tensors lie on the CPU.

As on a GPU, an operation on tensors of two devices fails, NumPy cannot read a tensor, and memory has an end. Nothing is
learned about speed, kernels or rounding. PyTorch lets no other device be called `cuda`, so the sources under test are
copies with `NAME` in its place (`tests/unit/test_pretended_gpu.py`). `-p tests.pretended_gpu` makes pytest use it.
"""

import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
DEVICE_MEMORY = 1 << 34  # bytes
PRODUCTS_IN_FLOAT32 = {"aten.addmm.dtype", "aten.addmm.dtype_out"}  # which PyTorch has for CUDA only
COPIES = {"aten._to_copy.default", "aten.copy_.default", "aten._local_scalar_dense.default"}


class Memory:
    """The bytes of all tensors on the device. Tensors that share memory count once."""

    def __init__(self) -> None:
        self.limit: float = DEVICE_MEMORY
        self.used = 0
        self.peak = 0
        self._n_users: dict[int, int] = {}

    def add(self, tensor: "OnDevice") -> None:
        """Count a new tensor until it is deleted.

        Raises:
            torch.OutOfMemoryError: If its bytes exceed the limit.
        """
        storage = tensor.content.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if size == 0:
            return
        if address not in self._n_users:
            if self.used + size > self.limit:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
            self._n_users[address] = 0
            self.used += size
            self.peak = max(self.peak, self.used)
        self._n_users[address] += 1
        weakref.finalize(tensor, self._remove, address, size)

    def _remove(self, address: int, size: int) -> None:
        self._n_users[address] -= 1
        if self._n_users[address] == 0:
            del self._n_users[address]
            self.used -= size


class Event:
    """An event of `torch.cuda`. Operations on the pretended GPU are finished when they return."""

    def record(self) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""


class DeviceModule:
    """What Espalier and PyTorch ask of `torch.cuda`."""

    Event = Event

    def __init__(self) -> None:
        self.memory = Memory()

    def __getattr__(self, name: str) -> Any:
        """Return a function that does nothing, such as `synchronize`, `empty_cache` and `manual_seed_all`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: None

    def is_available(self) -> bool:
        """Return True."""
        return True

    def is_initialized(self) -> bool:
        """Return True."""
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        """Return 1."""
        return 1

    def current_device(self) -> int:
        """Return 0."""
        return 0

    def device(self, _device: object) -> Any:
        """Return a context that does nothing."""
        return nullcontext()

    def get_device_name(self, *_: object) -> str:
        """Return a name for logs."""
        return "pretended GPU"

    def get_device_properties(self, *_: object) -> SimpleNamespace:
        """Return the size of the memory."""
        return SimpleNamespace(total_memory=DEVICE_MEMORY)

    def set_per_process_memory_fraction(self, fraction: float, *_: object) -> None:
        """Set the limit that `OutOfMemoryError` is raised at."""
        self.memory.limit = fraction * DEVICE_MEMORY

    def mem_get_info(self, *_: object) -> tuple[int, int]:
        """Return the free and the whole memory, in bytes."""
        return int(self.memory.limit - self.memory.used), DEVICE_MEMORY

    def memory_allocated(self, *_: object) -> int:
        """Return the bytes of all tensors."""
        return self.memory.used

    def max_memory_allocated(self, *_: object) -> int:
        """Return the most bytes since the last reset."""
        return self.memory.peak

    def reset_peak_memory_stats(self, *_: object) -> None:
        """Forget the peak."""
        self.memory.peak = self.memory.used


module = DeviceModule()
_setup_privateuseone_for_python_backend(NAME, backend_module=module)
DEVICE = torch.device(NAME, 0)


class OnDevice(torch.Tensor):
    """A tensor on the pretended GPU. `content` has its numbers, on the CPU."""

    content: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, content: torch.Tensor) -> Self:
        """Put a tensor on the device."""
        tensor: Self = torch.Tensor._make_wrapper_subclass(
            cls, content.size(), strides=content.stride(), storage_offset=content.storage_offset(),
            dtype=content.dtype, device=DEVICE,
        )  # fmt: skip
        tensor.content = content
        module.memory.add(tensor)
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation on the contents."""
        return run(operation, args, kwargs or {})


def run(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation of PyTorch on the CPU. The results are on the device if its tensors are, or `device` is.

    Raises:
        RuntimeError: If one tensor is on the device and another one is not.
    """
    name = str(operation)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = any(isinstance(tensor, OnDevice) for tensor in tensors)
    if here and name not in COPIES:
        _check_devices(name, tensors)
    if kwargs.get("device") is not None:
        here = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": "cpu"}
    contents, options = (
        tree_map(lambda leaf: leaf.content if isinstance(leaf, OnDevice) else leaf, each)
        for each in (args, {**kwargs, "pin_memory": None} if "pin_memory" in kwargs else kwargs)
    )
    if name in PRODUCTS_IN_FLOAT32:
        found = torch.addmm(*(tensor.float() for tensor in contents[:3]), out=options.get("out"))
    else:
        found = operation(*contents, **options)
    if name == "aten.copy_.default":
        return args[0]
    if not here:
        return found
    # Operations in place return their argument.
    known = {id(tensor.content): tensor for tensor in tensors if isinstance(tensor, OnDevice)}

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or isinstance(leaf, OnDevice):
            return leaf
        return known[id(leaf)] if id(leaf) in known else OnDevice(leaf)

    return tree_map(put, found)


def _check_devices(name: str, tensors: list[torch.Tensor]) -> None:
    """Check that all tensors are on the device. As on a GPU, scalars and indices may be on the CPU."""
    for position, tensor in enumerate(tensors):
        is_index = position > 0 and name.startswith(("aten.index.", "aten.index_put"))
        if not (isinstance(tensor, OnDevice) or tensor.dim() == 0 or is_index):
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} of {tensors}")


class CpuGenerator(torch.Generator):
    """A generator on the CPU, whatever device is asked for."""

    def __new__(cls, *_: object) -> Self:
        """Make a generator."""
        return super().__new__(cls)


def _install() -> None:
    """Send the operations of the device to `run`, and replace what cannot be sent there."""
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda operation, *args, **kwargs: run(operation, args, kwargs), "PrivateUse1")
    module.library = library  # which is undone when it is deleted
    tensor, to_list, to_numpy = torch.tensor, torch.Tensor.tolist, torch.Tensor.numpy
    _device_constructors()  # reads `torch.tensor`, which is replaced below

    def new_tensor(data: Any, **options: Any) -> torch.Tensor:
        if options.get("device") is None or torch.device(options["device"]).type != NAME:
            return tensor(data, **options)
        return tensor(data, **{**options, "device": "cpu"}).to(DEVICE)

    def numpy(self: torch.Tensor, **options: Any) -> Any:
        if isinstance(self, OnDevice):
            raise TypeError("can't convert a tensor of a GPU to numpy. Use Tensor.cpu() first")
        return to_numpy(self, **options)

    torch.tensor = new_tensor
    torch.Generator = CpuGenerator
    torch.Tensor.tolist = lambda self: to_list(self.content if isinstance(self, OnDevice) else self)
    torch.Tensor.numpy = numpy
    torch.Tensor.pin_memory = torch.Tensor.clone


_install()
