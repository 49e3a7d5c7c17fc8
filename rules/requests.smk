# Requests: task documents and perplexity texts, tokenised once for each model.


rule tokenize_requests:
    """Tokenise the requests of the tasks and the perplexity texts."""
    input:
        manifest="<results>/models/{model}.json",
        tasks=study.evaluation.data,
        texts=study.evaluation.texts,
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
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        version=study.evaluation.request_version,
        protocol=study.evaluation.request_protocol,
        data_folder=study.evaluation.data_folder,
    script:
        "../workflow/scripts/tokenize_requests.py"
