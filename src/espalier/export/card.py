"""The model card: README.md of an exported folder, filled with the results of the study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from espalier.export.build import STUB_CHANNELS
from espalier.export.card_lines import check_lines, licence_line, origin_lines, plan_lines, protocol_lines, result_rows
from espalier.files import read_json
from espalier.models.sizes import ModelSizes
from espalier.planning.plan import Plan

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|&~$])")


class Plain(str):
    """Text that `escape` returns unchanged."""

    __slots__ = ()


def escape(value: Any) -> Any:
    """Escape the special characters of Markdown and join lines; return other values and `Plain` unchanged."""
    if not isinstance(value, str) or isinstance(value, Plain):
        return value
    return _SPECIAL.sub(r"\\\1", " ".join(value.split()))


def write_card(
    description: Mapping[str, Any],
    manifest: Mapping[str, Any],
    licence: Mapping[str, Any],
    parity: Mapping[str, Any],
    plan: Plan,
    *,
    stubs: bool,
    is_stock: bool,
    folder: Path,
) -> None:
    """Write the model card, README.md.

    Args:
        description: Result of `espalier.export.describe.describe_export`.
        manifest: Manifest of the base model.
        licence: Result of `espalier.export.licence.licence_of`.
        parity: Content of `parity.json`.
        plan: Pruning plan of the model.
        stubs: Whether removed blocks are written as zeros.
        is_stock: Whether the folder is a stock checkpoint, which has no removed blocks.
        folder: The exported folder, which already has its `config.json`.
    """
    content, base = description["plan"], description["base"]
    text = environment().get_template("card.md").render(
        head=Plain(yaml.safe_dump(_head(base, licence), sort_keys=False, allow_unicode=True)),
        title=f"{base['name']}, {content['experiment']}",
        base={"name": base["name"], "architecture": manifest["architecture"]},
        removed=f"{content['removed_param_fraction']:.1%} of its parameters are gone "
        f"({description['results']['n_params']:,} of {manifest['n_params']:,} are left).",
        wrapper=manifest.get("wrapper"),
        stubs=f"one KV group, or {STUB_CHANNELS} channels" if stubs and not is_stock else None,
        is_stock=is_stock,
        units=_units(plan),
        words=plan_lines(description, plan),
        layers=_layer_rows(plan, manifest, _query_heads_per_group(folder)),
        protocol=protocol_lines(description),
        results=result_rows(description["results"], description["baseline"]),
        checks=check_lines(parity),
        origin=origin_lines(description, manifest),
        files=[{"name": name, "sha256": manifest["files"][name]["sha256"]} for name in manifest["weight_files"]],
        licence=licence_line(licence),
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")


def environment() -> Environment:
    """Return the Jinja environment of model cards, which escapes inserted values for Markdown."""
    return Environment(  # noqa: S701 (Markdown, not HTML: `escape` escapes it)
        loader=PackageLoader("espalier.export"),
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _head(base: Mapping[str, Any], licence: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata at the top of the card, which model hubs read."""
    stated = {key: licence[key] for key in ("license", "license_name", "license_link") if key in licence}
    origin = {"base_model": base["hub"]} if base["hub"] else {}
    return {"library_name": "transformers", "pipeline_tag": "text-generation", **stated, **origin, "tags": ["pruned"]}


def _units(plan: Plan) -> str:
    """Return what was removed, for the first sentence."""
    if plan.removed_layers:
        return f"{len(plan.removed_layers)} of {plan.n_layers} whole layers were removed"
    if any(len(plan.kept_experts[layer].experts) < plan.n_experts[layer] for layer in plan.kept_experts):
        return "whole experts were removed, with their rows of the router"
    return "whole key/value head groups and MLP channels were removed"


def _layer_rows(plan: Plan, manifest: Mapping[str, Any], n_query: int) -> list[dict[str, int]]:
    structure = ModelSizes.from_dict(manifest["structure"])
    before = Plan.identity(structure).layer_params(structure)
    return [
        {
            "layer": layer,
            "kv_groups": n_kv,
            "kv_groups_before": sizes.n_kv_groups,
            "heads": n_kv * n_query,
            "channels": n_mlp,
            "channels_before": sizes.n_mlp_channels,
            "params": params,
            "params_before": params_before,
        }
        for layer, (n_kv, n_mlp, sizes, params, params_before) in enumerate(
            zip(
                plan.n_kept_kv_groups, plan.n_kept_mlp_channels, structure.layers,
                plan.layer_params(structure), before, strict=True,
            )
        )
    ]  # fmt: skip


def _query_heads_per_group(folder: Path) -> int:
    config = read_json(folder / "config.json")  # its top level has the sizes of the base model
    return int(config["num_attention_heads"]) // int(config["num_key_value_heads"])
