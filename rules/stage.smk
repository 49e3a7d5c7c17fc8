# Staging: everything that needs the network. Runs where the workflow was started (the login node of a cluster).


localrules:
    stage_model,
    stage_dataset,
    lock_cache,


rule stage_model:
    output:
        "cache/models/{hub_model}/staged.json",
    log:
        "cache/logs/stage_model/{hub_model}.log",
    benchmark:
        "cache/benchmarks/stage_model/{hub_model}.tsv"
    conda:
        "../envs/stage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=600,
    params:
        version=versions.STAGE_MODEL,
        source=study.hub_model,
        lock="cache/lock.yaml",
    script:
        "../workflow/scripts/stage_model.py"


rule stage_dataset:
    output:
        "cache/datasets/{dataset}.json",
    log:
        "cache/logs/stage_dataset/{dataset}.log",
    benchmark:
        "cache/benchmarks/stage_dataset/{dataset}.tsv"
    conda:
        "../envs/stage.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        version=versions.STAGE_DATASET,
        text=study.hub_dataset,
    script:
        "../workflow/scripts/stage_dataset.py"


rule lock_cache:
    input:
        models=expand(
            "cache/models/{hub_model}/staged.json", hub_model=study.hub_models
        ),
        datasets=expand("cache/datasets/{dataset}.json", dataset=study.hub_datasets),
    output:
        "cache/lock.yaml",
    log:
        "cache/logs/lock_cache.log",
    benchmark:
        "cache/benchmarks/lock_cache.tsv"
    conda:
        "../envs/stage.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    script:
        "../workflow/scripts/lock_cache.py"
