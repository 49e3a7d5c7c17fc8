# Espalier: structured-pruning sweeps of large language models. See docs/pipeline.md.
import sys

from snakemake.cli import get_argument_parser
from snakemake.utils import min_version

min_version("9.27")

sources = str(workflow.current_basedir.join("src"))
sys.path.insert(0, sources)

try:
    from espalier import versions
    from espalier.study.lookups import per_attempt
    from espalier.study.driver import (
        command_line_targets,
        open_study,
        requested_targets,
        requests_only_files,
    )
    from espalier.study.job_sources import prefer_sources
    from espalier.study.killed_jobs import report_killed_jobs
    from espalier.study.read_only import refuse_read_only
    from espalier.study.run_end import show_failures, show_reports
    from espalier.study.run_progress import show_progress
    from espalier.study.scheduler import (
        MODEL_JOBS,
        limit_scheduler_timers,
        renew_resources,
    )
    from espalier.study.stopping import (
        hide_traceback_of_interrupt,
        install_stop_handlers,
    )
    from espalier.study.study_lock import lock_results
    from espalier.study.targets import (
        check_targets,
        collecting_rules,
        list_targets_first,
        warn_of_empty_targets,
    )
except ModuleNotFoundError as error:
    # When the workflow is a module of a remote repository, Snakemake fetches rules and scripts, but not src/.
    sys.exit(
        f"{error}: install the wheel of this version (`pip install espalier[workflow]`), or use a local checkout"
    )

prefer_sources(sources)

if workflow.is_main_process:
    hide_traceback_of_interrupt()

# A config file describes one whole study, so the sandbox's is loaded only if the user gives no other.
if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


study = open_study(
    config,
    is_driver=workflow.is_main_process,
    targets=(
        requested_targets(
            get_argument_parser(), sys.argv[1:], workflow.modifier.avail_rulename
        )
        if workflow.is_main_process
        else ()
    ),
    only_files=workflow.is_main_process
    and requests_only_files(get_argument_parser(), sys.argv[1:]),
    config_files=workflow.configfiles,
)


if workflow.is_main_process:
    install_stop_handlers()
    refuse_read_only(study.results)
    limit_scheduler_timers()
    renew_resources(MODEL_JOBS, study.handover.is_stored)


onstart:
    lock_results(study.results)


onsuccess:
    show_reports(
        study.results, command_line_targets(get_argument_parser(), sys.argv[1:])
    )


onerror:
    show_failures(
        study.results, command_line_targets(get_argument_parser(), sys.argv[1:])
    )


pathvars:
    results=study.results,


wildcard_constraints:
    model=study.constraint_of(study.model_names),
    hub_model=study.constraint_of(study.staged.models),
    task=study.constraint_of(study.staged.tasks),
    text=study.constraint_of(study.staged.texts),
    architecture="llama|qwen2|mistral",
    calibration=study.constraint_of(study.calibration.names),
    experiment=study.sweep.name_pattern,
    search_folder=study.constraint_of(study.legacy.search_folders),
    seq_len=r"\d+",
    text_criterion=study.constraint_of(study.calibration.text_criteria),
    weight_criterion=study.constraint_of(study.calibration.weight_criteria),


include: "rules/stage.smk"
include: "rules/sandbox.smk"
include: "rules/models.smk"
include: "rules/requests.smk"
include: "rules/calibration.smk"
include: "rules/plan.smk"
include: "rules/evaluate.smk"
include: "rules/legacy.smk"
include: "rules/results.smk"
include: "rules/report.smk"
include: "rules/recovery.smk"
include: "rules/inference.smk"
include: "rules/export.smk"
include: "rules/forecast.smk"


rule all:
    """Run the whole study and make all its reports."""
    default_target: True
    input:
        expand("<results>/reports/{model}/report.html", model=study.reported_models),
        expand(
            "<results>/reports/{model}/structures", model=study.models_with_structures
        ),
        expand(
            "<results>/consolidated/{model}/all_methods_results.parquet",
            model=study.reported_models,
        ),
        "<results>/reports/cross_model/report.html",
        "<results>/reports/index.html",
        expand(
            "<results>/reports/{page}/figures",
            page=[*study.reported_models, "cross_model"],
        ),


rule stage:
    """Download models, tasks and texts into cache/; run it where there is a network."""
    input:
        "cache/lock.yaml" if study.staged.has_any else [],


rule evaluations:
    """Evaluate every model, unpruned and pruned."""
    input:
        expand("<results>/baseline/{model}/metrics.json", model=study.models),
        study.sweep.files("<results>/experiments/{model}/{experiment}/metrics.json"),


rule gradients:
    """Compute the importance of all groups, and gradient statistics."""
    input:
        study.sweep.gradient_tables,
        study.sweep.importance_tables,


rule plans:
    """Plan what every experiment removes."""
    input:
        study.sweep.files("<results>/experiments/{model}/{experiment}/plan.json"),


rule legacy:
    """Import the legacy results of all search folders."""
    input:
        study.legacy.tables,


rule consolidated:
    """Make the tables of the study and of every model."""
    input:
        expand(
            "<results>/consolidated/{table}.parquet",
            table=["experiments", "evaluations", "layers"],
        ),
        expand(
            "<results>/consolidated/{model}/all_methods_results.parquet",
            model=study.reported_models,
        ),


rule recovered:
    """Fine-tune the experiments of config section `recovery` and evaluate them again."""
    input:
        study.recovered.result_files(checkpoints),
        study.recovered.table,


rule reports:
    """Make the report of every model, without the comparison of models."""
    input:
        expand("<results>/reports/{model}/report.html", model=study.reported_models),


rule partial_reports:
    """Make all reports from the finished results, and list missing ones with the reason."""
    input:
        expand("<results>/reports/{model}/report.html", model=study.reported_models),
        expand(
            "<results>/consolidated/{model}/all_methods_results.parquet",
            model=study.reported_models,
        ),
        expand(
            "<results>/reports/{model}/structures", model=study.models_with_structures
        ),
        "<results>/reports/cross_model/report.html",
        "<results>/reports/index.html",


rule cross_model:
    """Make the report that compares all models."""
    input:
        "<results>/reports/cross_model/report.html",


rule inference:
    """Time pruned models against unpruned ones (needs the config section `inference`)."""
    input:
        study.inference.files,


rule structures:
    """Write what each experiment removed, layer by layer."""
    input:
        expand(
            "<results>/reports/{model}/structures", model=study.models_with_structures
        ),


rule export:
    """Export the best experiment of each model, and those that the config names."""
    input:
        study.exports.files,


if workflow.is_main_process:
    show_progress(collecting_rules(workflow.rules))
    report_killed_jobs(study.results, workflow.rules, lambda: workflow.local_exec)
    if workflow.modifier.parent_modifier is None:
        list_targets_first(workflow)
        requested = command_line_targets(get_argument_parser(), sys.argv[1:])
        check_targets(requested, workflow.rules)
        warn_of_empty_targets(requested, workflow.rules)
