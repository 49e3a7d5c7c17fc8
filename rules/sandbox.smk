# The sandbox: a small synthetic world, its texts and tasks, and tiny models trained on them.


rule make_world:
    """Make the texts and task documents of the sandbox."""
    output:
        training="<results>/sandbox/texts/training.parquet",
        chats="<results>/sandbox/texts/chats.parquet",
        calibration="<results>/sandbox/texts/calibration.parquet",
        perplexity=expand(
            "<results>/sandbox/perplexity/{text}.parquet", text=study.sandbox.texts
        ),
        tasks=expand("<results>/sandbox/tasks/{file}", file=study.sandbox.task_files),
    log:
        "<results>/logs/make_world.log",
    benchmark:
        "<results>/benchmarks/make_world.tsv"
    conda:
        "../envs/sandbox.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        version=versions.MAKE_WORLD,
        world=study.sandbox.world,
    script:
        "../workflow/scripts/make_world.py"


rule train_sandbox_tokenizer:
    """Train the tokenizer of one sandbox architecture."""
    input:
        text="<results>/sandbox/texts/training.parquet",
    output:
        "<results>/sandbox/tokenizers/{architecture}.json",
    log:
        "<results>/logs/train_sandbox_tokenizer/{architecture}.log",
    benchmark:
        "<results>/benchmarks/train_sandbox_tokenizer/{architecture}.tsv"
    # The longest chain of jobs begins here. If it starts late, the last model trains while other cores are idle.
    priority: 50
    conda:
        "../envs/sandbox.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        version=versions.TRAIN_SANDBOX_TOKENIZER,
        vocab_size=study.config.sandbox.vocab_size,
    script:
        "../workflow/scripts/train_sandbox_tokenizer.py"


rule train_sandbox_model:
    """Train one sandbox model."""
    input:
        text="<results>/sandbox/texts/training.parquet",
        chats="<results>/sandbox/texts/chats.parquet",
        tokenizer=study.sandbox.tokenizer,
        parent=study.sandbox.parent,
    output:
        "<results>/sandbox/models/{model}/model.safetensors",
        "<results>/sandbox/models/{model}/config.json",
        "<results>/sandbox/models/{model}/generation_config.json",
        "<results>/sandbox/models/{model}/tokenizer.json",
        "<results>/sandbox/models/{model}/tokenizer_config.json",
    log:
        "<results>/logs/train_sandbox_model/{model}.log",
    benchmark:
        "<results>/benchmarks/train_sandbox_model/{model}.tsv"
    # The longest chain of jobs begins here. If it starts late, the last model trains while other cores are idle.
    priority: 50
    conda:
        "../envs/sandbox.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(20),
    params:
        version=versions.TRAIN_SANDBOX_MODEL,
        settings=study.sandbox.training,
    script:
        "../workflow/scripts/train_sandbox_model.py"
