"""Types of weights that can be trained."""

from __future__ import annotations

from espalier.errors import UserError


def check_trainable(model: str, dtype: str) -> None:
    """Check that the weights of a model can be trained in their type.

    Args:
        model: Name of the model.
        dtype: Type of the weights while they are trained, such as `bfloat16`.

    Raises:
        UserError: If it is float16, in which small gradients vanish.
    """
    if dtype == "float16":
        raise UserError(
            f"recovery.dtype: got 'auto', but the weights of model {model!r} are float16, in which small gradients "
            "vanish; give bfloat16 or float32"
        )
