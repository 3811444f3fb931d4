"""The baselines that a model has to beat, on the same rows and features.

Every one is fitted on the training rows, tuned and calibrated on the validation rows and only
then applied to the test rows: base rate, recency rule, RFM logistic regression, logistic
regression on all features, and LightGBM. A baseline tuned worse than the model would flatter it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from churn_udf.calibration import Calibrator, sigmoid
from trainer.errors import ConfigError
from trainer.evaluate.arrays import AnyArray, FloatArray, as_labels
from trainer.evaluate.calibration import CALIBRATION_KINDS, fit_calibrator
from trainer.evaluate.linear import fit_logistic
from trainer.evaluate.metrics import rank_rows, weighted_metrics
from trainer.evaluate.preprocessing import LinearInputs

LogitsOf = Callable[[FloatArray], FloatArray]

BASELINE_TITLES = {
    "base_rate": "Base rate for everyone",
    "recency": "Recency rule",
    "rfm_logistic": "RFM logistic regression",
    "logistic": "Logistic regression, all features",
    "lightgbm": "LightGBM, all features",
}
MAX_LINEAR_ROWS = 100_000  # beyond it a linear model learns nothing more

_RIDGES_PER_ROW = (1e-3, 1e-2, 1e-1)
_LIGHTGBM_PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "metric": ["auc"],  # ranks only: a base rate that moved until validation must not stop it
    "learning_rate": 0.03,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
# Many rows of few users (weekly cutoffs, long horizon) need far smaller trees than many users do:
# on Online Retail the first overfits by .02 AUROC, on Complete Journey the second is .001 behind.
_LIGHTGBM_SHAPES: dict[str, dict[str, Any]] = {
    "rich": {"num_leaves": 15, "min_data_in_leaf": 50, "feature_fraction": 0.6},
    "cautious": {"num_leaves": 4, "min_data_in_leaf": 200, "feature_fraction": 0.1},
}
_LIGHTGBM_ROUNDS = 1500
_LIGHTGBM_PATIENCE = 100


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
class BaselineRows:
    """Rows of one split."""

    features_NF: FloatArray
    """(N, F) float64, NaN = unknown."""
    labels_N: AnyArray
    """(N,) 0/1."""
    user_ids_N: AnyArray
    """(N,) user ids; calibration keeps the rows of a user together."""

    def __post_init__(self) -> None:
        """Check that the arrays fit together."""
        num_rows = as_labels(self.labels_N).size
        if self.features_NF.ndim != 2 or self.features_NF.shape[0] != num_rows:
            raise ValueError(f"features must be ({num_rows}, F); got {self.features_NF.shape}")
        if self.user_ids_N.shape != (num_rows,):
            raise ValueError(f"user ids must be ({num_rows},); got {self.user_ids_N.shape}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineResult:
    """A fitted, calibrated baseline and what it says about validation and test rows."""

    name: str
    """Key of `BASELINE_TITLES`."""
    title: str
    """For people."""
    calibrator: Calibrator
    """Fitted on the validation rows."""
    calibration: dict[str, Any]
    """Table of `fit_calibrator`."""
    logits_of: LogitsOf
    """(N, F) features -> (N,) raw logits."""
    valid_logits: FloatArray
    """(N,) raw logits of the validation rows."""
    valid_probabilities: FloatArray
    """(N,) calibrated."""
    test_logits: FloatArray
    """(N,) raw logits of the test rows."""
    test_probabilities: FloatArray
    """(N,) calibrated."""
    model_text: str | None = None
    """LightGBM's own text format; None for the others."""
    importance: list[tuple[str, float]] = field(default_factory=list)
    """(feature, share of the total, [0, 1]), largest first; empty where there is none."""
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-ready facts: columns used, rounds, and so on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """An uncalibrated baseline."""

    logits_of: LogitsOf
    kinds: tuple[str, ...] = CALIBRATION_KINDS
    model_text: str | None = None
    importance: list[tuple[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def fit_baselines(
    train: BaselineRows,
    valid: BaselineRows,
    test: BaselineRows,
    feature_names: Sequence[str],
    rfm: RfmColumns | None = None,
    seed: int = 0,
    names: Sequence[str] = tuple(BASELINE_TITLES),
    progress: Callable[[str], None] | None = None,
) -> dict[str, BaselineResult]:
    """Fit the baselines; the test rows are only predicted, never looked at.

    Args:
        train: Rows to fit on, both classes present.
        valid: Rows to stop early and calibrate on.
        test: Rows to predict.
        feature_names: (F,) names of the feature columns.
        rfm: Which columns are recency, frequency and monetary value.
        seed: Same seed, same data: same result.
        names: Which baselines, of `BASELINE_TITLES`.
        progress: Called with the title of each baseline before it is fitted.

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
    fitters: dict[str, Callable[[], _Fit]] = {
        "base_rate": lambda: _fit_base_rate(valid),
        "recency": lambda: _fit_recency(train, columns[0], feature_names),
        "rfm_logistic": lambda: _fit_linear(train, valid, columns, feature_names, seed),
        "logistic": lambda: _fit_linear(
            train, valid, range(len(feature_names)), feature_names, seed
        ),
        "lightgbm": lambda: _fit_lightgbm(train, valid, feature_names, seed),
    }
    results = {}
    for name in names:
        if progress is not None:
            progress(BASELINE_TITLES[name])
        results[name] = _calibrated(name, fitters[name](), valid, test, seed)
    return results


def _calibrated(
    name: str, fit: _Fit, valid: BaselineRows, test: BaselineRows, seed: int
) -> BaselineResult:
    """Calibrate on the validation rows and predict both splits."""
    valid_logits = fit.logits_of(valid.features_NF)
    test_logits = fit.logits_of(test.features_NF)
    calibrator, table = fit_calibrator(
        valid_logits, valid.labels_N, valid.user_ids_N, kinds=fit.kinds, seed=seed
    )
    return BaselineResult(
        name=name,
        title=BASELINE_TITLES[name],
        calibrator=calibrator,
        calibration=table,
        logits_of=fit.logits_of,
        valid_logits=valid_logits,
        valid_probabilities=calibrator.apply(valid_logits),
        test_logits=test_logits,
        test_probabilities=calibrator.apply(test_logits),
        model_text=fit.model_text,
        importance=fit.importance,
        facts=fit.facts,
    )


def _fit_base_rate(valid: BaselineRows) -> _Fit:
    """Give everyone the newest churn rate known, that of the validation rows."""
    labels_N = as_labels(valid.labels_N)
    rate = (labels_N.sum() + 0.5) / (labels_N.size + 1.0)
    logit = float(np.log(rate) - np.log1p(-rate))
    return _Fit(
        logits_of=lambda features_NF: np.full(features_NF.shape[0], logit),
        kinds=("identity",),
        facts={"base_rate": float(rate)},
    )


def _fit_recency(train: BaselineRows, column: int, feature_names: Sequence[str]) -> _Fit:
    """Rank by days since the last qualifying event; never seen ranks with the longest known."""
    days_N = train.features_NF[:, column]
    known = days_N[np.isfinite(days_N)]
    longest = float(known.max()) if known.size else 0.0

    def logits_of(features_NF: FloatArray) -> FloatArray:
        days = np.where(np.isfinite(features_NF[:, column]), features_NF[:, column], longest)
        return np.log1p(np.maximum(days, 0.0))

    # Platt alone keeps the rule's ranking as it is, while log days are no log odds.
    return _Fit(logits_of=logits_of, kinds=("platt",), facts={"columns": [feature_names[column]]})


def _fit_linear(
    train: BaselineRows,
    valid: BaselineRows,
    columns: Sequence[int],
    feature_names: Sequence[str],
    seed: int,
) -> _Fit:
    """Logistic regression on some columns, its ridge chosen on the validation rows."""
    chosen = list(columns)
    rows = np.arange(train.features_NF.shape[0])
    if rows.size > MAX_LINEAR_ROWS:
        drawn = np.random.default_rng(seed).choice(rows.size, MAX_LINEAR_ROWS, replace=False)
        rows = np.sort(drawn)
    features_NF = train.features_NF[rows][:, chosen]
    inputs = LinearInputs.fit(features_NF)
    design_ND = inputs.apply(features_NF)
    labels_N = as_labels(train.labels_N)[rows]
    valid_ND = inputs.apply(valid.features_NF[:, chosen])
    fits: dict[float, tuple[float, FloatArray]] = {}
    for ridge in _RIDGES_PER_ROW:
        ridge_D = np.full(design_ND.shape[1], max(1.0, ridge * rows.size))
        ridge_D[0] = 1e-6
        coefficients = fit_logistic(design_ND, labels_N, ridge_D)
        fits[ridge] = (_auroc(valid, valid_ND @ coefficients), coefficients)
    best = max(fits, key=lambda ridge: fits[ridge][0])
    coefficients_D = fits[best][1]
    strength_F = np.abs(coefficients_D[1 : len(chosen) + 1])
    return _Fit(
        logits_of=lambda features: inputs.apply(features[:, chosen]) @ coefficients_D,
        importance=_shares([feature_names[column] for column in chosen], strength_F),
        facts={"num_columns": len(chosen), "num_rows": int(rows.size), "ridge_per_row": best},
    )


def _fit_lightgbm(
    train: BaselineRows, valid: BaselineRows, feature_names: Sequence[str], seed: int
) -> _Fit:
    """Gradient-boosted trees; the validation rows choose shape and number of trees."""
    import lightgbm  # costs a second; only the trainer's baseline needs it

    num_rows = train.features_NF.shape[0]
    no_filter = {"verbosity": -1, "feature_pre_filter": False}  # the shapes share one data set
    dataset = lightgbm.Dataset(
        _finite_or_nan(train.features_NF),
        as_labels(train.labels_N),
        feature_name=list(feature_names),
        params=no_filter,
    )
    watched = dataset.create_valid(_finite_or_nan(valid.features_NF), as_labels(valid.labels_N))
    fits: dict[str, tuple[float, Any]] = {}
    for shape, settings in _LIGHTGBM_SHAPES.items():
        smallest_leaf = int(np.clip(num_rows // 50, 5, settings["min_data_in_leaf"]))
        booster = lightgbm.train(
            _LIGHTGBM_PARAMETERS
            | settings
            | no_filter
            | {"seed": seed, "min_data_in_leaf": smallest_leaf},
            dataset,
            num_boost_round=_LIGHTGBM_ROUNDS,
            valid_sets=[watched],
            callbacks=[lightgbm.early_stopping(_LIGHTGBM_PATIENCE, verbose=False)],
        )
        fits[shape] = (float(booster.best_score["valid_0"]["auc"]), booster)
    best = max(fits, key=lambda shape: fits[shape][0])
    booster = fits[best][1]
    rounds = max(int(booster.best_iteration), 1)

    def logits_of(features_NF: FloatArray) -> FloatArray:
        scores = booster.predict(
            _finite_or_nan(features_NF), raw_score=True, num_iteration=rounds, num_threads=1
        )
        return np.asarray(scores, dtype=np.float64)

    gains_F = booster.feature_importance(importance_type="gain", iteration=rounds)
    return _Fit(
        logits_of=logits_of,
        model_text=str(booster.model_to_string(num_iteration=rounds)),
        importance=_shares(feature_names, np.asarray(gains_F, dtype=np.float64)),
        facts={
            "shape": best,
            "rounds": rounds,
            "num_rows": num_rows,
            "version": str(lightgbm.__version__),
        },
    )


def _auroc(rows: BaselineRows, logits_N: FloatArray) -> float:
    """AUROC of logits; one half where it is undefined."""
    ranked = rank_rows(rows.labels_N, sigmoid(logits_N))
    ones = np.ones((logits_N.size, 1))
    return float(
        np.nan_to_num(weighted_metrics(ranked, 0.5, ones, ("auroc",))["auroc"][0], nan=0.5)
    )


def _finite_or_nan(features_NF: FloatArray) -> FloatArray:
    """Treat infinities as unknown, as the linear models do."""
    return np.where(np.isfinite(features_NF), features_NF, np.nan)


def _shares(names: Sequence[str], strengths: FloatArray) -> list[tuple[str, float]]:
    """Pair names with their share of the total, largest first, names breaking ties."""
    total = float(strengths.sum()) or 1.0
    pairs = [(name, float(value) / total) for name, value in zip(names, strengths, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
