# Recovery (optional): chosen experiments are fine-tuned, with LoRA or all weights, and evaluated again. See
# docs/recovery.md.


# Only tables depend on this check, so that a new task does not make adapters stale.
rule check_recovery:
    """Check that recovery text does not overlap with evaluation or calibration data."""
    input:
        manifest="<results>/models/{model}.json",
        requests="<results>/requests/{model}.parquet",
        text=study.recovery.text,
    output:
        "<results>/recovered/{model}/checked.json",
    log:
        "<results>/logs/check_recovery/{model}.log",
    benchmark:
        "<results>/benchmarks/check_recovery/{model}.tsv"
    priority: 100
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
        # Only for a check: as a resource it makes no finished check stale.
        dtype=study.recovery.dtype,
    params:
        version=versions.CHECK_RECOVERY,
        settings=study.recovery.text_settings,
        calibrations=study.recovery.calibrations,
    script:
        "../workflow/scripts/check_recovery.py"


# The best experiment is known only after all evaluations. No recovery job reads this file, so that writing it again, or
# another best experiment, does not make finished recoveries stale.
checkpoint choose_recovered:
    """Determine the best experiment of a model, to recover it."""
    input:
        best="<results>/consolidated/{model}/global_best_config.json",
    output:
        "<results>/recovered/{model}/chosen.json",
    log:
        "<results>/logs/choose_recovered/{model}.log",
    benchmark:
        "<results>/benchmarks/choose_recovered/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    script:
        "../workflow/scripts/choose_recovered.py"


rule recover:
    """Fine-tune a pruned model with LoRA."""
    input:
        manifest="<results>/models/{model}.json",
        plan="<results>/experiments/{model}/{experiment}/plan.json",
        text=study.recovery.text,
    output:
        weights="<results>/recovered/{model}/{experiment}/adapter/adapter_model.safetensors",
        config="<results>/recovered/{model}/{experiment}/adapter/adapter_config.json",
        training="<results>/recovered/{model}/{experiment}/training.json",
    log:
        "<results>/logs/recover/{model}/{experiment}.log",
    benchmark:
        "<results>/benchmarks/recover/{model}/{experiment}.tsv"
    conda:
        "../envs/recover.yaml"
    threads: 1
    resources:
        **study.recovery.resources,
        mem_mb=study.memory.mem_mb(study.recovery.memory),
        runtime=per_attempt(240),
        gpu=study.gpus,
        model_gpus=study.gpus,
        # These affect speed and memory only; as resources they cause no rerun when they change.
        device=study.config.evaluation.device,
    params:
        version=versions.RECOVER,
        settings=study.recovery.settings,
    script:
        "../workflow/scripts/recover.py"


rule recover_full:
    """Fine-tune all weights of a pruned model."""
    input:
        manifest="<results>/models/{model}.json",
        plan="<results>/experiments/{model}/{experiment}/plan.json",
        text=study.recovery.text,
    output:
        weights="<results>/recovered/{model}/{experiment}/trained/trained_weights.safetensors",
        training="<results>/recovered/{model}/{experiment}/trained/training.json",
    log:
        "<results>/logs/recover_full/{model}/{experiment}.log",
    benchmark:
        "<results>/benchmarks/recover_full/{model}/{experiment}.tsv"
    conda:
        "../envs/recover.yaml"
    threads: 1
    resources:
        **study.recovery.resources,
        mem_mb=study.memory.mem_mb(study.recovery.memory),
        runtime=per_attempt(240),
        gpu=study.gpus,
        model_gpus=study.gpus,
        # These affect speed and memory only; as resources they cause no rerun when they change.
        device=study.config.evaluation.device,
    params:
        version=versions.RECOVER_FULL,
        settings=study.recovery.settings,
    script:
        "../workflow/scripts/recover_full.py"


rule evaluate_recovered:
    """Evaluate a pruned model with its adapter merged, or with its trained weights."""
    input:
        manifest="<results>/models/{model}.json",
        plan="<results>/experiments/{model}/{experiment}/plan.json",
        recovered=study.recovered.weights,
        requests="<results>/requests/{model}.parquet",
        tasks=study.evaluation.data,
    output:
        metrics="<results>/recovered/{model}/{experiment}/metrics.json",
        samples="<results>/recovered/{model}/{experiment}/samples.parquet",
    log:
        "<results>/logs/evaluate_recovered/{model}/{experiment}.log",
    benchmark:
        "<results>/benchmarks/evaluate_recovered/{model}/{experiment}.tsv"
    conda:
        "../envs/recover.yaml"
    threads: 1
    resources:
        mem_mb=study.memory.mem_mb("evaluation"),
        runtime=per_attempt(60),
        gpu=study.gpus,
        model_gpus=study.gpus,
        # These affect speed and memory only; as resources they cause no rerun when they change.
        device=study.config.evaluation.device,
        token_budget=study.config.evaluation.token_budget,
        compile_layers=int(study.config.evaluation.compile),
    params:
        version=versions.EVALUATE,
        protocol=study.evaluation.protocol,
        data_folder=study.evaluation.data_folder,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/evaluate_recovered.py"


rule consolidate_recovery:
    """Make the table of all recovered experiments, before and after recovery."""
    input:
        study.recovered.result_files(checkpoints),
        checks=study.recovered.overlap_checks,
        experiments="<results>/consolidated/experiments.parquet",
        code=study.source_files(
            "evaluation/protocol.py",
            "recipe.py",
            "results/recovered.py",
            "tables.py",
            "versions.py",
        ),
    output:
        "<results>/consolidated/recovery.parquet",
    log:
        "<results>/logs/consolidate_recovery.log",
    benchmark:
        "<results>/benchmarks/consolidate_recovery.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        entries=study.recovered.entries(checkpoints),
        missing=study.recovered.missing(checkpoints),
        settings=study.recovery.settings,
        evaluation=study.evaluation.settings,
    script:
        "../workflow/scripts/consolidate_recovery.py"


rule analyse_recovery:
    """Compute the statistics of the recovered experiments of one model."""
    input:
        experiments="<results>/consolidated/experiments.parquet",
        evaluations="<results>/consolidated/evaluations.parquet",
        recovery="<results>/consolidated/recovery.parquet",
        draws="<results>/reports/{model}/draws.parquet",
        samples=study.recovered.sample_files(checkpoints),
        code=study.source_files(
            "analysis/*.py",
            "evaluation/protocol.py",
            "messages/catalogue.py",
            "messages/*.yaml",
            "naming.py",
            "recipe.py",
            "statistics/*.py",
            "tables.py",
            "versions.py",
        ),
    output:
        "<results>/reports/{model}/recovery.json",
    log:
        "<results>/logs/analyse_recovery/{model}.log",
    benchmark:
        "<results>/benchmarks/analyse_recovery/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(20),
    params:
        samples=study.recovered.samples(checkpoints),
    script:
        "../workflow/scripts/analyse_recovery.py"
