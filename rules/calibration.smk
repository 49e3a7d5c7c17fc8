# Calibration: importance of all groups and priors of all blocks. Methods, ratios and sample counts share these results.
#
# One job runs all passes of a model that wait, and keeps each in a store. The jobs of the other passes hand over its
# files and request no GPU. So all these rules have the same resources.


# Only tables depend on this check, so that a new task or sequence length does not make gradients or evaluations stale.
# Its high priority reports an overlap before GPU time is spent.
rule check_calibration:
    """Check that calibration text does not overlap with evaluation data."""
    input:
        manifest="<results>/models/{model}.json",
        requests="<results>/requests/{model}.parquet",
        text=study.calibration.text,
    output:
        "<results>/calibration/{model}/{calibration}.json",
    log:
        "<results>/logs/check_calibration/{model}/{calibration}.log",
    benchmark:
        "<results>/benchmarks/check_calibration/{model}/{calibration}.tsv"
    priority: 100
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        version=versions.CHECK_CALIBRATION,
        settings=study.calibration.settings,
    script:
        "../workflow/scripts/check_calibration.py"


rule collect_gradients:
    """Compute Taylor importance and gradient statistics in one pass."""
    input:
        manifest="<results>/models/{model}.json",
        text=study.calibration.text,
    output:
        gradients="<results>/gradients/{model}/{calibration}/seq{seq_len}.parquet",
        importance="<results>/importance/{model}/taylor/{calibration}/seq{seq_len}.parquet",
    log:
        "<results>/logs/collect_gradients/{model}/{calibration}/seq{seq_len}.log",
    benchmark:
        "<results>/benchmarks/collect_gradients/{model}/{calibration}/seq{seq_len}.tsv"
    # Run before evaluations, so that each evaluation job finds more plans to evaluate.
    priority: 10
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        **study.calibration.resources,
        mem_mb=study.handover.mem_mb("collect_gradients"),
        gpu=study.handover.gpu("collect_gradients"),
        model_jobs=study.handover.model_jobs("collect_gradients"),
        model_gpus=study.gpus,
        runtime=per_attempt(120),
    params:
        version=versions.COLLECT_GRADIENTS,
        sequences=study.calibration.sequences,
        counts=study.calibration.gradient_counts,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/collect_gradients.py"


# Each criterion other than taylor has its own pass, so that adding one to the config makes nothing else stale.
rule measure_importance:
    """Compute importance by another criterion that reads calibration text."""
    input:
        manifest="<results>/models/{model}.json",
        text=study.calibration.text,
    output:
        "<results>/importance/{model}/{text_criterion}/{calibration}/seq{seq_len}.parquet",
    log:
        "<results>/logs/measure_importance/{model}/{text_criterion}/{calibration}/seq{seq_len}.log",
    benchmark:
        "<results>/benchmarks/measure_importance/{model}/{text_criterion}/{calibration}/seq{seq_len}.tsv"
    # Run before evaluations, so that each evaluation job finds more plans to evaluate.
    priority: 10
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        **study.calibration.resources,
        mem_mb=study.handover.mem_mb("measure_importance"),
        gpu=study.handover.gpu("measure_importance"),
        model_jobs=study.handover.model_jobs("measure_importance"),
        model_gpus=study.gpus,
        runtime=per_attempt(120),
    params:
        version=versions.MEASURE_IMPORTANCE,
        sequences=study.calibration.sequences,
        counts=study.calibration.importance_counts,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/measure_importance.py"


rule measure_weights:
    """Compute importance by a criterion that reads only the weights."""
    input:
        manifest="<results>/models/{model}.json",
    output:
        "<results>/importance/{model}/{weight_criterion}.parquet",
    log:
        "<results>/logs/measure_weights/{model}/{weight_criterion}.log",
    benchmark:
        "<results>/benchmarks/measure_weights/{model}/{weight_criterion}.tsv"
    priority: 10
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        **study.calibration.resources,
        mem_mb=study.handover.mem_mb("measure_weights"),
        gpu=study.handover.gpu("measure_weights"),
        model_jobs=study.handover.model_jobs("measure_weights"),
        model_gpus=study.gpus,
        runtime=per_attempt(120),
    params:
        version=versions.MEASURE_WEIGHTS,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/measure_weights.py"


rule measure_priors:
    """Measure the priors: what the model loses without each layer and block."""
    input:
        manifest="<results>/models/{model}.json",
        text=study.calibration.text,
    output:
        "<results>/priors/{model}/{calibration}/seq{seq_len}.parquet",
    log:
        "<results>/logs/measure_priors/{model}/{calibration}/seq{seq_len}.log",
    benchmark:
        "<results>/benchmarks/measure_priors/{model}/{calibration}/seq{seq_len}.tsv"
    # Run before evaluations, so that each evaluation job finds more plans to evaluate.
    priority: 10
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        **study.calibration.resources,
        mem_mb=study.handover.mem_mb("measure_priors"),
        gpu=study.handover.gpu("measure_priors"),
        model_jobs=study.handover.model_jobs("measure_priors"),
        model_gpus=study.gpus,
        runtime=per_attempt(120),
    params:
        version=versions.MEASURE_PRIORS,
        sequences=study.calibration.sequences,
        counts=study.calibration.prior_counts,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/measure_priors.py"
