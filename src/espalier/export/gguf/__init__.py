"""Pruned models as GGUF files, which llama.cpp and what is built on it load.

Of the architectures of llama.cpp, `deci` (made for Nemotron, a Llama whose blocks differ) alone reads the head counts
and MLP widths of every block from arrays and allows blocks without attention. It computes what Llama, Mistral
and Qwen2 compute, so all three are written as `deci`.
"""
