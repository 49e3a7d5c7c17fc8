"""Export of pruned models as GGUF files, which llama.cpp and the programs built on it load.

llama.cpp has one architecture that reads the head counts and MLP widths of each block from arrays and allows blocks
without attention: `deci`, made for Nemotron, a Llama whose blocks differ. It computes the same as Llama, Mistral and
Qwen2, so models of all three types are written as `deci`.
"""
