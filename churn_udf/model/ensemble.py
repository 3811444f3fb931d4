"""Ensembles: which members of a bundle score, and how their logits become one.

    logit = sum(weight x logit of member)

``bert`` and ``gbm`` are ensembles of one. ``ensemble.json`` holds kind and weights; a member that
is stored but has no weight is not even loaded. The intercept is the calibrator's.

Shape suffixes: B rows, F features, G groups.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn_udf.contracts.bundle import ENSEMBLE_FILE, MEMBER_FILES, FeatureSpec
from churn_udf.errors import BundleIntegrityError, damage_named
from churn_udf.model.bg_nbd import BgNbdModel
from churn_udf.model.config import TEXT_GROUP
from churn_udf.model.linear import LinearModel
from churn_udf.model.output import ModelOutput
from churn_udf.model.precision import AUTO
from churn_udf.model.trees import TreeModel
from churn_udf.tokenization import TokenBatch

FloatArray = npt.NDArray[np.float64]
BERT = "bert"
GBM = "gbm"
STACK = "stack"
KINDS = (BERT, GBM, STACK)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Content of ``ensemble.json``."""

    kind: str
    """``bert``, ``gbm`` or ``stack``."""
    weights: Mapping[str, float]
    """Member -> weight, above 0; the members are keys of ``MEMBER_FILES``."""

    def __post_init__(self) -> None:
        """Check kind and weights.

        Raises:
            BundleIntegrityError: Unknown kind or member, or a weight that is not above 0.
        """
        if self.kind not in KINDS:
            raise BundleIntegrityError(f"ensemble kind {self.kind!r}; allowed: {', '.join(KINDS)}")
        unknown = sorted(set(self.weights) - set(MEMBER_FILES))
        if unknown or not self.weights:
            raise BundleIntegrityError(
                f"ensemble members {sorted(self.weights)}; allowed: one or more of "
                f"{', '.join(MEMBER_FILES)}"
            )
        if self.kind != STACK and set(self.weights) != {self.kind}:
            raise BundleIntegrityError(
                f"ensemble {self.kind} has members {sorted(self.weights)}; allowed: {self.kind}"
            )
        if not all(math.isfinite(weight) and weight > 0.0 for weight in self.weights.values()):
            raise BundleIntegrityError(
                f"ensemble weights {dict(self.weights)}; allowed: finite numbers above 0"
            )

    def combine(self, logits: Mapping[str, FloatArray]) -> FloatArray:
        """Return (B,) logits from those of the members (B,) each."""
        total = np.zeros(len(next(iter(logits.values()))))
        for name, weight in self.weights.items():
            total = total + weight * logits[name]
        return total

    def to_json(self) -> str:
        """Return the text of ``ensemble.json``."""
        document = {"kind": self.kind, "weights": dict(self.weights)}
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Ensemble:
        """Parse ``ensemble.json``.

        Raises:
            BundleIntegrityError: Not such a file.
        """
        with damage_named(ENSEMBLE_FILE):
            document = json.loads(text)
            weights = {str(name): float(value) for name, value in document["weights"].items()}
            ensemble = cls(kind=document["kind"], weights=weights)
        return ensemble


class Member(Protocol):
    """One model of an ensemble."""

    def tokens(self, behavior_texts: pa.Array, review_texts: pa.Array) -> TokenBatch | None:
        """Return the tokens of B texts, none if the member reads no text."""

    def run(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        *,
        with_effects: bool = True,
        tokens: TokenBatch | None = None,
    ) -> ModelOutput:
        """Compute logits (B,) and effects (B, G) of B rows; effects (B, 0) if not wanted."""


class TabularMember:
    """A member that reads the features alone.

    Args:
        model: Trees, a linear model or BG/NBD.
        features: All features in model order, with their groups.
    """

    def __init__(
        self, model: TreeModel | LinearModel | BgNbdModel, features: Sequence[FeatureSpec]
    ) -> None:
        self._model = model
        self._names = [feature.name for feature in features]
        groups = groups_of(features)
        self._group_FG = np.zeros((len(features), len(groups)))
        for index, feature in enumerate(features):
            self._group_FG[index, groups.index(feature.group)] = 1.0

    def tokens(self, behavior_texts: pa.Array, review_texts: pa.Array) -> None:
        """Return nothing: no text is read."""

    def run(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        *,
        with_effects: bool = True,
        tokens: TokenBatch | None = None,
    ) -> ModelOutput:
        """Compute logits and effects; the texts are not read."""
        is_tree = isinstance(self._model, TreeModel)
        arguments = (features,) if is_tree else (features, self._names)
        logits = self._model.logits(*arguments)
        if not with_effects:
            return ModelOutput(logits, np.empty((len(features), 0)))
        return ModelOutput(logits, self._model.contributions(*arguments) @ self._group_FG)


class EnsembleRunner:
    """The members of an ensemble behind one runner; not thread-safe.

    Args:
        ensemble: Weights.
        members: Name -> member, for every name that has a weight.
        features: All features in model order.
    """

    def __init__(
        self, ensemble: Ensemble, members: Mapping[str, Member], features: Sequence[FeatureSpec]
    ) -> None:
        self.ensemble = ensemble
        self.members = {name: members[name] for name in ensemble.weights}
        self.feature_names = tuple(feature.name for feature in features)
        self.feature_groups = groups_of(features)

    @classmethod
    def load(
        cls,
        directory: Path,
        features: Sequence[FeatureSpec],
        *,
        device: str = "auto",
        precision: str = AUTO,
    ) -> EnsembleRunner:
        """Load what has a weight from a bundle or model directory.

        Args:
            directory: With ``ensemble.json`` and the files of its members; a directory without
                it holds ``bert`` alone.
            features: All features in model order.
            device: For the encoder: ``auto``, ``cpu``, ``cuda``, ...
            precision: For the encoder: ``auto`` (what the bundle recorded as checked) or ``fp32``.

        Raises:
            BundleIntegrityError: A file is missing or damaged, or reads other features.
            ScoringError: The device does not exist, or another ``precision``.
        """
        ensemble = read_ensemble(directory)
        members = {
            name: _load_member(name, directory, features, device, precision)
            for name in ensemble.weights
        }
        return cls(ensemble, members, features)

    def tokens(self, behavior_texts: pa.Array, review_texts: pa.Array) -> TokenBatch | None:
        """Return the texts' tokens for ``run``, none if no member reads them; needs no lock."""
        encoder = self.members.get(BERT)
        return None if encoder is None else encoder.tokens(behavior_texts, review_texts)

    def run(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        *,
        with_effects: bool = True,
        tokens: TokenBatch | None = None,
    ) -> ModelOutput:
        """Compute logits and the effect of each feature group.

        Args:
            behavior_texts: (B,) strings, no nulls.
            review_texts: (B,) strings, no nulls; empty where there is no review.
            features: (B, F) float64 in the order of ``feature_names``, NaN where unknown.
            with_effects: Whether effects are wanted; without, ``group_effects`` is (B, 0).
            tokens: What ``tokens`` made of the texts, where that was done before.
        """
        num_groups = len(self.feature_groups) if with_effects else 0
        logits, effects = {}, np.zeros((len(features), num_groups))
        for name, member in self.members.items():
            output = member.run(
                behavior_texts, review_texts, features, with_effects=with_effects, tokens=tokens
            )
            logits[name] = output.logits
            effects += self.ensemble.weights[name] * output.group_effects
        return ModelOutput(self.ensemble.combine(logits), effects)


def groups_of(features: Sequence[FeatureSpec]) -> tuple[str, ...]:
    """Return the groups in order of first appearance, the text last."""
    return (*dict.fromkeys(feature.group for feature in features), TEXT_GROUP)


def read_ensemble(directory: Path) -> Ensemble:
    """Return the ensemble of a bundle or model directory; ``bert`` where no file says otherwise.

    Raises:
        BundleIntegrityError: The file is damaged.
    """
    file = directory / ENSEMBLE_FILE
    if not file.is_file():
        return Ensemble(kind=BERT, weights={BERT: 1.0})
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleIntegrityError(
            f"{file} cannot be read ({error}); restore the bundle or run `churn-train run`"
        ) from error
    return Ensemble.from_json(text)


def _load_member(
    name: str, directory: Path, features: Sequence[FeatureSpec], device: str, precision: str
) -> Member:
    """Load one member."""
    if name == BERT:
        from churn_udf.model.runner import ModelRunner

        runner = ModelRunner.load(directory, device=device, precision=precision)
        names = tuple(feature.name for feature in features)
        if runner.feature_names != names:
            raise BundleIntegrityError(
                f"{directory}: the encoder's model reads {len(runner.feature_names)} features and "
                f"they are not the {len(names)} of its manifest; train a new model with "
                "`churn-train run`"
            )
        return runner
    file = directory / MEMBER_FILES[name]
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleIntegrityError(
            f"{file} cannot be read ({error}), but {ENSEMBLE_FILE} gives it a weight; restore the "
            "bundle or run `churn-train run`"
        ) from error
    known = [feature.name for feature in features]
    if name == GBM:
        return TabularMember(TreeModel(text, known, file=str(file)), features)
    kind = BgNbdModel if name == "bg_nbd" else LinearModel
    model = kind.from_json(text, file=str(file))
    missing = sorted(set(model.columns) - set(known))
    if missing:
        raise BundleIntegrityError(
            f"{file} reads {', '.join(missing)}, not among the {len(known)} features of the "
            "bundle; train a new model with `churn-train run`"
        )
    return TabularMember(model, features)
