"""Text of a model card: lines about plan, protocol, results, checks, origin and licence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from espalier.data_formats import TEXT_SUFFIXES
from espalier.models.architecture import EXPERT, LAYER
from espalier.planning.plan import Plan
from espalier.planning.select import SelectionOptions

_MEAN = "mean accuracy"
_ALLOCATIONS = {
    "global": "across the model",
    "uniform": "within a layer",
    "same_shape": "within a layer, and all layers keep as many KV groups and MLP channels",
}


def plan_lines(description: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return lines that describe how the plan was made and what it keeps."""
    content = description["plan"]
    settings = content["recipe"]["settings"]
    lines = [_choice(description), _method(settings)]
    if settings["seq_len"]:
        lines.append(_calibration(description["calibration"], settings))
    if description["results"].get("adapter"):
        lines.append("Fine-tuned with LoRA after pruning; the adapter is merged into the weights.")
    if description["results"].get("trained_weights"):
        lines.append("All weights were fine-tuned after pruning.")
    usual = asdict(SelectionOptions())
    if limits := [f"{key} {value}" for key, value in settings["selection"].items() if value != usual.get(key)]:
        lines.append(f"Selection: {', '.join(limits)}.")
    kept, total = sum(plan.n_kept_kv_groups), sum(plan.n_kv_groups)
    channels, all_channels = sum(plan.n_kept_mlp_channels), sum(plan.n_mlp_channels)
    lines.append(
        f"{kept:,} of {total:,} KV groups and {channels:,} of {all_channels:,} MLP channels are kept; "
        f"{content['extreme_pruning_layers']} of {plan.n_layers} layers lost more than half of their MLP channels."
    )
    if plan.n_experts:
        experts, all_experts = sum(filter(None, plan.n_kept_experts)), sum(plan.n_experts)
        lines.append(
            f"{experts:,} of {all_experts:,} experts are kept. In layers with experts, MLP channels are those of each "
            "expert."
        )
    if plan.removed_layers:
        lines.append(
            f"Removed whole: layers {', '.join(map(str, plan.removed_layers))}. The others are renumbered from 0 in "
            "this folder; here they have the numbers of the base model."
        )
    for what, sizes in (("attention", plan.n_kept_kv_groups), ("MLP", plan.n_kept_mlp_channels)):
        if empty := [layer for layer in plan.kept_layers if sizes[layer] == 0]:
            lines.append(f"Without {what}: layers {', '.join(map(str, empty))}.")
    return lines


def protocol_lines(description: Mapping[str, Any]) -> list[str]:
    """Return lines that describe how both models were evaluated.

    Raises:
        ValueError: If the two models were evaluated with different protocols.
    """
    protocol = description["results"]["protocol"]
    if protocol != description["baseline"]["protocol"]:
        raise ValueError("metrics of different protocols are never set side by side")
    limit = f"the first {protocol['limit']}" if protocol["limit"] else "all"
    race = description["results"].get("race")
    shots = protocol["num_fewshot"]
    joined = ", ".join(f"{name}: {number}" for name, number in protocol.get("task_fewshots", {}).items())
    shown = f"{shots or 'no'} solved examples{f' ({joined})' if joined else ''}"
    skipped = " that fit in the context" if protocol.get("too_long") == "skip" else ""
    tasks = (
        f"Tasks of lm-evaluation-harness, {shown}, {limit} documents{skipped}"
        f"{', chat template' if protocol['chat_template'] else ''}; add_bos: "
        f"{'as the tokenizer does' if protocol['add_bos'] is None else protocol['add_bos']}."
    )
    lines = [tasks]
    if race:
        lines.append(
            f"A race stopped this model after {race['n_documents']:,} of these documents. Its accuracies rest on them "
            "alone, so those of the base model are beside them only for tasks that it answered completely."
        )
    if description["results"]["perplexity"]:
        lines.append(f"Perplexity: windows of {protocol['window']} tokens by {protocol['stride']}, each token once.")
    dtype = description["results"]["dtype"]
    lines.append(f"The model was pruned in memory, its weights {'as stored' if dtype == 'auto' else f'as {dtype}'}.")
    lines.append(f"Mean accuracy: unweighted, {description['results']['acc_mean']['rule']}.")
    return lines


def result_rows(results: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row for each result of the pruned model, with the result of the base model beside it."""
    pairs = [*_numbers(results)]
    others = dict(_numbers(baseline))
    if "race" in results:  # the two means are over different documents
        del others[_MEAN]
    return [{"name": name, "pruned": number, "baseline": others.get(name, "-")} for name, number in pairs]


def check_lines(parity: Mapping[str, Any]) -> list[str]:
    """Return lines that describe the parity check.

    Args:
        parity: Content of `parity.json`.
    """
    logits, generation = parity["logits"], parity["generation"]
    results = [name for name, value in generation.items() if isinstance(value, str)]
    ties = [name for name in results if generation[name] == "tie"]
    tokens = f"{generation['new_tokens']} tokens generated after {generation['prompts']} prompts without a cache"
    difference = f"largest difference {logits['max_abs_difference']:.2g} (allowed: {parity['tolerance']:g})"
    lines = [
        f"logits of {logits['n_tokens']} tokens: {difference}, same most probable token each time",
        f"the same with a cache, in pieces: largest difference {logits['max_abs_difference_cached']:.2g}",
        f"{tokens}: the same by {', '.join(name.replace('_', ' ') for name in results)}",
        f"the tokens of {parity['tokenizer']['n_texts']} texts: equal",
        f"weights are stored as {parity['weights_dtype']}",
    ]
    if ties:
        lines.append(f"ties within the tolerance: {', '.join(ties)}")
    if rounding := parity.get("rounding"):
        lines.append(
            f"rounding from {rounding['from']} moves logits by up to {rounding['max_abs_logit_difference']:.2g}; the "
            "comparison is with the rounded model"
        )
    return lines


def origin_lines(description: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """Return lines that identify the base model."""
    base = description["base"]
    lines = [f"{base['name']} ({base['family']}, {base['kind']}), {manifest['n_params']:,} parameters"]
    if base["hub"]:
        lines.append(f"from {base['hub']}, revision {base['revision']}, commit {manifest['commit'] or 'unknown'}")
    lines.append(f"checksum of all its files: {description['plan']['recipe']['weights']}")
    return lines


def licence_line(licence: Mapping[str, Any]) -> str:
    """Return a line with the licence of the base model, as far as it is known.

    Args:
        licence: Result of `espalier.export.licence.licence_of`.
    """
    stated = ", ".join(str(licence[key]) for key in ("license", "license_name", "license_link") if key in licence)
    texts = f" Its texts are in this folder: {', '.join(licence['files'])}." if licence["files"] else ""
    if stated:
        return f"That of the base model, which its folder calls: {stated}.{texts}"
    return f"That of the base model: see the base model.{texts}"


def _choice(description: Mapping[str, Any]) -> str:
    content = description["plan"]
    chosen = description["chosen"]
    ratio = f"asked to remove {content['pruning_ratio']:.1%} of all parameters"
    if chosen is None:
        return f"Experiment {content['experiment']}, {ratio}."
    return f"Experiment {content['experiment']}, {ratio}: the best of its ratio by mean accuracy."


def _method(settings: Mapping[str, Any]) -> str:
    method = settings["method"]
    units = method.get("units", ())
    unit = "layer" if LAYER in units else "expert" if EXPERT in units else "group"
    if method["criterion"] == "reap":
        return (
            "Importance of an expert: criterion reap, the mean over the tokens routed to it of its weight times the "
            "norm of its output. Experts compete within a layer, and all layers keep equally many."
        )
    text = f"Importance of a {unit}: criterion {method['criterion']}, for each parameter that goes with it"
    if method["scope"] != "none":
        text += f"; weighted by what the model loses without its {method['scope']} ({method['prior']})"
    allocation = "within a layer, and all layers keep equally many" if EXPERT in units else None
    return f"{text}. {unit.capitalize()}s compete {allocation or _ALLOCATIONS[method['allocation']]}."


def _calibration(calibration: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    is_file = str(calibration["dataset"]).endswith(TEXT_SUFFIXES)  # a local file has no splits
    keys = ("dataset",) if is_file else ("dataset", "config", "split")
    source = " ".join(str(calibration[key]) for key in keys if calibration[key])
    return (
        f"Calibrated on {settings['n_samples']} sequences of {settings['seq_len']} tokens of {source}, "
        f"seed {settings['seed']}."
    )


def _numbers(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield _MEAN, f"{results['acc_mean']['value']:.4f}"
    for task, found in results["tasks"].items():
        for metric, number in found["metrics"].items():
            error = "" if number["stderr"] is None else f" ± {number['stderr']:.4f}"
            yield f"{task} {metric} ({found['n_samples']} documents)", f"{number['value']:.4f}{error}"
    for text, found in results["perplexity"].items():
        yield f"perplexity {text} ({found['n_tokens']:,} tokens)", f"{found['value']:.3f}"
    yield "parameters", f"{results['n_params']:,}"
