# Reports: first the statistics of the tables, which need scipy, then the pages, text, figures and tables for papers,
# which only render the statistics. These rules need neither models nor torch.

MODEL_FIGURES = [
    "accuracy_by_method",
    "accuracy_by_setting",
    "accuracy_perplexity",
    "intervals",
    "task_profile",
    "kept_layers",
    "gradient_profile",
]
CROSS_FIGURES = ["best_vs_baseline", "base_vs_instruct"]


rule analyse:
    """Compute the statistics of one model."""
    input:
        experiments="<results>/consolidated/experiments.parquet",
        evaluations="<results>/consolidated/evaluations.parquet",
        layers="<results>/consolidated/layers.parquet",
        samples=study.tables.sample_files,
        manifest=study.manifest,
        gradients=study.tables.gradient_files,
        code=study.source_files(
            "analysis/*.py",
            "serving/verdict_json.py",
            "serving/verdict.py",
            "statistics/*.py",
            "naming.py",
            "calibration/gradient_statistics.py",
            "models/architecture.py",
            "models/sizes.py",
            "planning/stock.py",
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
        mem_mb=per_attempt(2000),
        runtime=per_attempt(20),
    params:
        samples=study.tables.samples,
        passes=study.tables.gradient_passes,
        headline_ratio=study.config.report.ratio,
    script:
        "../workflow/scripts/analyse.py"


rule analyse_study:
    """Compute the comparison of all models."""
    input:
        experiments="<results>/consolidated/experiments.parquet",
        evaluations="<results>/consolidated/evaluations.parquet",
        analyses=expand(
            "<results>/reports/{model}/analysis.json", model=study.reported_models
        ),
        draws=expand(
            "<results>/reports/{model}/draws.parquet", model=study.reported_models
        ),
        code=study.source_files("analysis/*.py", "statistics/*.py", "naming.py"),
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
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        headline_ratio=study.config.report.ratio,
        unchecked=study.failures.unchecked_models,
        failed=study.failures.failed_jobs,
    script:
        "../workflow/scripts/analyse_study.py"


# One job for each model: starting Python for each experiment would take longer than the work itself.
rule compare_structures:
    """Write what each experiment of a model removed, layer by layer."""
    input:
        layers="<results>/consolidated/layers.parquet",
        manifest=study.manifest,
        imported=study.legacy.tables_of,
        code=study.source_files(
            "serving/verdict_json.py",
            "analysis/message_json.py",
            "analysis/serving_messages.py",
            "serving/verdict.py",
            "statistics/messages.py",
            "evaluation/protocol.py",
            "results/legacy/*.py",
            "naming.py",
            "models/architecture.py",
            "models/sizes.py",
            "planning/stock.py",
            "reports/structure.py",
            "reports/sections/serving.py",
            "reports/layout.py",
            "reports/formatting.py",
            "reports/sections/types.py",
            "analysis/selection.py",
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
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        experiments=study.sweep.names_of_model,
        language=study.config.report.language,
    script:
        "../workflow/scripts/compare_structures.py"


rule report_model:
    """Write the page, text and figures of one model."""
    input:
        analysis="<results>/reports/{model}/analysis.json",
        experiments="<results>/consolidated/experiments.parquet",
        layers="<results>/consolidated/layers.parquet",
        recovery=study.recovered.analysis,
        code=study.source_files(
            "naming.py",
            "analysis/selection.py",
            "analysis/message_json.py",
            "analysis/serving_messages.py",
            "statistics/messages.py",
            "reports/**/*.py",
            "reports/templates/*",
            "reports/vendor/*.js",
        ),
    output:
        text=report(
            "<results>/reports/{model}/report.txt",
            caption="../workflow/report/model_text.rst",
            category="Models",
            subcategory="{model}",
            labels={"model": "{model}", "what": "report as text"},
        ),
        html=report(
            "<results>/reports/{model}/report.html",
            caption="../workflow/report/model_page.rst",
            category="Models",
            subcategory="{model}",
            labels={"model": "{model}", "what": "report"},
        ),
        svg=report(
            expand(
                "<results>/reports/{{model}}/figures/{figure}.svg",
                figure=MODEL_FIGURES,
            ),
            caption="../workflow/report/model_figure.rst",
            category="Models",
            subcategory="{model}",
        ),
        pdf=expand(
            "<results>/reports/{{model}}/figures/{figure}.pdf", figure=MODEL_FIGURES
        ),
    log:
        "<results>/logs/report_model/{model}.log",
    benchmark:
        "<results>/benchmarks/report_model/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        language=study.config.report.language,
        measured=study.inference.current,
    script:
        "../workflow/scripts/report_model.py"


rule report_cross_model:
    """Write the page, text, figures and tables that compare all models."""
    input:
        summary="<results>/reports/cross_model/analysis_summary.json",
        code=study.source_files(
            "naming.py",
            "analysis/selection.py",
            "analysis/best_configs.py",
            "analysis/message_json.py",
            "analysis/serving_messages.py",
            "statistics/messages.py",
            "reports/**/*.py",
            "reports/templates/*",
            "reports/vendor/*.js",
        ),
    output:
        table=report(
            "<results>/reports/cross_model/all_models_best_configs.csv",
            caption="../workflow/report/cross_table.rst",
            category="All models",
            labels={"what": "best configurations"},
        ),
        comparison="<results>/reports/cross_model/cross_model_comparison.json",
        text=report(
            "<results>/reports/cross_model/report.txt",
            caption="../workflow/report/cross_text.rst",
            category="All models",
            labels={"what": "report as text"},
        ),
        html=report(
            "<results>/reports/cross_model/report.html",
            caption="../workflow/report/cross_page.rst",
            category="All models",
            labels={"what": "report"},
        ),
        tex=expand(
            "<results>/reports/cross_model/tables/{table}.tex",
            table=["best_configs", "base_vs_instruct", "costs"],
        ),
        svg=report(
            expand(
                "<results>/reports/cross_model/figures/{figure}.svg",
                figure=CROSS_FIGURES,
            ),
            caption="../workflow/report/cross_figure.rst",
            category="All models",
        ),
        pdf=expand(
            "<results>/reports/cross_model/figures/{figure}.pdf",
            figure=CROSS_FIGURES,
        ),
    log:
        "<results>/logs/report_cross_model.log",
    benchmark:
        "<results>/benchmarks/report_cross_model.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        language=study.config.report.language,
    script:
        "../workflow/scripts/report_cross_model.py"
