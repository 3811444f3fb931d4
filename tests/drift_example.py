"""Made-up tables above the drift models, so that drift is measured in seconds."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from churn_udf.contracts.reference import (
    SCORE_SUBJECT,
    BaseRates,
    Distribution,
    Reference,
    TokenCounts,
)
from churn_udf.warehouse.drift_models import REFERENCES_SCHEMA, reference_rows
from trainer.release.reference import distribution_of

CUTOFF = datetime.date(2024, 6, 3)
FIRST_EVENT = datetime.date(2020, 1, 1)
MODELS = (
    "churn_drift_thresholds churn_drift_measures churn_expected_base_rates churn_score_drift "
    "churn_base_rate_changes"
)
MARTS = ("churn_score_drift", "churn_base_rate_changes")


def make_reference(
    features: Mapping[str, np.ndarray],
    *,
    num_users: int = 400,
    score: np.ndarray | None = None,
    tokens: TokenCounts | None = None,
    base_rates: BaseRates | None = None,
    first_cutoff: str = "2024-01-01",
) -> Reference:
    """Return a reference of (N,) values per feature; what is left out is empty."""
    drawn = np.linspace(0.01, 0.99, 500) if score is None else score
    return Reference(
        first_cutoff=first_cutoff,
        last_cutoff="2024-05-01",
        features=tuple(distribution_of(name, v, num_users) for name, v in features.items()),
        tokens=tokens or TokenCounts(row_count=0, user_count=0, words=(), counts=(), other_count=0),
        score=distribution_of(SCORE_SUBJECT, drawn, len(drawn)),
        base_rates=base_rates,
    )


def points_of(reference: Reference, name: str) -> Distribution:
    """Return a feature's or the score's distribution."""
    (found,) = (one for one in (*reference.features, reference.score) if one.name == name)
    return found


class DriftTables:
    """What the drift models read, for one cutoff or several.

    Args:
        project: A scratch ``DbtProject``.
        feature_names: All features of the package.
    """

    def __init__(self, project: Any, feature_names: Sequence[str]) -> None:
        self.project = project
        self.feature_names = tuple(feature_names)
        self.features: list[pa.Table] = []
        self.texts: list[tuple[datetime.date, str, str, str | None]] = []
        self.scores: list[dict[str, Any]] = []
        self.performance: list[dict[str, Any]] = []
        self.references: dict[str, Reference] = {}
        self.fingerprint = "f"
        self.score_cutoffs = [CUTOFF]
        project.vars = {"churn__events_path": "none.parquet"}

    def add_users(
        self,
        features: Mapping[str, np.ndarray],
        scores: Mapping[str, np.ndarray],
        texts: Sequence[tuple[str, str | None]] | None = None,
        cutoff: datetime.date = CUTOFF,
    ) -> None:
        """Add the users of a cutoff: (N,) features (NaN: null), scores per bundle, texts."""
        num_users = len(next(iter(features.values())))
        users = [f"u{number:05d}" for number in range(num_users)]
        columns: dict[str, Any] = {"user_id": users, "cutoff_date": pa.array([cutoff] * num_users)}
        for name in self.feature_names:
            values = features.get(name, np.full(num_users, np.nan))
            columns[name] = pa.array(values, pa.float64(), mask=np.isnan(values))
        self.features.append(pa.table(columns))
        for user, (behavior, review) in zip(users, texts or [("", None)] * num_users, strict=True):
            self.texts.append((cutoff, user, behavior, review))
        for bundle, values in scores.items():
            for user, value in zip(users, values.tolist(), strict=True):
                row = {"user_id": user, "bundle_id": bundle, "churn_probability": value}
                self.scores.append({**row, "cutoff_date": cutoff})

    def load(self) -> None:
        """Write every table that the models read."""
        load = self.project.load
        cutoffs = sorted({row["cutoff_date"] for row in self.scores} | {*self.score_cutoffs})
        spine = [
            {
                **{"cutoff_date": cutoff, "input_fingerprint": self.fingerprint},
                "is_score_cutoff": cutoff in self.score_cutoffs,
            }
            for cutoff in cutoffs
        ]
        load("int_cutoffs_spined", pa.Table.from_pylist(spine))
        load("int_data_bounds", pa.table({"first_event_date": pa.array([FIRST_EVENT])}))
        load("int_features_windowed_to_cutoffs", pa.concat_tables(self.features))
        cutoff, user, behavior, review = (list(part) for part in zip(*self.texts, strict=True))
        keys = {"cutoff_date": cutoff, "user_id": user}
        load("int_visits_serialized_to_text", pa.table({**keys, "behavior_text": behavior}))
        reviews = pa.table({**keys, "review_text_recent": pa.array(review, pa.string())})
        load("int_reviews_windowed_to_cutoffs", reviews.drop_null())
        load("churn_scores", pa.Table.from_pylist(self.scores))
        rows = [
            {"bundle_id": bundle, **row}
            for bundle, reference in self.references.items()
            for row in reference_rows(reference)
        ]
        load("int_drift_references", pa.Table.from_pylist(rows, REFERENCES_SCHEMA))
        performance = pa.schema(
            [("bundle_id", pa.string()), ("cutoff_date", pa.date32()), ("base_rate", pa.float64())]
        )
        load("churn_model_performance", pa.Table.from_pylist(self.performance, performance))

    def run(self, select: str = MODELS, **options: Any) -> None:
        """Load and build the drift models without tests."""
        self.load()
        no_tests = ["--exclude-resource-type", "test", "unit_test"]
        self.project.build(select=select, args=[*no_tests, *options.pop("args", [])], **options)

    def clear(self) -> None:
        """Forget all users."""
        self.features, self.texts, self.scores = [], [], []

    def drift(
        self, cutoff: datetime.date | None = None
    ) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Return rows by bundle, subject type and subject, of the first score cutoff."""
        rows = self.project.table(
            "select * from churn_score_drift "
            f"where cutoff_date = '{cutoff or self.score_cutoffs[0]}'"
        ).to_pylist()
        return {(row["bundle_id"], row["subject_type"], row["subject"]): row for row in rows}


def feature_names(project: Any) -> list[str]:
    """Return the features that churn_examples documents."""
    path = project.project_dir / "models" / "marts" / "_examples__models.yml"
    (examples,) = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
    columns = {column["name"]: column.get("config", {}) for column in examples["columns"]}
    return [name for name, config in columns.items() if config.get("meta", {}).get("feature_group")]


def psi_of(reference: Distribution, current: np.ndarray) -> float:
    """Population stability index, as the page of definitions says, over a reference's bins."""
    known = current[np.isfinite(current)]
    counts = np.histogram(known, [-np.inf, *reference.bin_upper_bounds, np.inf])[0]
    bounds = np.asarray(reference.bin_upper_bounds)
    counts = np.bincount(np.searchsorted(bounds, known, side="left"), minlength=len(bounds) + 1)
    now, then = list(counts), list(reference.bin_counts)
    unknown = len(current) - len(known), reference.row_count - reference.known_count
    if any(unknown):
        now.append(unknown[0])
        then.append(unknown[1])
    p = (np.array(now) + 0.5) / (sum(now) + 0.5 * len(now))
    q = (np.array(then) + 0.5) / (sum(then) + 0.5 * len(now))
    return float(np.sum((p - q) * np.log(p / q)))
