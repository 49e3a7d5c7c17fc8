"""The structure of a real model."""

import pytest

from espalier.models.sizes import LayerStructure, ModelStructure


@pytest.fixture(scope="session")
def llama_3_8b() -> ModelStructure:
    """Hidden size 4096, 32 query heads of 128 on 8 KV heads, MLP 14336, vocabulary 128256, untied head."""
    hidden, head_dim, group = 4096, 128, 4
    layer = LayerStructure(
        n_kv_groups=8,
        kv_group_params=hidden * head_dim * (2 * group + 2),  # q_proj and o_proj: 4 heads each; k_proj, v_proj: one
        n_mlp_channels=14336,
        mlp_channel_params=3 * hidden,
        fixed_params=2 * hidden,
    )
    return ModelStructure((layer,) * 32, other_params=2 * 128256 * hidden + hidden)
