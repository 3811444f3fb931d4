"""A shop whose scores are made up, so that a year of outcomes takes seconds.

Real are the events, the cutoffs, the population, the labels and the outcome marts; the tables
churn_scores, churn_unscorable and int_models_registered are filled by hand.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from reference_outcomes import OUTCOME_COLUMNS, Key, OutcomeLedger, Purchase, Score, Windows

OUTCOMES = "churn_score_outcomes churn_calibration_bins churn_model_performance"
EVERYTHING = f"+int_labels_matured {OUTCOMES}"
NO_TESTS = ("--exclude-resource-type", "test", "unit_test")
MARTS = tuple(OUTCOMES.split())
DATA_TESTS = (
    "assert_matured_scores_have_an_outcome assert_outcomes_agree_with_labels "
    "assert_performance_adds_up_to_outcomes"
)
WINDOWS = Windows(eligibility_days=28, gap_days=2, horizon_days=14)

_SCORE_TYPES = pa.schema(
    [
        ("user_id", pa.string()),
        ("bundle_id", pa.string()),
        ("risk_tier", pa.string()),
        ("churn_probability", pa.float64()),
        ("is_flagged", pa.bool_()),
        ("cutoff_date", pa.date32()),
        ("scored_at", pa.timestamp("us")),
    ]
)
_MODEL_TYPES = pa.schema([("bundle_id", pa.string()), ("trained_until_date", pa.date32())])
_UNSCORABLE_TYPES = pa.schema(
    [("user_id", pa.string()), ("bundle_id", pa.string()), ("cutoff_date", pa.date32())]
)


class Shop:
    """A dbt project, and the ledger that says what it should hold.

    Args:
        project: A scratch ``DbtProject``.
        windows: Lengths of the settings.
    """

    def __init__(self, project: Any, windows: Windows = WINDOWS) -> None:
        self.project = project
        self.ledger = OutcomeLedger(windows)
        self.scores: dict[Key, Score] = {}
        self.trained_until: dict[str, datetime.date | None] = {}
        self.unscorable: list[Key] = []
        self.spans: list[tuple[datetime.datetime, datetime.datetime]] = []
        project.vars = {
            "churn__observation_days": 60,
            "churn__eligibility_days": windows.eligibility_days,
            "churn__gap_days": windows.gap_days,
            "churn__horizon_days": windows.horizon_days,
            "churn__training_cutoffs": {"every_days": 7},
            "churn__max_training_cutoffs": 100,
        }

    def load(self, purchases: Iterable[Purchase]) -> None:
        """Write what the next run reads."""
        self.purchases = list(purchases)
        self.project.vars["churn__events_path"] = self.project.events_parquet(
            {"user_id": user, "event_type": "purchase", "event_ts": f"{day} 10:00:00"}
            for user, day in self.purchases
        )
        scores = [
            {
                **{"user_id": user, "cutoff_date": cutoff, "bundle_id": bundle},
                **{"churn_probability": score.probability, "risk_tier": score.risk_tier},
                **{"is_flagged": score.is_flagged, "scored_at": score.scored_at},
            }
            for (user, cutoff, bundle), score in self.scores.items()
        ]
        models = [
            {"bundle_id": bundle, "trained_until_date": date}
            for bundle, date in self.trained_until.items()
        ]
        unscorable = [
            {"user_id": user, "cutoff_date": cutoff, "bundle_id": bundle}
            for user, cutoff, bundle in self.unscorable
        ]
        self.project.load("churn_scores", pa.Table.from_pylist(scores, _SCORE_TYPES))
        self.project.load("int_models_registered", pa.Table.from_pylist(models, _MODEL_TYPES))
        self.project.load("churn_unscorable", pa.Table.from_pylist(unscorable, _UNSCORABLE_TYPES))

    def run(self, select: str = EVERYTHING, args: Iterable[str] = ()) -> None:
        """Run dbt, and let the ledger follow when the outcomes are among it."""
        started = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        self.project.build(select=select, args=[*NO_TESTS, *args])
        ended = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        self.spans.append((started, ended))
        self.ledger.build(self.purchases, self.scores, self.trained_until)

    def build(self, purchases: Iterable[Purchase], **options: Any) -> None:
        """Load and run."""
        self.load(purchases)
        self.run(**options)

    def outcomes(self) -> list[tuple[Any, ...]]:
        """Return churn_score_outcomes in the order of OUTCOME_COLUMNS, builds by number."""
        columns = ", ".join(OUTCOME_COLUMNS)
        rows = self.project.query(f"select {columns} from churn_score_outcomes")
        return sorted((*row[:-2], *map(self._build_of, row[-2:])) for row in rows)

    def stored_rows(self) -> Mapping[str, list[tuple[Any, ...]]]:
        """Return all rows of the marts as they are; of the outcomes also where they lie."""
        return {
            mart: self.project.query(
                f"select {'rowid, ' if mart == MARTS[0] else ''}* from {mart} order by all"
            )
            for mart in MARTS
        }

    def _build_of(self, moment: datetime.datetime | None) -> int | None:
        if moment is None:
            return None
        (number,) = (
            number for number, (start, end) in enumerate(self.spans) if start <= moment <= end
        )
        return number
