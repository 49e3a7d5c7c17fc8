"""Fine-tune all weights of a pruned model: prepare it for training, save its weights, and load them.

Weights, gradients and both moments of AdamW are float32, 16 bytes for each parameter. A step of the learning rate 1e-5
would be lost in bfloat16, which keeps about three digits. With `recovery.dtype` bfloat16, matrix products are computed
in bfloat16 (`torch.autocast`), and the weights stay float32.

The trained weights are stored in the shapes of the pruned model: in bfloat16 if the files of the base model are
bfloat16, otherwise in float32. So they are rounded once, and an exported model has the weights that were evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.files import atomic_folder
from espalier.planning.plan import Plan
from espalier.recovery.fingerprint import TRAINED_WEIGHTS, kept_groups_hash

_AGAIN = "delete it and run again"


def prepare_full(model: PreTrainedModel) -> None:
    """Cast all parameters to float32 and make them trainable, in place. Tied embeddings stay tied."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


@contextmanager
def products_in(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Compute matrix products in a dtype inside the block. float32 changes nothing.

    Weights are rounded for each product. PyTorch would otherwise keep the rounded weights until the end of the block,
    and the steps of the optimiser would have no effect on them.
    """
    is_rounded = dtype == torch.bfloat16
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=is_rounded, cache_enabled=False):
        yield


def save_weights(model: PreTrainedModel, folder: str | Path, plan: Plan, dtype: torch.dtype) -> None:
    """Write all parameters of a model. The folder is written atomically.

    Args:
        model: The trained model.
        folder: Folder to write.
        plan: Pruning plan of the model. The file stores its hash.
        dtype: Dtype to store: bfloat16 or float32.
    """
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.named_parameters()}
    with atomic_folder(folder) as temporary:
        # Write a single metadata entry: with several, safetensors varies their order between processes.
        save_file(weights, temporary / TRAINED_WEIGHTS, metadata={"plan": kept_groups_hash(plan)})


def load_weights(model: PreTrainedModel, folder: str | Path, plan: Plan) -> PreTrainedModel:
    """Replace the parameters of a pruned model by saved ones, in place. The model keeps its dtype and device.

    Args:
        model: The base model, pruned by the plan.
        folder: Folder that `save_weights` wrote.
        plan: Pruning plan of the model.

    Returns:
        The same model, in eval mode.

    Raises:
        UserError: If the weights were trained on another plan, or if their names or shapes do not fit the model.
    """
    path = Path(folder) / TRAINED_WEIGHTS
    with safe_open(path, framework="pt") as tensors:
        if (tensors.metadata() or {}).get("plan") != kept_groups_hash(plan):
            raise UserError(f"{path}: the weights were trained on another plan; {_AGAIN}")
        own = dict(model.named_parameters())
        if different := sorted(set(own) ^ set(tensors.keys())):
            raise UserError(f"{path}: the weights do not fit the model ({different[0]} is only in one); {_AGAIN}")
        for name, parameter in own.items():
            tensor = tensors.get_tensor(name)
            if tensor.shape != parameter.shape:
                found, wanted = tuple(tensor.shape), tuple(parameter.shape)
                raise UserError(
                    f"{path}: the weights do not fit the model ({name} has shape {found} instead of {wanted}); {_AGAIN}"
                )
            with torch.no_grad():
                parameter.copy_(tensor)
    return model.eval()
