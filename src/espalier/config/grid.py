"""The sections `methods`, `grid` and `selection`: pruning methods, axes of the sweep, and limits on removal."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from espalier.config.base import Fraction, Name, PositiveInt, Section, duplicates
from espalier.models.architecture import EXPERT, GROUP_UNITS, LAYER, UNITS
from espalier.planning.criteria import CRITERIA

SeqLen = Annotated[int, Field(ge=2)]


def _known(name: str) -> str:
    if name not in CRITERIA:
        raise ValueError(f"got {name!r}; allowed: {', '.join(CRITERIA)}")
    return name


CriterionName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(CRITERIA)})]


class Method(Section):
    """A pruning method. The score of a unit is importance / cost * ln(1 + prior) ** temperature."""

    name: Name
    """Name in paths, tables and reports."""
    units: Annotated[tuple[Literal["kv_group", "mlp_channel", "layer", "expert"], ...], Field(min_length=1)] = (
        "kv_group",
        "mlp_channel",
    )
    """What is removed: KV groups, MLP channels or both, whole layers (`[layer]`), or experts (`[expert]`)."""
    criterion: CriterionName = "taylor"
    """How the importance of a unit is computed; that of a layer is the sum over its groups. `reap` is for experts."""
    prior: Literal["loss_increase", "cosine_distance"] = "loss_increase"
    """Which measurement of a removed block is the prior."""
    scope: Literal["none", "layer", "block", "gated"] = "none"
    """Whose prior a group takes: nobody's, its layer's, its block's, or (`gated`) one of the two."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Exponent of the prior. Has no effect when scope is none."""
    tau: Annotated[float, Field(ge=0, le=1)] | None = None
    """For scope gated: layers whose prior is under this quantile take the layer's prior, the others the block's."""
    prior_floor: Annotated[float, Field(gt=0)] = 1e-4
    """Priors below this are raised to it."""
    normalise: Literal["none", "layer", "block"] = "none"
    """Within what importances are divided by their sum before they are compared."""
    allocation: Literal["global", "uniform", "same_shape"] = "global"
    """Whether all layers compete, each loses the same share, or each keeps as many KV groups and MLP channels.

    Layers keep equally many experts, whatever is set here.
    """
    contiguous: bool = False
    """Whether removed layers are consecutive. Only for units [layer]."""

    @field_validator("units")
    @classmethod
    def _usual_order(cls, units: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := duplicates(units):
            raise ValueError(f"{repeated[0]!r} is listed twice; list each value once")
        return tuple(unit for unit in UNITS if unit in units)

    @property
    def removes_layers(self) -> bool:
        """Whether the units are whole layers."""
        return LAYER in self.units

    @property
    def removes_experts(self) -> bool:
        """Whether the units are experts."""
        return EXPERT in self.units

    @property
    def keeps_stock_shape(self) -> bool:
        """Whether all layers that remain have the same shape, whatever the scores."""
        return self.removes_layers or self.removes_experts or self.allocation == "same_shape"

    @property
    def settings(self) -> dict[str, Any]:
        """All keys except the name. Keys that are younger than 0.1.0 are left out at their defaults."""
        younger = {"units": GROUP_UNITS, "contiguous": False}
        values = self.model_dump(exclude={"name"})
        return {key: value for key, value in values.items() if key not in younger or value != younger[key]}

    @model_validator(mode="after")
    def _units_fit(self) -> Method:
        if CRITERIA[self.criterion].of_experts and not self.removes_experts:
            raise ValueError(f"criterion {self.criterion!r} measures whole experts; use it with units [expert]")
        if self.removes_experts:
            return self._expert_options_fit()
        if not self.removes_layers:
            if self.contiguous:
                raise ValueError("contiguous is for whole layers; remove it or use units [layer]")
            return self
        if len(self.units) > 1:
            raise ValueError(f"units {list(self.units)}: layer cannot be combined with other units; use [layer]")
        if self.scope not in {"none", "layer"}:
            raise ValueError(f"scope {self.scope!r} is for groups of a block; with units [layer] use none or layer")
        if self.normalise != "none":
            raise ValueError(f"normalise {self.normalise!r} has no effect on whole layers; remove it")
        if self.allocation != "global":
            raise ValueError(f"allocation {self.allocation!r} is for groups; with units [layer] remove it")
        return self

    def _expert_options_fit(self) -> Method:
        if len(self.units) > 1:
            raise ValueError(f"units {list(self.units)}: expert cannot be combined with other units; use [expert]")
        if self.contiguous:
            raise ValueError("contiguous is for whole layers; remove it or use units [layer]")
        each = "has no effect with units [expert]: each layer loses the experts with its lowest scores, equally many"
        if self.scope != "none":
            raise ValueError(f"scope {self.scope!r} {each}; remove it")
        if self.normalise != "none":
            raise ValueError(f"normalise {self.normalise!r} {each}; remove it")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Method:
        if self.criterion == "constant" and self.scope == "none":
            raise ValueError("criterion 'constant' gives all units the same importance; set a scope, so priors decide")
        if self.scope == "gated" and self.tau is None:
            raise ValueError("scope 'gated' needs tau, a quantile from 0 to 1")
        if self.scope != "gated" and self.tau is not None:
            raise ValueError(f"tau {self.tau} has no effect with scope {self.scope!r}; remove it or use scope 'gated'")
        return self


REFERENCE_METHODS = (
    Method(name="taylor"),
    Method(name="layerwise", scope="layer"),
    Method(name="blockwise", scope="block"),
)


class GridOverrides(Section):
    """Axes of the sweep for one model. An axis that is not given is the axis of the study."""

    methods: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Names of methods."""
    taylor_seq_len: Annotated[tuple[SeqLen, ...], Field(min_length=1)] | None = None
    """Calibration sequence lengths, in tokens."""
    taylor_num_samples: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """Numbers of calibration sequences."""
    pruning_ratio: Annotated[tuple[Fraction, ...], Field(min_length=1)] | None = None
    """Shares of all parameters to remove, between 0 and 1."""

    @field_validator("methods", "taylor_seq_len", "taylor_num_samples", "pruning_ratio")
    @classmethod
    def _unique(cls, values: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if values and (repeated := duplicates(values)):
            raise ValueError(f"{repeated[0]!r} is listed twice; list each value once")
        return values


class Grid(GridOverrides):
    """Axes of the sweep. The defaults are the protocol of the published runs."""

    methods: Annotated[tuple[Name, ...], Field(min_length=1)] = ("taylor", "layerwise", "blockwise")
    """Names of methods."""
    taylor_seq_len: Annotated[tuple[SeqLen, ...], Field(min_length=1)] = (16, 32, 64, 128, 256)
    """Calibration sequence lengths, in tokens."""
    taylor_num_samples: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 256, 512)
    """Numbers of calibration sequences."""
    pruning_ratio: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.2,)
    """Shares of all parameters to remove, between 0 and 1."""


class Selection(Section):
    """Constraints on which groups may be removed."""

    freeze_first_layers: Annotated[int, Field(ge=0)] = 0
    """Number of layers at the start that lose nothing."""
    freeze_last_layers: Annotated[int, Field(ge=0)] = 0
    """Number of layers at the end that lose nothing."""
    max_layer_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Largest share of a layer's prunable parameters that may be removed."""
    collapse_below: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Layers that would keep less than this share are removed whole."""
    mlp_multiple_of: PositiveInt = 1
    """MLP widths are multiples of this."""
    stock_shape: bool = False
    """Whether all methods must keep a shape that stock model code loads; others are refused. Changes no plan."""
