# Forecast: the jobs that are left and their cost. The rule has no output, so that it runs every time.


rule forecast:
    """Show how many jobs are left and how long they will take."""
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
