"""The config of a study: one pydantic model per section. Unknown keys are errors and values are immutable."""

from espalier.config.load import load_study
from espalier.config.study import StudyConfig

__all__ = ["StudyConfig", "load_study"]
