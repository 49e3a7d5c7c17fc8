# Calibration: importance of all groups and priors of all blocks, which serve every method, ratio and sample count.


# Only tables depend on it, so that another task or sequence length makes no gradient and no evaluation stale. Its high
# priority reports an overlap before GPU time is spent.
rule check_calibration:
    """Refuse calibration text that is in what is evaluated."""
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
    """Taylor importance and gradient statistics from one pass."""
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
        mem_mb=study.memory.of("gradients"),
        runtime=per_attempt(60),
        gpu=study.gpus,
        # These affect speed and memory only; as resources they cause no rerun when they change.
        device=study.config.evaluation.device,
    params:
        version=versions.COLLECT_GRADIENTS,
        sequences=study.calibration.sequences,
        counts=study.calibration.gradient_counts,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/collect_gradients.py"


# Criteria other than taylor have a pass of their own, so that naming one makes nothing else stale.
rule measure_importance:
    """Importance by another criterion that reads text."""
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
        mem_mb=study.memory.of("gradients"),
        runtime=per_attempt(60),
        gpu=study.gpus,
        # These affect speed and memory only; as resources they cause no rerun when they change.
        device=study.config.evaluation.device,
    params:
        version=versions.MEASURE_IMPORTANCE,
        sequences=study.calibration.sequences,
        counts=study.calibration.importance_counts,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/measure_importance.py"


# Criteria that look at the weights alone.
rule measure_weights:
    """Importance by a criterion that reads weights alone."""
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
        mem_mb=study.memory.of("weights"),
        runtime=per_attempt(60),
        gpu=study.gpus,
        device=study.config.evaluation.device,
    params:
        version=versions.MEASURE_WEIGHTS,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/measure_weights.py"


rule measure_priors:
    """What the model loses without each layer and block."""
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
        mem_mb=study.memory.of("priors"),
        runtime=per_attempt(60),
        gpu=study.gpus,
        device=study.config.evaluation.device,
        token_budget=study.config.evaluation.token_budget,
    params:
        version=versions.MEASURE_PRIORS,
        sequences=study.calibration.sequences,
        counts=study.calibration.prior_counts,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/measure_priors.py"
