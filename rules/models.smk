# Models: the check of each model folder.


rule check_model:
    """Check that a model can be pruned, and write its sizes and checksums."""
    input:
        trained=study.trained_model,
        staged=study.staged_model,
    output:
        "<results>/models/{model}.json",
    log:
        "<results>/logs/check_model/{model}.log",
    benchmark:
        "<results>/benchmarks/check_model/{model}.tsv"
    wildcard_constraints:
        # Imported models are left out, so that nothing is computed for them.
        model=study.constraint_of(study.models),
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        version=versions.CHECK_MODEL,
        model=study.check_params,
    script:
        "../workflow/scripts/check_model.py"
