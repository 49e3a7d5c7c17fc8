# Reports: statistics in `analyse*`, pages in `report_*`. From the tables alone, without models or torch.


rule analyse:
    input:
        experiments="<results>/consolidated/experiments.parquet",
        code=study.code("analysis/*.py", "consolidate.py"),
    output:
        analysis="<results>/reports/{model}/analysis.json",
    log:
        "<results>/logs/analyse/{model}.log",
    benchmark:
        "<results>/benchmarks/analyse/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grow(1000),
        runtime=grow(10),
    params:
        headline_ratio=study.config.report.ratio,
    script:
        "../workflow/scripts/analyse.py"


rule analyse_study:
    input:
        experiments="<results>/consolidated/experiments.parquet",
        code=study.code("analysis/*.py", "consolidate.py"),
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
    script:
        "../workflow/scripts/analyse_study.py"


rule report_model:
    input:
        analysis="<results>/reports/{model}/analysis.json",
        experiments="<results>/consolidated/experiments.parquet",
        layers="<results>/consolidated/layers.parquet",
        code=study.code("analysis/best.py", "reports/*.py", "reports/templates/*"),
    output:
        text="<results>/reports/{model}/report.txt",
        html="<results>/reports/{model}/report.html",
        accuracy_by_method="<results>/reports/{model}/figures/accuracy_by_method.svg",
        accuracy_by_setting="<results>/reports/{model}/figures/accuracy_by_setting.svg",
        accuracy_perplexity="<results>/reports/{model}/figures/accuracy_perplexity.svg",
        kept_layers="<results>/reports/{model}/figures/kept_layers.svg",
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
    script:
        "../workflow/scripts/report_model.py"


rule report_cross_model:
    input:
        summary="<results>/reports/cross_model/analysis_summary.json",
        code=study.code("analysis/*.py", "reports/*.py", "reports/templates/*"),
    output:
        table="<results>/reports/cross_model/all_models_best_configs.csv",
        comparison="<results>/reports/cross_model/cross_model_comparison.json",
        text="<results>/reports/cross_model/report.txt",
        html="<results>/reports/cross_model/report.html",
        best_configs_tex="<results>/reports/cross_model/tables/best_configs.tex",
        base_vs_instruct_tex="<results>/reports/cross_model/tables/base_vs_instruct.tex",
        best_vs_baseline="<results>/reports/cross_model/figures/best_vs_baseline.svg",
        base_vs_instruct="<results>/reports/cross_model/figures/base_vs_instruct.svg",
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
    script:
        "../workflow/scripts/report_cross_model.py"


# One job for each model: starting Python for each experiment would take longer than all its work.
rule compare_structures:
    input:
        layers="<results>/consolidated/layers.parquet",
        manifest="<results>/models/{model}.json",
        code=study.code("reports/*.py"),
    output:
        directory("<results>/reports/{model}/structures"),
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
    script:
        "../workflow/scripts/compare_structures.py"
