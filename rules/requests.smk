# Requests: documents of tasks and perplexity texts as tokens, made once for each model.


rule tokenize_requests:
    """Requests of tasks and perplexity texts, cut into tokens once."""
    input:
        manifest="<results>/models/{model}.json",
        tasks=study.task_data,
        texts=study.perplexity_texts,
    output:
        "<results>/requests/{model}.parquet",
    log:
        "<results>/logs/tokenize_requests/{model}.log",
    benchmark:
        "<results>/benchmarks/tokenize_requests/{model}.tsv"
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=grow(4000),
        runtime=grow(30),
    params:
        version=study.request_version,
        protocol=study.request_protocol,
        data_folder=study.task_data_folder,
    script:
        "../workflow/scripts/tokenize_requests.py"
