# Priors: what a model loses without a layer, an attention block or an MLP block.


rule measure_priors:
    """What the model loses without each layer and block."""
    input:
        manifest="<results>/models/{model}.json",
        text=study.calibration_text,
    output:
        "<results>/priors/{model}/{calibration}/seq{seq_len}.parquet",
    log:
        "<results>/logs/measure_priors/{model}/{calibration}/seq{seq_len}.log",
    benchmark:
        "<results>/benchmarks/measure_priors/{model}/{calibration}/seq{seq_len}.tsv"
    # Before evaluations: one that starts late finds more experiments to evaluate beside it.
    priority: 10
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=study.memory.of("priors"),
        runtime=grow(60),
        gpu=study.gpus,
        device=study.config.evaluation.device,
        token_budget=study.config.evaluation.token_budget,
    params:
        version=versions.MEASURE_PRIORS,
        sequences=study.sweep.sequences,
        counts=study.sweep.prior_counts,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/measure_priors.py"
