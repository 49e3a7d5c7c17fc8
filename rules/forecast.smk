# Forecast: what is left to do and what it will take. Has no output, so that it always looks again.


rule forecast:
    """What is left to do, and how long it will take."""
    log:
        "<results>/logs/forecast.log",
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        study=study.forecast,
    script:
        "../workflow/scripts/forecast.py"
