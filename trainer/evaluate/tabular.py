"""Fitting the models that read features alone: logistic regression and gradient-boosted trees.

A recipe is chosen once, on training and validation rows, and can then be fitted again on any
rows: that is how a model learns from the newest labels without being chosen on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from churn_udf.model.linear import LinearModel
from trainer.evaluate.arrays import AnyArray, FloatArray, as_labels
from trainer.evaluate.base_rates import shifted_log_loss
from trainer.evaluate.linear import fit_logistic
from trainer.evaluate.preprocessing import fit_linear_inputs

LogitsOf = Callable[[FloatArray], FloatArray]

MAX_LINEAR_ROWS = 100_000  # beyond it a linear model learns nothing more

_RIDGES_PER_ROW = (1e-3, 1e-2, 1e-1)
_LIGHTGBM_PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "metric": "none",
    "learning_rate": 0.03,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
    "feature_pre_filter": False,  # the shapes share one data set
}
# Many rows of few users (weekly cutoffs, long horizon) need far smaller trees than many users do.
# The first shape is the sturdiest on validation (docs/experiment_log.md); another one must be
# clearly better to be taken.
_LIGHTGBM_SHAPES: dict[str, dict[str, Any]] = {
    "medium": {"num_leaves": 8, "min_data_in_leaf": 200, "feature_fraction": 0.2},
    "cautious": {"num_leaves": 4, "min_data_in_leaf": 200, "feature_fraction": 0.1},
    "rich": {"num_leaves": 15, "min_data_in_leaf": 50, "feature_fraction": 0.6},
}
_SHAPE_MARGIN = 5e-4  # nats per row
_LIGHTGBM_ROUNDS = 1500
_LIGHTGBM_MIN_ROUNDS = 100  # fewer leave the logits too small to be trusted after a refit
_LIGHTGBM_PATIENCE = 75


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineRows:
    """Rows of one split."""

    features_NF: FloatArray
    """(N, F) float64, NaN = unknown."""
    labels_N: AnyArray
    """(N,) 0/1."""
    user_ids_N: AnyArray
    """(N,) user ids; calibration keeps the rows of a user together."""
    weights_N: FloatArray | None = None
    """(N,) how much each row counts in a fit; None: all the same."""

    def __post_init__(self) -> None:
        """Check that the arrays fit together."""
        num_rows = as_labels(self.labels_N).size
        if self.features_NF.ndim != 2 or self.features_NF.shape[0] != num_rows:
            raise ValueError(f"features must be ({num_rows}, F); got {self.features_NF.shape}")
        if self.user_ids_N.shape != (num_rows,):
            raise ValueError(f"user ids must be ({num_rows},); got {self.user_ids_N.shape}")
        if self.weights_N is not None and self.weights_N.shape != (num_rows,):
            raise ValueError(f"weights must be ({num_rows},); got {self.weights_N.shape}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A fitted model, uncalibrated."""

    logits_of: LogitsOf
    """(N, F) features -> (N,) raw logits."""
    model_text: str | None = None
    """What a bundle stores of it: LightGBM's text, or JSON of a linear model."""
    importance: list[tuple[str, float]] = field(default_factory=list)
    """(feature, share of the total, [0, 1]), largest first; empty where there is none."""
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-ready facts: columns used, rounds, and so on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A model with its settings chosen: how to fit it on any rows."""

    fit: Callable[[BaselineRows], Fitted]
    chosen: Fitted | None = None
    """The fit on the training rows, where choosing has made it already."""


def choose_linear(
    train: BaselineRows,
    valid: BaselineRows,
    columns: Sequence[int],
    feature_names: Sequence[str],
    seed: int,
) -> Recipe:
    """Choose the ridge of a logistic regression by validation log loss at the best intercept."""
    names = tuple(feature_names[column] for column in columns)

    def fit(rows: BaselineRows, ridge: float) -> Fitted:
        drawn = np.arange(rows.features_NF.shape[0])
        if drawn.size > MAX_LINEAR_ROWS:
            generator = np.random.default_rng(seed)
            drawn = np.sort(generator.choice(drawn.size, MAX_LINEAR_ROWS, replace=False))
        features_NF = rows.features_NF[np.ix_(drawn, np.asarray(columns, dtype=np.int64))]
        inputs = fit_linear_inputs(features_NF)
        design_ND = inputs.apply(features_NF)
        ridge_D = np.full(design_ND.shape[1], max(1.0, ridge * drawn.size))
        ridge_D[0] = 1e-6
        weights_N = None if rows.weights_N is None else rows.weights_N[drawn]
        coefficients_D = fit_logistic(
            design_ND, as_labels(rows.labels_N)[drawn], ridge_D, weights_N=weights_N
        )
        model = LinearModel(columns=names, inputs=inputs, coefficients_D=coefficients_D)
        return Fitted(
            logits_of=lambda features: model.logits(features, feature_names),
            model_text=model.to_json(),
            importance=_shares(names, np.abs(coefficients_D[1 : len(names) + 1])),
            facts={
                "num_columns": len(names),
                "num_rows": int(drawn.size),
                "ridge_per_row": ridge,
            },
        )

    fits = {ridge: fit(train, ridge) for ridge in _RIDGES_PER_ROW}
    best = min(fits, key=lambda ridge: _loss(fits[ridge], valid))
    return Recipe(fit=lambda rows: fit(rows, best), chosen=fits[best])


def choose_lightgbm(
    train: BaselineRows, valid: BaselineRows, feature_names: Sequence[str], seed: int
) -> Recipe:
    """Choose shape and number of trees by validation log loss at the best intercept."""
    import lightgbm  # costs a second

    dataset = _dataset(train, feature_names)
    watched = dataset.create_valid(_finite_or_nan(valid.features_NF), as_labels(valid.labels_N))
    fits: dict[str, tuple[float, Any]] = {}
    for shape in _LIGHTGBM_SHAPES:
        booster = lightgbm.train(
            _lightgbm_settings(shape, train.features_NF.shape[0], seed),
            dataset,
            num_boost_round=_LIGHTGBM_ROUNDS,
            valid_sets=[watched],
            feval=_shifted_metric,
            callbacks=[lightgbm.early_stopping(_LIGHTGBM_PATIENCE, verbose=False)],
        )
        fits[shape] = (float(booster.best_score["valid_0"]["shifted_log_loss"]), booster)
    lowest = min(loss for loss, _ in fits.values())
    best = next(shape for shape, (loss, _) in fits.items() if loss <= lowest + _SHAPE_MARGIN)
    rounds = max(int(fits[best][1].best_iteration), _LIGHTGBM_MIN_ROUNDS)

    def fit(rows: BaselineRows) -> Fitted:
        booster = lightgbm.train(
            _lightgbm_settings(best, rows.features_NF.shape[0], seed),
            _dataset(rows, feature_names),
            num_boost_round=rounds,
        )
        gains_F = booster.feature_importance(importance_type="gain")

        def logits_of(features_NF: FloatArray) -> FloatArray:
            scores = booster.predict(_finite_or_nan(features_NF), raw_score=True, num_threads=1)
            return np.asarray(scores, dtype=np.float64)

        return Fitted(
            logits_of=logits_of,
            model_text=str(booster.model_to_string()),
            importance=_shares(feature_names, np.asarray(gains_F, dtype=np.float64)),
            facts={
                "shape": best,
                "rounds": rounds,
                "num_rows": rows.features_NF.shape[0],
                "version": str(lightgbm.__version__),
            },
        )

    return Recipe(fit=fit)


def _lightgbm_settings(shape: str, num_rows: int, seed: int) -> dict[str, Any]:
    """Return LightGBM's parameters for a shape; leaves may be smaller where rows are few."""
    settings = _LIGHTGBM_SHAPES[shape]
    smallest_leaf = int(np.clip(num_rows // 50, 5, settings["min_data_in_leaf"]))
    return _LIGHTGBM_PARAMETERS | settings | {"seed": seed, "min_data_in_leaf": smallest_leaf}


def _dataset(rows: BaselineRows, feature_names: Sequence[str]) -> Any:
    """Return LightGBM's form of rows."""
    import lightgbm

    return lightgbm.Dataset(
        _finite_or_nan(rows.features_NF),
        as_labels(rows.labels_N),
        weight=rows.weights_N,
        feature_name=list(feature_names),
        params={"verbosity": -1, "feature_pre_filter": False},
    )


def _shifted_metric(scores_N: FloatArray, dataset: Any) -> tuple[str, float, bool]:
    """Judge a round by log loss at the best intercept; LightGBM hands over probabilities."""
    bounded_N = np.clip(np.asarray(scores_N, dtype=np.float64), 1e-9, 1.0 - 1e-9)
    logits_N = np.log(bounded_N) - np.log1p(-bounded_N)
    labels_N = np.asarray(dataset.get_label(), dtype=np.float64)
    return "shifted_log_loss", shifted_log_loss(logits_N, labels_N), False


def _loss(fitted: Fitted, rows: BaselineRows) -> float:
    """Return the log loss of a fit at the best intercept."""
    return shifted_log_loss(fitted.logits_of(rows.features_NF), as_labels(rows.labels_N))


def _finite_or_nan(features_NF: FloatArray) -> FloatArray:
    """Treat infinities as unknown, as the linear models do."""
    return np.where(np.isfinite(features_NF), features_NF, np.nan)


def _shares(names: Sequence[str], strengths: FloatArray) -> list[tuple[str, float]]:
    """Pair names with their share of the total, largest first, names breaking ties."""
    total = float(strengths.sum()) or 1.0
    pairs = [(name, float(value) / total) for name, value in zip(names, strengths, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
