"""A model on which several passes run: importance by a criterion, or priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from espalier.calibration.importance import importance_of_weights, measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.priors import measure_priors
from espalier.calibration.sample_counts import SampleCounts, n_prior_sequences
from espalier.calibration.sequences import SequenceSettings
from espalier.jobs.calibration import load_sequences
from espalier.jobs.resources import JobResources
from espalier.models.from_manifest import load_from_manifest
from espalier.study.passes import GRADIENTS, IMPORTANCE, PRIORS, Pass

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ModelPasses:
    """A model on which several passes run. Tokenizer, text and weights are loaded once.

    Args:
        manifest: Content of the model's manifest.
        resources: Resources of the job.
        threads: CPU threads.
    """

    def __init__(self, manifest: Mapping[str, Any], resources: JobResources, threads: int) -> None:
        torch.set_num_threads(threads)
        self._manifest, self._resources = manifest, resources
        self._model: PreTrainedModel | None = None

    def tables(self, one: Pass) -> dict[str, pd.DataFrame]:
        """Run a pass.

        Sequences are drawn before the model is loaded, so errors in the text are raised before a GPU is used.

        Returns:
            Its tables, by the name of their file in the store.

        Raises:
            UserError: As `load_sequences`, `measure_importance` and `measure_priors`, or if the model cannot be loaded.
        """
        if one.text is None:
            found = importance_of_weights(self._load(one.dtype), str(one.criterion))
            return {IMPORTANCE: pd.DataFrame(found)}
        counts = SampleCounts(**one.counts)
        sequences = SequenceSettings(**one.sequences, n_samples=counts.largest)
        if one.criterion is None:
            return self._priors(one.text, counts, sequences, one.dtype)
        return self._importance(one, one.text, one.criterion, sequences)

    def _importance(self, one: Pass, text: str, criterion: str, sequences: SequenceSettings) -> dict[str, pd.DataFrame]:
        tokens = load_sequences(self._manifest, text, sequences)
        resources = self._resources
        settings = PassSettings(
            resources.token_budget or None, resources.layers_per_pass or None, resources.checkpointing
        )
        found = measure_importance(
            self._load(one.dtype),
            torch.from_numpy(tokens),
            SampleCounts(**one.counts).snapshots,
            criterion=criterion,
            settings=settings,
        )
        tables = {IMPORTANCE: pd.DataFrame(found.importance)}
        if GRADIENTS in one.outputs:
            tables[GRADIENTS] = pd.DataFrame(found.gradients)
        return tables

    def _priors(
        self, text: str, counts: SampleCounts, sequences: SequenceSettings, dtype: str
    ) -> dict[str, pd.DataFrame]:
        largest = n_prior_sequences(counts.largest, counts.prior_samples)
        tokens = load_sequences(self._manifest, text, replace(sequences, n_samples=largest))
        measured = measure_priors(
            self._load(dtype), torch.from_numpy(tokens), token_budget=self._resources.prior_token_budget
        )
        columns = [
            measured.columns(n_samples, n_prior_sequences(n_samples, counts.prior_samples))
            for n_samples in counts.snapshots
        ]
        joined = {column: np.concatenate([table[column] for table in columns]) for column in columns[0]}
        return {PRIORS: pd.DataFrame(joined)}

    def _load(self, dtype: str) -> PreTrainedModel:
        if self._model is None:
            resources = self._resources
            self._model = load_from_manifest(self._manifest, dtype=dtype, device=resources.device, gpus=resources.gpus)
        return self._model
