"""What evaluation found out, and its two forms for people and tools: report data, predictions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn_udf.thresholds import GroupThresholds
from trainer.candidates import Candidates
from trainer.data.snapshot import Snapshot
from trainer.data.splits import BY_USER, Splits
from trainer.evaluate import (
    BASELINE_TITLES,
    BaselineResult,
    GroupChoice,
    Interval,
    ThresholdChoice,
    tier_bounds,
)
from trainer.report.data import FeatureImportance, ReportData, SplitFacts
from trainer.runs import Run, package_versions

FloatArray: TypeAlias = npt.NDArray[np.float64]
KIND_TITLES = {
    "gbm": "Gradient-boosted trees",
    "stack": "Stack of BERT, trees and linear models",
}
NUM_REPORTED_FEATURES = 25
REPORTED_SETTINGS = (
    "observation_days",
    "eligibility_days",
    "gap_days",
    "horizon_days",
    "qualifying_event_types",
    "text_version",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """Everything that evaluation found out, before it is written."""

    model: str
    """The chosen kind of ensemble."""
    candidates: Candidates
    thresholds: dict[str, ThresholdChoice]
    """By model."""
    probabilities: dict[str, dict[str, FloatArray]]
    """Split -> model -> (N,) calibrated."""
    intervals: dict[str, dict[str, Interval]]
    """Model -> metric -> value with interval, on test rows."""
    differences: dict[str, dict[str, Interval]]
    """Other model -> metric -> by how much the chosen one is better."""
    group_thresholds: tuple[GroupThresholds, GroupChoice] | None
    """Flag thresholds by group, where asked for."""

    @property
    def baselines(self) -> dict[str, BaselineResult]:
        """The baselines that were asked for."""
        known = self.candidates.baselines
        return {name: known[name] for name in self.probabilities["test"] if name in known}

    @property
    def calibration(self) -> dict[str, Any]:
        """How the chosen model was calibrated."""
        return self.candidates.chosen.calibration


def write_predictions(path: Path, snapshot: Snapshot, splits: Splits, found: Judgement) -> None:
    """Write one row per judged example: split, key, label, logit and every model's probability."""
    import pyarrow.parquet as pq

    tables = []
    for name, models in found.probabilities.items():
        rows = getattr(splits, name)
        keys = snapshot.table.select(["user_id", "cutoff_date"]).take(pa.array(rows))
        columns = {
            "split": pa.array([name] * len(rows)),
            "user_id": keys.column("user_id"),
            "cutoff_date": keys.column("cutoff_date"),
            "label": pa.array(snapshot.labels[rows].astype(np.int8)),
            f"{found.model}_logit": pa.array(found.candidates.chosen.logits[name]),
            **{model: pa.array(values) for model, values in models.items()},
        }
        tables.append(pa.table(columns))
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.concat_tables(tables), partial)
    partial.replace(path)


def report_data(
    run: Run,
    snapshot: Snapshot,
    splits: Splits,
    found: Judgement,
    fit_facts: dict[str, Any],
    segments: dict[str, Any],
) -> ReportData:
    """Return what the HTML report shows; `segments` is what ``judge_segments`` returned."""
    choice = found.thresholds[found.model]
    base_rate = float(snapshot.labels[splits.valid].mean())
    booster = found.candidates.baselines.get("lightgbm")
    descriptions = {feature.name: feature.description for feature in snapshot.features}
    importance = booster.importance[:NUM_REPORTED_FEATURES] if booster else []
    provenance = snapshot.document["provenance"]
    return ReportData(
        title=f"Churn model {run.run_id}",
        model_name=found.model,
        labels=snapshot.labels[splits.test],
        probabilities=found.probabilities["test"],
        metrics=found.intervals,
        differences=found.differences,
        threshold=choice.threshold,
        titles={
            **{kind: model_title(kind, run.config.fit.encoder) for kind in ("bert", *KIND_TITLES)},
            **BASELINE_TITLES,
        },
        splits=[
            SplitFacts(
                name=name,
                cutoffs=facts["cutoffs"],
                num_rows=facts["rows"],
                num_users=facts["users"],
                base_rate=facts["base_rate"],
            )
            for name, facts in splits.facts["splits"].items()
        ],
        tiers=tier_bounds(min(choice.threshold, 1.0), base_rate)["tiers"],
        threshold_reason=choice.reason,
        calibration=found.calibration,
        history=fit_facts["history"],
        feature_importance=[
            FeatureImportance(name=name, description=descriptions.get(name, ""), value=value)
            for name, value in importance
        ],
        importance_source="LightGBM on the same features: share of the total gain",
        run_facts={
            "run": run.run_id,
            "code": run.facts["code_version"],
            "begun": run.facts["created_at"],
            "trained": fit_facts["finished_at"],
        },
        data_facts={
            "snapshot": snapshot.snapshot_id,
            "rows": snapshot.num_rows,
            "features": len(snapshot.features),
            "score cutoff": snapshot.document["score_cutoff_date"],
            "project": provenance.get("project"),
            **{name: snapshot.settings.get(name) for name in REPORTED_SETTINGS},
        },
        model_facts={
            **_shown_facts(fit_facts["facts"], found),
            "seed": run.config.fit.seed,
            "versions": ", ".join(f"{name} {text}" for name, text in package_versions().items()),
        },
        warnings=warnings_of(splits, found),
        slices=segments["slices"],
        reliability=segments["reliability"],
    )


def _shown_facts(facts: dict[str, Any], found: Judgement) -> dict[str, Any]:
    """Return what the report tells of model and training."""
    weights = found.candidates.choice.ensemble.weights
    shown = {name: value for name, value in facts.items() if not isinstance(value, dict)}
    for name, refit in facts["refits"].items():
        last = refit["cutoffs"][-1]
        shown[f"{name} fit"] = f"{refit['rows']:,} rows, cutoffs to {last}"
    return {
        "chosen": f"{found.model}: {found.candidates.choice.table['reason']}",
        "weights": ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items()),
        **shown,
    }


def model_title(kind: str, encoder: str) -> str:
    """Return a kind of ensemble's name for people."""
    return KIND_TITLES.get(kind, f"BERT ({Path(encoder).name}) with features")


def warnings_of(splits: Splits, found: Judgement) -> list[str]:
    """Return what a reader of the numbers must know first."""
    warnings = []
    if splits.test_mode == BY_USER:
        warnings.append(
            "The history is too short to hold back any cutoff: training, validation and test share "
            "their cutoffs and differ by users. The numbers tell how well other customers of the "
            "same weeks are told apart, not how well the model foresees a later time."
        )
    elif splits.valid_mode == BY_USER:
        warnings.append(
            "The history is too short to hold back a validation cutoff: training and validation "
            "share their cutoffs and differ by users, so early stopping and calibration have not "
            "seen time pass. The test is out of time as usual."
        )
    choice = found.thresholds[found.model]
    if not choice.is_satisfied:
        warnings.append(f"Threshold: {choice.reason}.")
    if found.group_thresholds is not None:
        stored, groups = found.group_thresholds
        warnings.append(
            f"Flags are set by {stored.slice} ({groups.rule}): precision, recall and the flagged "
            "counts are those of one threshold for everybody, except in the tables by segment."
        )
    for name, table in found.differences.items():
        if name in BASELINE_TITLES and table["auroc"].high < 0.0:
            warnings.append(f"{BASELINE_TITLES[name]} ranks better than the model (AUROC).")
    return warnings
