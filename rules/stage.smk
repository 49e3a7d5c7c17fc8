# Staging: everything that needs the network. These jobs run where the workflow was started (on a cluster, the login
# node).


rule stage_model:
    """Fetch a model from the hub (needs the network)."""
    output:
        "cache/models/{hub_model}/staged.json",
    log:
        "cache/logs/stage_model/{hub_model}.log",
    benchmark:
        "cache/benchmarks/stage_model/{hub_model}.tsv"
    localrule: True
    conda:
        "../envs/stage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=600,
    params:
        version=versions.STAGE_MODEL,
        source=study.staged.model,
        lock="cache/lock.yaml",
    script:
        "../workflow/scripts/stage_model.py"


rule stage_dataset:
    """Fetch the documents of a task from the hub (needs the network)."""
    output:
        "cache/datasets/{task}.json",
    log:
        "cache/logs/stage_dataset/{task}.log",
    benchmark:
        "cache/benchmarks/stage_dataset/{task}.tsv"
    localrule: True
    conda:
        "../envs/stage.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        version=versions.STAGE_DATASET,
    script:
        "../workflow/scripts/stage_dataset.py"


rule stage_text:
    """Fetch a text dataset from the hub (needs the network)."""
    output:
        "cache/texts/{text}.parquet",
    log:
        "cache/logs/stage_text/{text}.log",
    benchmark:
        "cache/benchmarks/stage_text/{text}.tsv"
    localrule: True
    conda:
        "../envs/stage.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        version=versions.STAGE_TEXT,
        source=study.staged.text,
    script:
        "../workflow/scripts/stage_text.py"


rule lock_cache:
    """Write the commits and checksums of all fetched files."""
    input:
        models=expand(
            "cache/models/{hub_model}/staged.json", hub_model=study.staged.models
        ),
        tasks=expand("cache/datasets/{task}.json", task=study.staged.tasks),
        texts=expand("cache/texts/{text}.parquet", text=study.staged.texts),
    output:
        # `update` keeps the file until the job runs, because the job keeps the entries of other studies.
        update("cache/lock.yaml"),
    log:
        "cache/logs/lock_cache.log",
    benchmark:
        "cache/benchmarks/lock_cache.tsv"
    localrule: True
    conda:
        "../envs/stage.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    script:
        "../workflow/scripts/lock_cache.py"
