# Export: pruned models as folders that transformers loads, and as GGUF files for llama.cpp. A folder is compared with
# the evaluated model before it is accepted.


# A small file. It changes only if the best experiment, its plan or its results change, so that other changes of the
# tables do not repeat an export.
rule describe_export:
    """Describe an exported experiment: settings, plan and results."""
    input:
        best=study.exports.best,
        plans=study.exports.plans,
        metrics=study.exports.metrics,
        baseline="<results>/baseline/{model}/metrics.json",
        manifest="<results>/models/{model}.json",
        code=study.source_files(
            "evaluation/protocol.py",
            "export/describe.py",
            "naming.py",
            "recipe.py",
            "versions.py",
        ),
    output:
        "<results>/exports/{model}/{exported}.json",
    log:
        "<results>/logs/describe_export/{model}/{exported}.log",
    benchmark:
        "<results>/benchmarks/describe_export/{model}/{exported}.tsv"
    wildcard_constraints:
        model=study.constraint_of(study.models),
        exported=study.exports.name_pattern,
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        settings=study.exports.settings,
        evaluation=study.evaluation.settings,
    script:
        "../workflow/scripts/describe_export.py"


rule export_checkpoint:
    """Write a pruned model as a folder for transformers."""
    input:
        manifest="<results>/models/{model}.json",
        description=study.exports.description,
        recovered=study.exports.recovered,
    output:
        directory("<results>/checkpoints/{model}/{checkpoint}"),
    log:
        "<results>/logs/export_checkpoint/{model}/{checkpoint}.log",
    benchmark:
        "<results>/benchmarks/export_checkpoint/{model}/{checkpoint}.tsv"
    wildcard_constraints:
        # Imported models have no weights, so they are left out.
        model=study.constraint_of(study.models),
        checkpoint=study.exports.checkpoint_pattern,
    conda:
        "../envs/export.yaml"
    threads: 1
    resources:
        mem_mb=study.memory.mem_mb("export"),
        runtime=per_attempt(60),
    params:
        version=versions.EXPORT_CHECKPOINT,
        dtype=study.config.export.dtype,
        stubs=study.exports.has_stubs,
    script:
        "../workflow/scripts/export_checkpoint.py"


rule export_gguf:
    """Write a pruned model as a GGUF file for llama.cpp."""
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
        mem_mb=per_attempt(8000),
        runtime=per_attempt(60),
    params:
        version=versions.EXPORT_GGUF,
    script:
        "../workflow/scripts/export_gguf.py"
