# Tables: all results of the study, and those of each model. The rules are cheap, so their source files are inputs.


rule consolidate_study:
    """Make the tables of the whole study, and reject results of other settings."""
    input:
        study.tables.results,
        calibration=study.tables.calibration_checks,
        manifests=study.tables.manifests,
        imported=study.legacy.tables,
        code=study.source_files(
            "results/consolidate.py",
            "results/read_results.py",
            "naming.py",
            "tables.py",
            "evaluation/protocol.py",
            "calibration/gradient_statistics.py",
            "results/legacy/*.py",
            "planning/groups.py",
            "planning/plan.py",
            "planning/stock.py",
            "models/architecture.py",
            "models/kept_experts.py",
            "models/sizes.py",
            "recipe.py",
            "versions.py",
        ),
    output:
        experiments="<results>/consolidated/experiments.parquet",
        evaluations="<results>/consolidated/evaluations.parquet",
        layers="<results>/consolidated/layers.parquet",
    log:
        "<results>/logs/consolidate_study.log",
    benchmark:
        "<results>/benchmarks/consolidate_study.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        entries=study.tables.entries,
        missing=study.failures.missing_experiments,
        imports=study.legacy.entries,
        evaluation=study.evaluation.settings,
        acc_mean_rule=study.config.report.acc_mean_rule,
    script:
        "../workflow/scripts/consolidate_study.py"


rule consolidate:
    """Make the tables of one model, and find its best experiment."""
    input:
        experiments="<results>/consolidated/experiments.parquet",
        code=study.source_files(
            "analysis/*.py",
            "evaluation/protocol.py",
            "messages/catalogue.py",
            "messages/*.yaml",
            "naming.py",
            "statistics/*.py",
            "tables.py",
        ),
    output:
        table="<results>/consolidated/{model}/all_methods_results.parquet",
        csv="<results>/consolidated/{model}/all_methods_results.csv",
        best="<results>/consolidated/{model}/global_best_config.json",
        comparison="<results>/consolidated/{model}/method_comparison.json",
    log:
        "<results>/logs/consolidate/{model}.log",
    benchmark:
        "<results>/benchmarks/consolidate/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        ratio=study.config.report.ratio,
    script:
        "../workflow/scripts/consolidate.py"
