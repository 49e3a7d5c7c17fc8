# Pruned models as GGUF files, for llama.cpp.


rule export_gguf:
    """Write a pruned model for llama.cpp."""
    input:
        "<results>/checkpoints/{model}/{name}",
    output:
        model="<results>/checkpoints/{model}/{name}.{type}.gguf",
        facts="<results>/checkpoints/{model}/{name}.{type}.gguf.json",
    log:
        "<results>/logs/export_gguf/{model}/{name}.{type}.log",
    benchmark:
        "<results>/benchmarks/export_gguf/{model}/{name}.{type}.tsv"
    wildcard_constraints:
        name=study.exports.checkpoint_pattern,
        type="F32|F16|Q8_0",
    conda:
        "../envs/gguf.yaml"
    threads: 1
    resources:
        mem_mb=grow(8000),
        runtime=grow(60),
    params:
        version=versions.EXPORT_GGUF,
    script:
        "../workflow/scripts/export_gguf.py"
