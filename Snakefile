# Espalier: structured-pruning sweeps of large language models. See docs/pipeline.md.
import sys

from snakemake.cli import get_argument_parser
from snakemake.utils import min_version

min_version("9.27")

sys.path.insert(0, str(workflow.current_basedir.join("src")))

try:
    from espalier import versions
    from espalier.study.lookups import per_attempt
    from espalier.study.driver import asked_targets, open_study
    from espalier.study.scheduler import look_once_per_delay
    from espalier.study.stopping import tell_jobs_when_stopped
except ModuleNotFoundError as error:
    # As a module of a remote repository, only rules and scripts are fetched, not src/.
    sys.exit(
        f"{error}: install the wheel of this version (`pip install espalier[workflow]`), or use a local checkout"
    )

# A config file is one whole study: the sandbox is loaded only when no other is given.
if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


study = open_study(
    config,
    is_driver=workflow.is_main_process,
    targets=(
        asked_targets(
            get_argument_parser(), sys.argv[1:], workflow.modifier.avail_rulename
        )
        if workflow.is_main_process
        else ()
    ),
    files=workflow.configfiles,
)


if workflow.is_main_process:
    tell_jobs_when_stopped()
    look_once_per_delay()


pathvars:
    results=study.results,


wildcard_constraints:
    model=study.any_of(study.model_names),
    hub_model=study.any_of(study.staged.models),
    task=study.any_of(study.staged.tasks),
    text=study.any_of(study.staged.texts),
    architecture="llama|qwen2|mistral",
    calibration=study.any_of(study.calibration.names),
    experiment=study.sweep.name_pattern,
    search_folder=study.any_of(study.imports.search_folders),
    seq_len=r"\d+",
    text_criterion=study.any_of(study.calibration.text_criteria),
    weight_criterion=study.any_of(study.calibration.weight_criteria),


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
include: "rules/serving.smk"
include: "rules/export.smk"
include: "rules/forecast.smk"


rule all:
    """The whole study, up to its reports."""
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


rule stage:
    """What needs the network, for the login node; compute jobs read only cache/."""
    input:
        "cache/lock.yaml" if study.staged.are_any else [],


rule evaluations:
    """Every model, unpruned and pruned, evaluated by the protocol of the study."""
    input:
        expand("<results>/baseline/{model}/metrics.json", model=study.models),
        study.sweep.files("<results>/experiments/{model}/{experiment}/metrics.json"),


rule gradients:
    """Importance of all groups, and the statistics of the gradients behind it."""
    input:
        study.sweep.gradient_tables,
        study.sweep.importance_tables,


rule plans:
    """What every experiment removes."""
    input:
        study.sweep.files("<results>/experiments/{model}/{experiment}/plan.json"),


rule legacy:
    """What was read of every imported search folder."""
    input:
        study.imports.tables,


rule consolidated:
    """Tables of the study and of every model."""
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
    """The experiments of section `recovery`, fine-tuned and evaluated once more."""
    input:
        study.recovery.chosen_files(checkpoints),
        study.recovery.table,


rule reports:
    """The report of every model, without the comparison."""
    input:
        expand("<results>/reports/{model}/report.html", model=study.reported_models),


rule partial_reports:
    """Reports and comparison from what is finished; what is not is listed with its reason."""
    input:
        expand("<results>/reports/{model}/report.html", model=study.reported_models),
        expand(
            "<results>/consolidated/{model}/all_methods_results.parquet",
            model=study.reported_models,
        ),
        "<results>/reports/cross_model/report.html",


rule cross_model:
    """The comparison of all models."""
    input:
        "<results>/reports/cross_model/report.html",


rule inference:
    """Pruned models timed against their unpruned ones, where the config has a section `inference`."""
    input:
        study.measured.files,


rule structures:
    """What each experiment removed, layer by layer."""
    input:
        expand(
            "<results>/reports/{model}/structures", model=study.models_with_structures
        ),


rule export:
    """The best pruned model of each model, and those that the config names, for others to load."""
    input:
        study.exports.files,
