"""What evaluation found out, and its two forms for people and tools: report data, predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn_udf.calibration import Calibrator
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
from trainer.fit.refit import FINAL, FIRST, REFIT
from trainer.report.data import FeatureImportance, FitFacts, ReportData, SplitFacts
from trainer.report.ensemble import MEMBER_TITLES, base_rate_text
from trainer.runs import Run, package_versions

FloatArray: TypeAlias = npt.NDArray[np.float64]
GBM_TITLE = "Gradient boosting"
SAME_FIT_TITLE = "LightGBM, all features (the same fit)"
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
    shipped: Calibrator,
) -> ReportData:
    """Return what the HTML report shows.

    Args:
        run: The run.
        snapshot: Its rows.
        splits: Its splits.
        found: What evaluation found out.
        fit_facts: Content of ``fit.json``.
        segments: What ``judge_segments`` returned.
        shipped: The calibrator that scores, as told from the one that the test judged.
    """
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
            **_kind_titles(found.candidates.choice.table["weights"], run.config.fit.encoder),
            **BASELINE_TITLES,
            **({"lightgbm": SAME_FIT_TITLE} if found.model == "gbm" else {}),
        },
        alternatives=_alternatives(found),
        ensemble=found.candidates.choice.table,
        fits=_fits(splits, fit_facts["facts"]),
        base_rate_notes=_base_rate_notes(run, found, shipped),
        is_test_later=splits.test_mode != BY_USER,
        training_note=_training_note(found),
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
        importance_source=_importance_source(found),
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
            **_shown_facts(fit_facts["facts"]),
            "seed": run.config.fit.seed,
            "versions": ", ".join(f"{name} {text}" for name, text in package_versions().items()),
        },
        warnings=warnings_of(splits, found),
        slices=segments["slices"],
        reliability=segments["reliability"],
    )


def _shown_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what the report tells of the encoder's model and its first fit."""
    return {name: value for name, value in facts.items() if not isinstance(value, dict)}


def model_title(kind: str, encoder: str, weights: Mapping[str, float]) -> str:
    """Return a kind of ensemble's name for people; a stack names its members."""
    if kind == "gbm":
        return GBM_TITLE
    if kind == "bert":
        return f"BERT ({Path(encoder).name}) with features"
    members = [title for name, title in MEMBER_TITLES.items() if name in weights]
    return f"Stack ({', '.join(members)})"


def _kind_titles(weights: Mapping[str, Mapping[str, float]], encoder: str) -> dict[str, str]:
    """Return the title of every kind that was possible."""
    return {kind: model_title(kind, encoder, found) for kind, found in weights.items()}


def _alternatives(found: Judgement) -> list[str]:
    """Return the kinds that were not chosen, and trees under their name as a baseline."""
    others = [kind for kind in found.candidates.by_kind if kind != found.model]
    if found.model == "gbm" and "lightgbm" in found.baselines:
        others.append("lightgbm")
    return others


def _fits(splits: Splits, facts: dict[str, Any]) -> list[FitFacts]:
    """Return the fits that were made and what each is for."""
    made = {FIRST: splits.facts["splits"]["train"], **facts["refits"]}
    purposes: dict[str, list[str]] = {name: [] for name in made}
    purposes[FIRST].append("settings, weights and calibration are chosen with it")
    judged = REFIT if REFIT in made else FIRST
    purposes[judged].append("judged by the test")
    purposes[next(name for name in (FINAL, REFIT, FIRST) if name in made)].append("scores")
    for name, start in facts.get("starts", {}).items():
        purposes[name].append(f"started {'' if start.startswith('anew') else 'from '}{start}")
    return [
        FitFacts(
            name=name,
            purpose="; ".join(purposes[name]),
            num_rows=content["rows"],
            last_cutoff=content["cutoffs"][-1],
            is_judged=name == judged,
        )
        for name, content in made.items()
    ]


def _base_rate_notes(run: Run, found: Judgement, shipped: Calibrator) -> list[str]:
    """Say which churn rate is expected at the test and, where it differs, at scoring."""
    kind = run.config.evaluate.base_rate
    judged = found.candidates.chosen.calibrator
    notes = [f"At the test. {base_rate_text(kind, judged.offset)}"]
    if shipped != judged:
        notes.append(
            "At scoring, calibrated again on the newest rows, as fits predicted them that had not "
            f"learned from them. {base_rate_text(kind, shipped.offset)}"
        )
    return notes


def _training_note(found: Judgement) -> str:
    """Say of what the training history is, and what part it has in the scores."""
    note = (
        "The first fit of BERT with features; later fits repeat it without looking at validation."
    )
    weight = found.candidates.choice.ensemble.weights.get("bert")
    return note if weight else f"{note} It has no part in the scores."


def _importance_source(found: Judgement) -> str:
    """Say which model the importance is of, and what part that has in the scores."""
    weight = found.candidates.choice.ensemble.weights.get("gbm")
    part = "a baseline only: no part of the scores"
    if weight:
        part = "what scores" if found.model == "gbm" else f"weight {weight:.2f} in the stack"
    return f"LightGBM on the same features ({part}): share of the total gain"


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
    if "bert" not in found.candidates.choice.ensemble.weights:
        warnings.append(
            "BERT has no part in the scores: what scores reads the features alone and no text."
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
