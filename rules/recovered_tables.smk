# The table of recovered experiments and its statistics. Cheap, so their sources are inputs; no models, no torch.


rule consolidate_recovery:
    """Table of all recovered experiments, before and after."""
    input:
        study.recovery.chosen_files(checkpoints),
        checks=study.recovery.checks,
        experiments="<results>/consolidated/experiments.parquet",
        code=study.code(
            "evaluation/metrics.py",
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
        mem_mb=grow(1000),
        runtime=grow(10),
    params:
        entries=study.recovery.entries(checkpoints),
        missing=study.recovery.missing(checkpoints),
        settings=study.recovery.settings,
        evaluation=study.evaluation_settings,
    script:
        "../workflow/scripts/consolidate_recovery.py"


rule analyse_recovery:
    """Statistics of what recovery changes."""
    input:
        experiments="<results>/consolidated/experiments.parquet",
        evaluations="<results>/consolidated/evaluations.parquet",
        recovery="<results>/consolidated/recovery.parquet",
        draws="<results>/reports/{model}/draws.parquet",
        samples=study.recovery.sample_files(checkpoints),
        code=study.code(
            "analysis/*.py",
            "analysis/serving_messages.py",
            "naming.py",
            "recipe.py",
            "statistics/*.py",
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
        mem_mb=grow(2000),
        runtime=grow(20),
    params:
        samples=study.recovery.samples(checkpoints),
    script:
        "../workflow/scripts/analyse_recovery.py"
