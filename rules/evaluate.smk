# Evaluation: the unpruned models and the pruned ones, on the same requests.
#
# One job evaluates several experiments of a model, and keeps each result in a store. The jobs of the other experiments
# hand over their files and request no GPU.


rule evaluate_baseline:
    """Evaluate an unpruned model: tasks and perplexity."""
    input:
        manifest="<results>/models/{model}.json",
        requests="<results>/requests/{model}.parquet",
        tasks=study.evaluation.data,
    output:
        metrics="<results>/baseline/{model}/metrics.json",
        samples="<results>/baseline/{model}/samples.parquet",
    log:
        "<results>/logs/evaluate_baseline/{model}.log",
    benchmark:
        "<results>/benchmarks/evaluate_baseline/{model}.tsv"
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=study.handover.mem_mb("evaluate_baseline"),
        gpu=study.handover.gpu("evaluate_baseline"),
        model_jobs=study.handover.model_jobs("evaluate_baseline"),
        model_gpus=study.gpus,
        runtime=per_attempt(120),
        # These affect speed and memory only; as resources they cause no rerun when they change.
        device=study.config.evaluation.device,
        token_budget=study.config.evaluation.token_budget,
        compile_layers=int(study.config.evaluation.compile),
        experiments_per_job=study.races.baselines_per_job,
    params:
        version=versions.EVALUATE,
        protocol=study.evaluation.protocol,
        data_folder=study.evaluation.data_folder,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/evaluate_baseline.py"


rule evaluate:
    """Evaluate a pruned model: tasks and perplexity."""
    input:
        manifest="<results>/models/{model}.json",
        plan="<results>/experiments/{model}/{experiment}/plan.json",
        requests="<results>/requests/{model}.parquet",
        # In a race, the plans of all experiments that race with this one.
        race=study.races.plans,
        tasks=study.evaluation.data,
    output:
        metrics="<results>/experiments/{model}/{experiment}/metrics.json",
        samples="<results>/experiments/{model}/{experiment}/samples.parquet",
    log:
        "<results>/logs/evaluate/{model}/{experiment}.log",
    benchmark:
        "<results>/benchmarks/evaluate/{model}/{experiment}.tsv"
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=study.handover.mem_mb("evaluate"),
        gpu=study.handover.gpu("evaluate"),
        model_jobs=study.handover.model_jobs("evaluate"),
        model_gpus=study.gpus,
        runtime=per_attempt(120),
        # These affect speed and memory only; as resources they cause no rerun when they change.
        device=study.config.evaluation.device,
        token_budget=study.config.evaluation.token_budget,
        compile_layers=int(study.config.evaluation.compile),
        experiments_per_job=study.config.evaluation.experiments_per_job,
    params:
        **study.races.params,
        version=versions.EVALUATE,
        protocol=study.evaluation.protocol,
        data_folder=study.evaluation.data_folder,
        dtype=study.config.evaluation.dtype,
    script:
        "../workflow/scripts/evaluate.py"
