"""The baselines that a model has to beat, on the same rows and features.

Every one is chosen on training and validation rows, fitted again on every label that was known
at the test cutoff, calibrated on validation rows that it had not learned from, and only then
applied to the test rows: base rate, recency rule, RFM logistic regression, logistic regression on
all features, BG/NBD, and LightGBM. A baseline tuned worse than the model would flatter it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from churn_udf.calibration import Calibrator
from churn_udf.model.bg_nbd import SCORES
from trainer.errors import ConfigError
from trainer.evaluate.arrays import FloatArray, as_labels
from trainer.evaluate.base_rates import base_rate_offset, shifted_log_loss
from trainer.evaluate.bg_nbd import BgNbdFit, fit_bg_nbd
from trainer.evaluate.calibration import CALIBRATION_KINDS, fit_calibrator
from trainer.evaluate.linear import fit_logistic
from trainer.evaluate.tabular import (
    BaselineRows,
    Fitted,
    LogitsOf,
    Recipe,
    choose_lightgbm,
    choose_linear,
)

BASELINE_TITLES = {
    "base_rate": "Base rate for everyone",
    "recency": "Recency rule",
    "bg_nbd": "BG/NBD",
    "rfm_logistic": "RFM logistic regression",
    "logistic": "Logistic regression, all features",
    "lightgbm": "LightGBM, all features",
}
_LOG_ODDS = ("rfm_logistic", "logistic", "lightgbm")
"""Baselines that are models of the log odds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RfmColumns:
    """Which feature columns hold recency, frequency and monetary value."""

    recency: str = "days_since_active"
    """Days since the last qualifying activity."""
    frequency: str = "active_day_count_365d"
    """Days with qualifying activity in the longest window."""
    monetary: str = "amount_365d"
    """Amount spent in the longest window; may be unknown for everybody."""

    def positions(self, feature_names: Sequence[str]) -> tuple[int, int, int]:
        """Return the column numbers of the three.

        Raises:
            ConfigError: If a column is not among the features.
        """
        wanted = {
            "recency": self.recency,
            "frequency": self.frequency,
            "monetary": self.monetary,
        }
        missing = {role: name for role, name in wanted.items() if name not in feature_names}
        if missing:
            raise ConfigError(
                f"RFM columns {missing} are not among the {len(feature_names)} features "
                f"({', '.join(feature_names)}): name three of these in RfmColumns"
            )
        first, second, third = (list(feature_names).index(name) for name in wanted.values())
        return first, second, third


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineResult:
    """A fitted, calibrated baseline and what it says about validation and test rows."""

    name: str
    """Key of `BASELINE_TITLES`."""
    title: str
    """For people."""
    recipe: Recipe
    """How to fit it once more on other rows."""
    calibrator: Calibrator
    """Fitted on the validation rows."""
    calibration: dict[str, Any]
    """Table of `fit_calibrator`."""
    logits_of: LogitsOf
    """(N, F) features -> (N,) raw logits, by the fit that judged the test rows."""
    valid_logits: FloatArray
    """(N,) raw logits of the validation rows, by the fit on training rows alone."""
    valid_probabilities: FloatArray
    """(N,) calibrated."""
    test_logits: FloatArray
    """(N,) raw logits of the test rows."""
    test_probabilities: FloatArray
    """(N,) calibrated."""
    model_text: str | None = None
    """What a bundle can store of it: LightGBM's text or JSON; None for the others."""
    importance: list[tuple[str, float]] = field(default_factory=list)
    """(feature, share of the total, [0, 1]), largest first; empty where there is none."""
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-ready facts: columns used, rounds, and so on."""


def fit_baselines(
    train: BaselineRows,
    valid: BaselineRows,
    test: BaselineRows,
    feature_names: Sequence[str],
    rfm: RfmColumns | None = None,
    seed: int = 0,
    names: Sequence[str] = tuple(BASELINE_TITLES),
    progress: Callable[[str], None] | None = None,
    *,
    refit: BaselineRows | None = None,
    base_rate: str = "newest",
    horizon_days: float = 30.0,
    gap_days: float = 0.0,
) -> dict[str, BaselineResult]:
    """Fit the baselines; the test rows are only predicted, never looked at.

    Args:
        train: Rows to fit on, both classes present.
        valid: Rows to choose settings and calibrate on.
        test: Rows to predict.
        feature_names: (F,) names of the feature columns.
        rfm: Which columns are recency, frequency and monetary value.
        seed: Same seed, same data: same result.
        names: Which baselines, of `BASELINE_TITLES`.
        progress: Called with the title of each baseline before it is fitted.
        refit: Rows to fit on once settings are chosen, before the test rows are predicted: every
            label known then; None keeps the fit on the training rows.
        base_rate: What base rate to expect, of `BASE_RATE_KINDS`.
        horizon_days: Days that a label looks at, for BG/NBD.
        gap_days: Days between a cutoff and its horizon, for BG/NBD.

    Returns:
        {name: result}, in the order of `names`.

    Raises:
        ConfigError: If a name is unknown or an RFM column is missing.
        ValueError: If arrays do not fit together or the training rows hold one class only.
    """
    unknown = sorted(set(names) - set(BASELINE_TITLES))
    if unknown:
        raise ConfigError(f"baselines: got {unknown}; allowed: {', '.join(BASELINE_TITLES)}")
    for split in (train, valid, test):
        if split.features_NF.shape[1] != len(feature_names):
            raise ValueError(
                f"features have {split.features_NF.shape[1]} columns, "
                f"but {len(feature_names)} names are given"
            )
    if np.unique(as_labels(train.labels_N)).size < 2:
        raise ValueError("the training rows hold one class only: no baseline can be fitted")
    columns = (rfm or RfmColumns()).positions(feature_names)
    every_column = range(len(feature_names))
    choosers: dict[str, Callable[[], Recipe]] = {
        "base_rate": lambda: Recipe(fit=lambda rows: _fit_base_rate(valid)),
        "recency": lambda: Recipe(fit=lambda rows: _fit_recency(rows, columns[0], feature_names)),
        "bg_nbd": lambda: _choose_bg_nbd(train, valid, feature_names, horizon_days, gap_days, seed),
        "rfm_logistic": lambda: choose_linear(train, valid, columns, feature_names, seed),
        "logistic": lambda: choose_linear(train, valid, every_column, feature_names, seed),
        "lightgbm": lambda: choose_lightgbm(train, valid, feature_names, seed),
    }
    results = {}
    for name in names:
        if progress is not None:
            progress(BASELINE_TITLES[name])
        recipe = choosers[name]()
        first = recipe.chosen or recipe.fit(train)
        last = first if refit is None else recipe.fit(refit)
        results[name] = _calibrated(name, recipe, first, last, valid, test, seed, base_rate)
    return results


def _calibrated(
    name: str,
    recipe: Recipe,
    first: Fitted,
    last: Fitted,
    valid: BaselineRows,
    test: BaselineRows,
    seed: int,
    base_rate: str,
) -> BaselineResult:
    """Calibrate on the validation rows and predict both splits."""
    valid_logits = first.logits_of(valid.features_NF)
    test_logits = last.logits_of(test.features_NF)
    calibrator, table = fit_calibrator(
        valid_logits, valid.labels_N, valid.user_ids_N, kinds=_calibrators_of(name), seed=seed
    )
    kind = base_rate if name in _LOG_ODDS else "newest"  # the others' logits are no log odds
    labels_N = as_labels(valid.labels_N)
    offset = base_rate_offset(kind, calibrator, valid_logits, labels_N, test_logits)
    shifted = Calibrator(kind=calibrator.kind, params=calibrator.params, offset=offset)
    return BaselineResult(
        name=name,
        title=BASELINE_TITLES[name],
        recipe=recipe,
        calibrator=shifted,
        calibration=table,
        logits_of=last.logits_of,
        valid_logits=valid_logits,
        valid_probabilities=calibrator.apply(valid_logits),
        test_logits=test_logits,
        test_probabilities=shifted.apply(test_logits),
        model_text=last.model_text,
        importance=last.importance,
        facts=last.facts,
    )


def _calibrators_of(name: str) -> tuple[str, ...]:
    """Return the kinds to try; Platt alone keeps the ranking of a rule as it is."""
    only = {"base_rate": ("identity",), "recency": ("platt",)}
    return only.get(name, CALIBRATION_KINDS)


def _fit_base_rate(valid: BaselineRows) -> Fitted:
    """Give everyone the newest churn rate known, that of the validation rows."""
    labels_N = as_labels(valid.labels_N)
    rate = (labels_N.sum() + 0.5) / (labels_N.size + 1.0)
    logit = float(np.log(rate) - np.log1p(-rate))
    return Fitted(
        logits_of=lambda features_NF: np.full(features_NF.shape[0], logit),
        facts={"base_rate": float(rate)},
    )


def _fit_recency(train: BaselineRows, column: int, feature_names: Sequence[str]) -> Fitted:
    """Rank by days since the last qualifying event; never seen ranks with the longest known."""
    days_N = train.features_NF[:, column]
    known = days_N[np.isfinite(days_N)]
    longest = float(known.max()) if known.size else 0.0

    def logits_of(features_NF: FloatArray) -> FloatArray:
        days = np.where(np.isfinite(features_NF[:, column]), features_NF[:, column], longest)
        return np.log1p(np.maximum(days, 0.0))

    return Fitted(logits_of=logits_of, facts={"columns": [feature_names[column]]})


def _choose_bg_nbd(
    train: BaselineRows,
    valid: BaselineRows,
    feature_names: Sequence[str],
    horizon_days: float,
    gap_days: float,
    seed: int,
) -> Recipe:
    """Choose the score of BG/NBD by validation log loss at the best line; fits read no label."""

    def fit(rows: BaselineRows) -> BgNbdFit:
        return fit_bg_nbd(
            rows.features_NF,
            rows.user_ids_N,
            feature_names,
            horizon_days=horizon_days,
            gap_days=gap_days,
            seed=seed,
        )

    def fitted(found: BgNbdFit) -> Fitted:
        return Fitted(
            logits_of=found.logits_of,
            model_text=found.model.to_json(),
            facts={**found.facts, "score": found.model.score},
        )

    def loss(found: BgNbdFit) -> float:
        logits_N = found.logits_of(valid.features_NF)
        design_N2 = np.column_stack([np.ones(logits_N.size), logits_N])
        labels_N = as_labels(valid.labels_N)
        line = fit_logistic(design_N2, labels_N, np.array([1e-6, 1.0]))
        return shifted_log_loss(logits_N * line[1], labels_N)

    first = fit(train)
    best = min(SCORES, key=lambda score: loss(first.by(score)))
    return Recipe(fit=lambda rows: fitted(fit(rows).by(best)), chosen=fitted(first.by(best)))
