"""Look-ups for recovery: its settings, and the text that it trains on."""

from __future__ import annotations

from typing import Any

from espalier.config.data import SANDBOX, TextSource
from espalier.config.recovery import ADAPTER_KEYS, FULL, Recovery
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.study.paths import Paths, Wildcards
from espalier.study.sources import calibration_text, text_file
from espalier.study.sweep import Sweep

_NOT_IN_PARAMS = {"experiments", "text", "token_budget", "checkpointing"}


def recovering_rule(config: StudyConfig) -> str:
    """Return the rule that fine-tunes the models of a study; `recover` if the config has no section `recovery`."""
    return "recover_full" if config.recovery and config.recovery.method == FULL else "recover"


def recovery_section(config: StudyConfig) -> Recovery:
    """Return the section `recovery` of a config.

    Raises:
        UserError: If the config has no such section.
    """
    if config.recovery is None:
        raise UserError("recovery: the config has no such section, so nothing is recovered; add it")
    return config.recovery


class RecoverySettings:
    """Settings and text of the recovery jobs of a study.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep) -> None:
        self._config, self._paths, self._sweep = config, paths, sweep

    @property
    def source(self) -> TextSource:
        """Source of the recovery text; the calibration text if the config gives no other."""
        own = self._config.recovery.text if self._config.recovery else None
        return own or self._config.calibration

    @property
    def is_own_text(self) -> bool:
        """Whether the recovery text is different from the calibration text."""
        calibration, source = self._config.calibration, self.source
        return source is not calibration and not source.same_text(calibration)

    @property
    def text(self) -> str:
        """Path of the recovery text. For `recovery.text.dataset: sandbox`, it is the training text of its models."""
        if not self.is_own_text:
            return calibration_text(self._config, self._paths)
        sandbox = self._paths.of("make_world")
        return sandbox if self.source.dataset == SANDBOX else text_file(self._paths, self.source, "")

    @property
    def resources(self) -> dict[str, int]:
        """Resources that limit the memory of a recovery job."""
        section = self._config.recovery or Recovery()
        return {"token_budget": section.token_budget, "checkpointing": int(section.checkpointing)}

    @property
    def memory(self) -> str:
        """Kind of the recovery jobs in `host_memory.MEMORY_PER_PARAM`."""
        section = self._config.recovery or Recovery()
        kind = "recovery_full" if section.method == FULL else "recovery"
        return f"{kind}_distillation" if section.distillation else kind

    @property
    def dtype(self) -> str:
        """Type of the weights while they are trained; `auto` is the stored one."""
        return (self._config.recovery or Recovery()).dtype

    @property
    def n_tokens(self) -> int:
        """Number of tokens that a recovery job trains on, over all epochs."""
        return self._section.n_sequences * self._section.seq_len * self._section.epochs

    def settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `recover` and `recover_full`: all settings that determine the trained model.

        Settings at their meaning before they existed are left out: `method: lora`, and no distillation. Settings of
        adapters are left out where all weights are trained.
        """
        section = self._section
        unused = {*ADAPTER_KEYS} if section.method == FULL else {"method"}
        if section.distillation is None:
            unused.add("distillation")
        return {**section.model_dump(mode="json", exclude=_NOT_IN_PARAMS | unused), **self._source_settings}

    def text_settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `check_recovery`: the settings that determine the sequences."""
        section = self._section
        sequences = {"seed": section.seed, "seq_len": section.seq_len, "n_sequences": section.n_sequences}
        return {**sequences, **self._source_settings}

    def calibrations(self, wildcards: Wildcards) -> list[dict[str, Any]]:
        """Return a model's calibration sets that use the recovery text, each with its largest sample count.

        Each has the `text_field` of the calibration if that of the recovery differs.
        """
        largest: dict[tuple[int, int], int] = {}
        for experiment in [] if self.is_own_text else self._sweep.experiments_of_model(wildcards.model):
            if experiment.seq_len and experiment.n_samples:
                key = (experiment.seed or 0, experiment.seq_len)
                largest[key] = max(experiment.n_samples, largest.get(key, 0))
        add_bos, text_field = self._config.evaluation.add_bos, self._config.calibration.text_field
        added: dict[str, Any] = {} if add_bos is None else {"add_bos": add_bos}
        if text_field != self.source.text_field:
            added["text_field"] = text_field
        return [
            {"seed": seed, "seq_len": length, "n_samples": n, **added} for (seed, length), n in sorted(largest.items())
        ]

    @property
    def _section(self) -> Recovery:
        return recovery_section(self._config)

    @property
    def _source_settings(self) -> dict[str, Any]:
        seeds = [] if self.is_own_text else list(self._config.calibration.seeds)
        add_bos = self._config.evaluation.add_bos
        bos = {} if add_bos is None else {"add_bos": add_bos}
        return {"text_field": self.source.text_field, "calibration_seeds": seeds, **bos}
