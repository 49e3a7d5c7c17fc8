# Import of legacy results: one job per search folder. Snakemake compares the JSON files by content.


rule import_legacy:
    """Import the legacy results of one search folder."""
    input:
        files=study.legacy.files,
        code=study.source_files(
            "evaluation/protocol.py", "results/legacy/*.py", "naming.py", "tables.py"
        ),
    output:
        table="<results>/legacy/{model}/{search_folder}.parquet",
        listing="<results>/legacy/{model}/{search_folder}.json",
    log:
        "<results>/logs/import_legacy/{model}/{search_folder}.log",
    benchmark:
        "<results>/benchmarks/import_legacy/{model}/{search_folder}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        names=study.legacy.import_params,
    script:
        "../workflow/scripts/import_legacy.py"
