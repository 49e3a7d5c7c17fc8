# Inference: what a pruned model gains over the unpruned one on this machine. Only the target `inference` asks for it.


# Nothing expensive follows it, so it may read which experiment is the best from the tables.
rule measure_inference:
    """Speed and memory against the unpruned model."""
    input:
        manifest="<results>/models/{model}.json",
        choice=study.measured.choice,
    output:
        "<results>/inference/{model}/{measured}.json",
    log:
        "<results>/logs/measure_inference/{model}/{measured}.log",
    benchmark:
        "<results>/benchmarks/measure_inference/{model}/{measured}.tsv"
    wildcard_constraints:
        model=study.any_of(study.models),
        measured=study.measured.pattern,
    conda:
        "../envs/evaluate.yaml"
    threads: study.measured.threads
    resources:
        mem_mb=study.memory.of("inference"),
        runtime=per_attempt(60),
        gpu=study.gpus,
    params:
        version=versions.MEASURE_INFERENCE,
        settings=study.measured.settings,
        experiments=study.measured.experiments,
        dtype=study.config.evaluation.dtype,
        # Times depend on it, so here it is a param.
        device=study.config.evaluation.device,
    script:
        "../workflow/scripts/measure_inference.py"
