# Plans: what each experiment removes. A small file, made without torch.


rule plan:
    """What one experiment removes."""
    input:
        manifest="<results>/models/{model}.json",
        importance=study.sweep.importance_table,
        priors=study.sweep.prior_table,
    output:
        "<results>/experiments/{model}/{experiment}/plan.json",
    log:
        "<results>/logs/plan/{model}/{experiment}.log",
    benchmark:
        "<results>/benchmarks/plan/{model}/{experiment}.tsv"
    # Before evaluations: one that starts late finds more experiments to evaluate beside it.
    priority: 10
    conda:
        "../envs/plan.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        version=versions.PLAN,
        settings=study.sweep.plan_params,
    script:
        "../workflow/scripts/plan.py"
