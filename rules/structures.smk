# What each experiment removed, layer by layer, from its plan and the sizes of the model; no weights.


# One job for each model: starting Python for each experiment would take longer than all its work.
rule compare_structures:
    """What each experiment of a model removed, layer by layer."""
    input:
        layers="<results>/consolidated/layers.parquet",
        manifest=study.manifest,
        imported=study.imports.tables_of,
        code=study.code(
            "serving/verdicts_json.py",
            "analysis/said.py",
            "analysis/serving_messages.py",
            "serving/targets.py",
            "serving/verdict.py",
            "statistics/messages.py",
            "evaluation/metrics.py",
            "results/legacy/*.py",
            "naming.py",
            "planning/groups.py",
            "planning/plan.py",
            "models/sizes.py",
            "reports/sections/structure.py",
            "reports/sections/serving.py",
            "reports/layout.py",
            "reports/sections/base.py",
            "reports/messages/*.py",
        ),
    output:
        report(
            directory("<results>/reports/{model}/structures"),
            patterns=["{experiment}.txt"],
            caption="../workflow/report/structure.rst",
            category="Structures",
            subcategory="{model}",
            labels={"model": "{model}", "experiment": "{experiment}"},
        ),
    log:
        "<results>/logs/compare_structures/{model}.log",
    benchmark:
        "<results>/benchmarks/compare_structures/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grow(1000),
        runtime=grow(10),
    params:
        experiments=study.sweep.names_of,
        language=study.config.report.language,
    script:
        "../workflow/scripts/compare_structures.py"
