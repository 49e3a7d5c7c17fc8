# Inference: speed and memory of a pruned model against the unpruned one, on this machine. Only the target `inference`
# requests it.


# No expensive job depends on this rule, so it may read the best experiment from the tables.
rule measure_inference:
    """Measure the speed and memory of a pruned model against the unpruned one."""
    input:
        manifest="<results>/models/{model}.json",
        choice=study.inference.choice,
    output:
        "<results>/inference/{model}/{measured}.json",
    log:
        "<results>/logs/measure_inference/{model}/{measured}.log",
    benchmark:
        "<results>/benchmarks/measure_inference/{model}/{measured}.tsv"
    wildcard_constraints:
        model=study.constraint_of(study.models),
        measured=study.inference.pattern,
    conda:
        "../envs/evaluate.yaml"
    threads: study.inference.threads
    resources:
        mem_mb=study.memory.mem_mb("inference"),
        runtime=per_attempt(60),
        gpu=study.gpus,
        model_gpus=study.gpus,
    params:
        version=versions.MEASURE_INFERENCE,
        settings=study.inference.settings,
        experiments=study.inference.experiments,
        dtype=study.config.evaluation.dtype,
        # The measured times depend on the device, so here it is a param.
        device=study.config.evaluation.device,
    script:
        "../workflow/scripts/measure_inference.py"
