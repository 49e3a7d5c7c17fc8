# Statistics of the tables: once, so that reports only render them. Needs scipy; no models, no torch.


rule analyse:
    """Statistics of one model."""
    input:
        experiments="<results>/consolidated/experiments.parquet",
        evaluations="<results>/consolidated/evaluations.parquet",
        layers="<results>/consolidated/layers.parquet",
        samples=study.sweep.samples_of,
        manifest=study.manifest,
        gradients=study.sweep.gradient_tables_of,
        code=study.code(
            "analysis/*.py",
            "analysis/serving_messages.py",
            "serving/targets.py",
            "serving/verdict.py",
            "statistics/*.py",
            "naming.py",
            "calibration/gradient_statistics.py",
            "planning/groups.py",
            "planning/plan.py",
            "models/sizes.py",
            "recipe.py",
            "versions.py",
        ),
    output:
        analysis="<results>/reports/{model}/analysis.json",
        draws="<results>/reports/{model}/draws.parquet",
    log:
        "<results>/logs/analyse/{model}.log",
    benchmark:
        "<results>/benchmarks/analyse/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grow(2000),
        runtime=grow(20),
    params:
        samples=study.sweep.samples,
        passes=study.sweep.gradient_passes,
        headline_ratio=study.config.report.ratio,
    script:
        "../workflow/scripts/analyse.py"


rule analyse_study:
    """Comparison of all models."""
    input:
        experiments="<results>/consolidated/experiments.parquet",
        evaluations="<results>/consolidated/evaluations.parquet",
        analyses=expand(
            "<results>/reports/{model}/analysis.json", model=study.reported_models
        ),
        draws=expand(
            "<results>/reports/{model}/draws.parquet", model=study.reported_models
        ),
        code=study.code(
            "analysis/*.py", "analysis/serving_messages.py", "statistics/*.py", "naming.py"
        ),
    output:
        summary="<results>/reports/cross_model/analysis_summary.json",
    log:
        "<results>/logs/analyse_study.log",
    benchmark:
        "<results>/benchmarks/analyse_study.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grow(1000),
        runtime=grow(10),
    params:
        headline_ratio=study.config.report.ratio,
        unchecked=study.failures.unchecked_models,
        failed=study.failures.jobs,
    script:
        "../workflow/scripts/analyse_study.py"
