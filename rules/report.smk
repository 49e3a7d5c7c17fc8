# Pages, text reports, figures and tables for papers, from the analyses and tables alone.
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


include: "analyse.smk"
include: "structures.smk"


rule report_model:
    """Page, text and figures of one model."""
    input:
        analysis="<results>/reports/{model}/analysis.json",
        experiments="<results>/consolidated/experiments.parquet",
        layers="<results>/consolidated/layers.parquet",
        recovery=study.recovery.analysis,
        code=study.code(
            "naming.py",
            "analysis/best.py",
            "analysis/said.py",
            "analysis/serving_messages.py",
            "statistics/messages.py",
            "reports/*.py",
            "reports/messages/*.py",
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
        mem_mb=grow(1000),
        runtime=grow(10),
    params:
        language=study.config.report.language,
        measured=study.measured.found,
    script:
        "../workflow/scripts/report_model.py"


rule report_cross_model:
    """Page, text, figures and tables that compare all models."""
    input:
        summary="<results>/reports/cross_model/analysis_summary.json",
        code=study.code(
            "naming.py",
            "analysis/best.py",
            "analysis/best_configs.py",
            "analysis/said.py",
            "analysis/serving_messages.py",
            "statistics/messages.py",
            "reports/*.py",
            "reports/messages/*.py",
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
        mem_mb=grow(1000),
        runtime=grow(10),
    params:
        language=study.config.report.language,
    script:
        "../workflow/scripts/report_cross_model.py"
