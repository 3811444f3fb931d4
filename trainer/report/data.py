"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

#: (value, low, high); `trainer.evaluate.Interval` is one.
IntervalLike = Sequence[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureImportance:
    """How much one feature matters."""

    name: str
    """Column name."""
    description: str
    """One sentence; may be empty."""
    value: float
    """Any non-negative scale; drawn relative to the largest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """One split of the data."""

    name: str
    """train, valid or test."""
    cutoffs: Sequence[str]
    """ISO dates."""
    num_rows: int
    """Examples."""
    num_users: int
    """Distinct users."""
    base_rate: float
    """Share churned, [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitFacts:
    """One fit of the model: the same recipe on newer labels each time."""

    name: str
    """first, refit or final."""
    purpose: str
    """What it is used for."""
    num_rows: int
    """Labelled rows that it learned from."""
    last_cutoff: str
    """ISO date of the newest of them."""
    is_judged: bool = False
    """Whether the test rows were predicted with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """Everything that `render_report` shows; names and texts may hold any characters."""

    title: str
    """Heading of the page."""
    model_name: str
    """Key of the judged model in `probabilities` and `metrics`; every other key is a baseline or
    one of `alternatives`."""
    labels: npt.ArrayLike
    """(N,) 0/1, the test rows."""
    probabilities: Mapping[str, npt.ArrayLike]
    """{model: (N,) calibrated}, in the order to show them."""
    metrics: Mapping[str, Mapping[str, IntervalLike]]
    """{model: {metric: (value, low, high)}} on the test rows, from `bootstrap_intervals`."""
    differences: Mapping[str, Mapping[str, IntervalLike]]
    """{baseline: {metric: (value, low, high)}} of `paired_difference`; positive: model better."""
    threshold: float
    """The model's flagging threshold."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """{model: name for people}; the key itself where missing."""
    alternatives: Sequence[str] = ()
    """Keys that are no rivals: kinds of the same run that were not chosen, or the model itself
    under its name as a baseline. The verdict is not about them."""
    ensemble: Mapping[str, Any] = field(default_factory=dict)
    """Table of `choose_ensemble`: chosen, reason, validation loss and weights by kind."""
    fits: Sequence[FitFacts] = ()
    """In the order in which they were made; the last one scores."""
    base_rate_notes: Sequence[str] = ()
    """What churn rate is expected, at the test and at scoring."""
    is_test_later: bool = True
    """Whether the test rows are of a later time than the labels that the judged fit learned."""
    training_note: str = ""
    """Of what the training history is."""
    confidence: float = 0.95
    """Width of the intervals, (0, 1)."""
    splits: Sequence[SplitFacts] = ()
    """Train, validation and test."""
    tiers: Sequence[Mapping[str, Any]] = ()
    """[{"name", "min_probability"}], highest first, from `tier_bounds`."""
    threshold_reason: str = ""
    """How the threshold was chosen."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Table of `fit_calibrator` for the model."""
    history: Sequence[Mapping[str, Any]] = ()
    """Training log: stage, step and/or epoch, train_loss, valid_loss, valid_auroc, ..."""
    feature_importance: Sequence[FeatureImportance] = ()
    """Largest first."""
    importance_source: str = ""
    """Which model the importance is of, and how it was measured."""
    run_facts: Mapping[str, Any] = field(default_factory=dict)
    """Run id, when, how long, commands."""
    data_facts: Mapping[str, Any] = field(default_factory=dict)
    """Snapshot id, window lengths, vars."""
    model_facts: Mapping[str, Any] = field(default_factory=dict)
    """Encoder, parameters, vocabulary, versions, seed, bundle id."""
    warnings: Sequence[str] = ()
    """Shown near the top."""
    slices: Mapping[str, Any] = field(default_factory=dict)
    """Metrics by segment of the test rows, from `trainer.fairness.judge_segments`."""
    reliability: Mapping[str, Any] = field(default_factory=dict)
    """Reliability by split and cutoff, likewise."""

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            ValueError: If the model is missing somewhere, or arrays differ in length.
        """
        for name, models in (("probabilities", self.probabilities), ("metrics", self.metrics)):
            if self.model_name not in models:
                raise ValueError(f"{name} lack the model {self.model_name!r}: got {sorted(models)}")
        if set(self.probabilities) != set(self.metrics):
            raise ValueError(
                f"probabilities are of {sorted(self.probabilities)} "
                f"but metrics of {sorted(self.metrics)}"
            )
        named = {"differences": set(self.differences), "alternatives": set(self.alternatives)}
        for name, given in named.items():
            unknown = given - set(self.probabilities)
            if unknown:
                raise ValueError(f"{name} name models without probabilities: {sorted(unknown)}")
        shape = np.shape(self.labels)
        for model, values in self.probabilities.items():
            if np.shape(values) != shape:
                raise ValueError(
                    f"probabilities of {model!r} have shape {np.shape(values)}, labels {shape}"
                )

    @property
    def baseline_names(self) -> list[str]:
        """Every model but the judged one, in order, alternatives too."""
        return [name for name in self.probabilities if name != self.model_name]

    @property
    def confidence_text(self) -> str:
        """The width of the intervals in per cent."""
        return f"{100.0 * self.confidence:g} %"

    def title_of(self, model: str) -> str:
        """Return the name of a model for people."""
        return self.titles.get(model, model)
