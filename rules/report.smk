# Reports: first the statistics of the tables, which need scipy, then figures, pages, text and tables for papers, which
# only render the statistics. These rules need neither models nor torch.


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
            "evaluation/protocol.py",
            "messages/catalogue.py",
            "messages/*.yaml",
            "serving/verdict_json.py",
            "serving/verdict.py",
            "statistics/*.py",
            "naming.py",
            "calibration/gradient_statistics.py",
            "models/architecture.py",
            "models/sizes.py",
            "planning/stock.py",
            "recipe.py",
            "tables.py",
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
        n_models=len(study.model_names),
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
        code=study.source_files(
            "analysis/*.py",
            "evaluation/protocol.py",
            "messages/catalogue.py",
            "messages/*.yaml",
            "statistics/*.py",
            "naming.py",
            "tables.py",
        ),
    output:
        summary="<results>/reports/cross_model/analysis_summary.json",
        experiments="<results>/reports/experiments.parquet",
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
        experiments="<results>/consolidated/experiments.parquet",
        manifest=study.manifest,
        imported=study.legacy.tables_of,
        code=study.source_files(
            "serving/verdict_json.py",
            "analysis/message_json.py",
            "messages/catalogue.py",
            "messages/*.yaml",
            "serving/verdict.py",
            "evaluation/protocol.py",
            "results/legacy/*.py",
            "naming.py",
            "models/architecture.py",
            "models/sizes.py",
            "planning/stock.py",
            "jobs/provenance.py",
            "reports/structure*.py",
            "reports/page.py",
            "reports/provenance.py",
            "reports/site.py",
            "reports/messages.py",
            "reports/layout.py",
            "reports/formatting.py",
            "reports/sections/serving.py",
            "reports/sections/types.py",
            "reports/templates/*",
            "analysis/selection.py",
        ),
    output:
        report(
            directory("<results>/reports/{model}/structures"),
            patterns=["{experiment}.html"],
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
        experiments=study.sweep.planned_names_of_model,
        models=study.reported_models,
        language=study.config.report.language,
    script:
        "../workflow/scripts/compare_structures.py"


# All figures of a model are one job: a figure takes 0.3 s, and starting Python with matplotlib takes 2 s. They are a
# folder, because imported results may have any pruning ratio. The page depends on the list of figures, a file, because
# Snakemake compares files by content, but folders by time.
rule draw_model:
    """Draw the figures of one model, with the table behind each."""
    input:
        analysis="<results>/reports/{model}/analysis.json",
        experiments="<results>/consolidated/experiments.parquet",
        layers="<results>/consolidated/layers.parquet",
        priors=study.tables.prior_files,
        style=study.figure_styles,
        code=study.source_files(
            "naming.py",
            "analysis/selection.py",
            "analysis/message_json.py",
            "messages/*.py",
            "messages/*.yaml",
            "reports/figures/*.py",
            "reports/figures/*.mplstyle",
            "reports/chart_rows.py",
            "reports/formatting.py",
            "reports/messages.py",
            "reports/sections/answers.py",
            "reports/sections/introduction.py",
            "reports/sections/types.py",
        ),
    output:
        figures=report(
            directory("<results>/reports/{model}/figures"),
            patterns=["{figure}.svg"],
            caption="../workflow/report/model_figure.rst",
            category="Models",
            subcategory="{model}",
            labels={"model": "{model}", "what": "figure {figure}"},
        ),
        drawn="<results>/reports/{model}/figures.json",
    log:
        "<results>/logs/draw_model/{model}.log",
    benchmark:
        "<results>/benchmarks/draw_model/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        priors=study.tables.prior_passes,
    script:
        "../workflow/scripts/draw_model.py"


rule draw_study:
    """Draw the figures that compare all models, with the table behind each."""
    input:
        summary="<results>/reports/cross_model/analysis_summary.json",
        analyses=expand(
            "<results>/reports/{model}/analysis.json", model=study.reported_models
        ),
        style=study.figure_styles,
        code=study.source_files(
            "naming.py",
            "analysis/selection.py",
            "analysis/message_json.py",
            "messages/*.py",
            "messages/*.yaml",
            "reports/figures/*.py",
            "reports/figures/*.mplstyle",
            "reports/chart_rows.py",
            "reports/formatting.py",
            "reports/messages.py",
            "reports/sections/answers.py",
            "reports/sections/introduction.py",
            "reports/sections/types.py",
        ),
    output:
        figures=report(
            directory("<results>/reports/cross_model/figures"),
            patterns=["{figure}.svg"],
            caption="../workflow/report/cross_figure.rst",
            category="All models",
            labels={"what": "figure {figure}"},
        ),
        drawn="<results>/reports/cross_model/figures.json",
    log:
        "<results>/logs/draw_study.log",
    benchmark:
        "<results>/benchmarks/draw_study.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    script:
        "../workflow/scripts/draw_study.py"


rule report_model:
    """Write the page and the text of one model."""
    input:
        analysis="<results>/reports/{model}/analysis.json",
        experiments="<results>/consolidated/experiments.parquet",
        layers="<results>/consolidated/layers.parquet",
        priors=study.tables.prior_files,
        drawn="<results>/reports/{model}/figures.json",
        recovery=study.recovered.analysis,
        code=study.source_files(
            "naming.py",
            "analysis/selection.py",
            "analysis/message_json.py",
            "messages/*.py",
            "messages/*.yaml",
            "jobs/provenance.py",
            "reports/**/*.py",
            "reports/templates/*",
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
        priors=study.tables.prior_passes,
        models=study.reported_models,
        with_structures=study.models_with_structures,
    script:
        "../workflow/scripts/report_model.py"


rule report_cross_model:
    """Write the page, text and tables that compare all models."""
    input:
        summary="<results>/reports/cross_model/analysis_summary.json",
        analyses=expand(
            "<results>/reports/{model}/analysis.json", model=study.reported_models
        ),
        experiments="<results>/consolidated/experiments.parquet",
        drawn="<results>/reports/cross_model/figures.json",
        literature=study.literature,
        code=study.source_files(
            "naming.py",
            "analysis/selection.py",
            "analysis/best_configs.py",
            "analysis/literature.py",
            "analysis/message_json.py",
            "messages/*.py",
            "messages/*.yaml",
            "config/base.py",
            "config/duplicate_keys.py",
            "config/literature.py",
            "config/problems.py",
            "jobs/provenance.py",
            "reports/**/*.py",
            "reports/templates/*",
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
        markdown="<results>/reports/cross_model/tables/best_configs.md",
        tex=expand(
            "<results>/reports/cross_model/tables/{table}.tex",
            table=["best_configs", "base_vs_instruct", "costs"],
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
        with_structures=study.models_with_structures,
        literature=study.literature_settings,
    script:
        "../workflow/scripts/report_cross_model.py"


rule report_index:
    """Write the index of all reports and files, and the page of all experiments."""
    input:
        summary="<results>/reports/cross_model/analysis_summary.json",
        analyses=expand(
            "<results>/reports/{model}/analysis.json", model=study.reported_models
        ),
        experiments="<results>/consolidated/experiments.parquet",
        drawn=expand(
            "<results>/reports/{model}/figures.json",
            model=[*study.reported_models, "cross_model"],
        ),
        code=study.source_files(
            "naming.py",
            "analysis/selection.py",
            "analysis/message_json.py",
            "messages/*.py",
            "messages/*.yaml",
            "jobs/provenance.py",
            "reports/**/*.py",
            "reports/templates/*",
        ),
    output:
        index=report(
            "<results>/reports/index.html",
            caption="../workflow/report/index_page.rst",
            category="Index",
            labels={"what": "index of all reports"},
        ),
        experiments=report(
            "<results>/reports/experiments.html",
            caption="../workflow/report/experiments_page.rst",
            category="Index",
            labels={"what": "all experiments"},
        ),
    log:
        "<results>/logs/report_index.log",
    benchmark:
        "<results>/benchmarks/report_index.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        language=study.config.report.language,
        with_structures=study.models_with_structures,
    script:
        "../workflow/scripts/report_index.py"
