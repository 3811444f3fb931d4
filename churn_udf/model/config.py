"""Shape of a churn model, as stored in ``model.json`` beside its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.errors import damage_named

TEXT_GROUP = "behaviour_text"
"""Name of the text in lists of feature groups; always the last."""
FUSED, TEXT, NUMERIC = "fused", "text", "numeric"
MODALITIES = (FUSED, TEXT, NUMERIC)
"""What a model reads; what it does not read is always shown as its training mean."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything needed to build a ``ChurnClassifier`` before its weights are read."""

    encoder: Mapping[str, Any]
    """A transformers configuration as a mapping; ``model_type`` picks the family."""
    features: tuple[FeatureSpec, ...]
    """Numeric inputs in order."""
    num_bins: int = 16
    """Bins of the piecewise-linear encoding of each feature."""
    numeric_dim: int = 96
    """Width of the numeric branch."""
    text_dim: int = 64
    """Width that the pooled text is projected to."""
    fusion_dim: int = 64
    """Width of the layer that reads both branches."""
    dropout: float = 0.1
    """Dropout of the branches and the fusion layer, in [0, 1)."""
    max_tokens: int = 128
    """Longest input in tokens, special tokens counted."""
    max_review_tokens: int = 40
    """Tokens of ``max_tokens`` that reviews may take when the behaviour needs the rest."""
    adapter: Mapping[str, Any] | None = None
    """An adapter that could not be merged into the encoder; see ``encoder.attach_adapter``."""
    modality: str = FUSED
    """One of ``MODALITIES``."""

    def __post_init__(self) -> None:
        """Check the choice: a misspelt modality must not become the default."""
        if self.modality not in MODALITIES:
            raise ValueError(f"modality {self.modality!r}; allowed: {', '.join(MODALITIES)}")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Numeric inputs in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def groups(self) -> tuple[str, ...]:
        """Feature groups in order of first appearance, without the text."""
        return tuple(dict.fromkeys(feature.group for feature in self.features))

    def to_json(self) -> str:
        """Return the text of ``model.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Parse ``model.json``.

        Raises:
            BundleIntegrityError: Not such a file.
        """
        with damage_named("model.json"):
            values = json.loads(text)
            values["features"] = tuple(FeatureSpec(**item) for item in values["features"])
            config = cls(**values)
        return config
