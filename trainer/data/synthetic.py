"""Seeded fake customers as a snapshot: for tests and benchmarks that need no warehouse.

Each user has a hidden rhythm and a hidden drift. Recency, frequency and the words of the text
follow from them, and so does the label, with noise: a model that reads features or text must
beat the base rate, and none can be perfect.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.contracts.settings import TEXT_VERSION
from churn_udf.contracts.snapshot import snapshot_schema
from trainer.data.export import write_snapshot
from trainer.data.snapshot import Snapshot, SnapshotConfig

SYNTHETIC_FEATURES = (
    FeatureSpec(
        name="days_since_active", group="recency", description="Days since the last order."
    ),
    FeatureSpec(
        name="active_day_count_30d", group="frequency", description="Active days of the last 30."
    ),
    FeatureSpec(
        name="active_day_count_365d", group="frequency", description="Orders in the last 365 days."
    ),
    FeatureSpec(
        name="amount_365d", group="spend", description="Amount spent in the last 365 days."
    ),
    FeatureSpec(name="mean_gap_days", group="rhythm", description="Mean days between two visits."),
    FeatureSpec(name="tenure_days", group="tenure", description="Days since the first event."),
    FeatureSpec(
        name="mean_rating", group="reviews", description="Mean rating given; null when none."
    ),
)
SETTINGS = {
    "observation_days": 365,
    "eligibility_days": 90,
    "gap_days": 0,
    "horizon_days": 28,
    "qualifying_event_types": ["purchase"],
    "max_visits": 16,
    "max_words_per_visit": 4,
    "max_reviews": 3,
    "max_review_chars": 400,
    "text_version": TEXT_VERSION,
    "feature_version": 1,
}
_CATEGORIES = ("dairy", "bakery", "produce", "meat", "coffee", "garden", "toys", "books")
_GOOD_WORDS = ("great", "fresh", "friendly", "love", "perfect")
_BAD_WORDS = ("late", "broken", "slow", "rude", "disappointed")


def synthetic_snapshot(
    snapshots_dir: Path,
    *,
    num_users: int = 200,
    num_cutoffs: int = 12,
    days_between_cutoffs: int = 14,
    first_cutoff: datetime.date = datetime.date(2024, 1, 1),
    settings: dict[str, object] | None = None,
    churn_rate: float | None = None,
    rows_per_shard: int = 4_096,
    seed: int = 0,
) -> Snapshot:
    """Write a snapshot of fake users and return it.

    Args:
        snapshots_dir: Where to write.
        num_users: Users at every cutoff.
        num_cutoffs: Cutoffs, the last of which is the one to score.
        days_between_cutoffs: Days from one cutoff to the next.
        first_cutoff: The oldest cutoff.
        settings: Overrides of ``SETTINGS``.
        churn_rate: 0 or 1 makes every label equal; None lets behaviour decide.
        rows_per_shard: Rows in one Arrow file.
        seed: Everything random follows from it.
    """
    generator = np.random.default_rng(seed)
    resolved = {**SETTINGS, **(settings or {})}
    reach = int(str(resolved["gap_days"])) + int(str(resolved["horizon_days"]))
    dates = [
        first_cutoff + datetime.timedelta(days=days_between_cutoffs * index)
        for index in range(num_cutoffs)
    ]
    rhythm = np.exp(generator.normal(2.3, 0.6, num_users))
    drift = generator.normal(0.0, 1.0, num_users)
    batches = []
    for date in dates:
        is_mature = date + datetime.timedelta(days=reach) <= dates[-1]
        batches.append(_cutoff_batch(date, is_mature, rhythm, drift, churn_rate, generator))
    return write_snapshot(
        batches,
        features=SYNTHETIC_FEATURES,
        settings=resolved,
        score_cutoff_date=dates[-1],
        provenance={"project": "synthetic", "seed": seed},
        snapshots_dir=snapshots_dir,
        config=SnapshotConfig(rows_per_shard=rows_per_shard),
    )


def _cutoff_batch(
    date: datetime.date,
    is_mature: bool,
    rhythm: npt.NDArray[np.float64],
    drift: npt.NDArray[np.float64],
    churn_rate: float | None,
    generator: np.random.Generator,
) -> pa.RecordBatch:
    """Return the rows of one cutoff; users are ordered by id."""
    num_users = len(rhythm)
    mood = drift + generator.normal(0.0, 0.5, num_users)
    recency = np.floor(generator.exponential(rhythm) * np.exp(0.4 * mood))
    yearly = generator.poisson(365.0 / rhythm) + 1.0
    monthly = generator.poisson(30.0 / rhythm * np.exp(-0.5 * mood)).astype(np.float64)
    rating = np.clip(np.round(3.5 - mood + generator.normal(0, 0.5, num_users)), 1, 5)
    rating[generator.random(num_users) < 0.6] = np.nan
    risk = -1.0 + 1.8 * mood + 0.6 * np.log1p(recency / rhythm) + 0.5 * np.log(rhythm / 10.0)
    churned = generator.random(num_users) < 1.0 / (1.0 + np.exp(-risk))
    if churn_rate is not None:
        churned = np.full(num_users, churn_rate >= 0.5)
    columns = [
        recency,
        monthly,
        yearly,
        yearly * generator.gamma(4.0, 6.0, num_users),
        rhythm,
        np.full(num_users, 300.0),
        rating,
    ]
    texts = [_texts(mood[row], recency[row], yearly[row], generator) for row in range(num_users)]
    reviews = [
        "" if np.isnan(stars) else f"rating {stars:.0f} {words}"
        for stars, (_, words) in zip(rating, texts, strict=True)
    ]
    schema = snapshot_schema([feature.name for feature in SYNTHETIC_FEATURES])
    users = [f"user_{index:06d}" for index in range(num_users)]
    arrays = [
        pa.array(users),
        pa.array([date] * num_users, pa.date32()),
        pa.array([text for text, _ in texts]),
        pa.array(reviews),
        *(pa.array(column, pa.float64(), from_pandas=True) for column in columns),
        pa.array([is_mature] * num_users),
        pa.array(churned.tolist() if is_mature else [None] * num_users, pa.bool_()),
        pa.array([f"{user}:{date.isoformat()}" for user in users]),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _texts(
    mood: float, recency: float, yearly: float, generator: np.random.Generator
) -> tuple[str, str]:
    """Return behaviour text and review words of one user."""
    categories = " ".join(generator.choice(_CATEGORIES, size=3))
    pace = "slower than usual" if mood > 0.4 else "faster than usual" if mood < -0.4 else "steady"
    behaviour = (
        f"customer orders {min(int(yearly), 50)} last order {min(int(recency), 60)} days ago "
        f"{pace} visit {categories}"
    )
    words = _BAD_WORDS if mood > 0 else _GOOD_WORDS
    return behaviour, " ".join(generator.choice(words, size=2))
