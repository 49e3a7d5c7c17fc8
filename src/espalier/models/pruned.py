"""Models whose layers differ in size, as transformers classes.

Importing this module is all that `AutoModelForCausalLM.from_pretrained` needs for an exported folder; without it,
`trust_remote_code=True` runs the same files, which travel in the folder. Imports only torch and transformers.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from . import configuration_pruned, modeling_pruned

CODE = ("architecture.py", "configuration_pruned.py", "modeling_pruned.py", "pruned_blocks.py")
"""Files of this folder that travel with an exported model."""

for _name in ("Llama", "Mistral", "Qwen2", "Qwen3"):
    _config = getattr(configuration_pruned, f"Pruned{_name}Config")
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, getattr(modeling_pruned, f"Pruned{_name}Model"))
    AutoModelForCausalLM.register(_config, getattr(modeling_pruned, f"Pruned{_name}ForCausalLM"))
