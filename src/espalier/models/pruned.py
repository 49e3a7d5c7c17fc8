"""Register the classes of pruned models, whose layers differ in size, with transformers.

After this import, `AutoModelForCausalLM.from_pretrained` loads an exported folder. Without it, `trust_remote_code=True`
is needed, which runs the copies of the same files in the folder. This module imports only torch and transformers.
"""

from __future__ import annotations

import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from . import configuration_pruned, modeling_pruned
from .architecture import FAMILIES

EXPORTED_FILES = ("architecture.py", "configuration_pruned.py", "modeling_pruned.py", "pruned_blocks.py")
"""Files of this package that are copied to exported model folders."""

for _family in FAMILIES.values():
    if hasattr(transformers, _family.causal):  # older versions of transformers lack some families
        _config = getattr(configuration_pruned, f"Pruned{_family.name}Config")
        AutoConfig.register(_config.model_type, _config)
        AutoModel.register(_config, getattr(modeling_pruned, f"Pruned{_family.name}Model"))
        AutoModelForCausalLM.register(_config, getattr(modeling_pruned, f"Pruned{_family.name}ForCausalLM"))
