# Plans: what each experiment removes. A plan is a small file, and making it does not need torch.


rule plan:
    """Plan what one experiment removes."""
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
    # Run before evaluations, so that each evaluation job finds more plans to evaluate.
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
