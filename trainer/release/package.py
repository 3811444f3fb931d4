"""Packaging: a judged run becomes a bundle that is read back and must repeat its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from churn_udf.bundle_store import Bundle, write_bundle
from churn_udf.contracts.bundle import (
    CALIBRATION_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    PRECISION_FILE,
    REFERENCE_FILE,
    THRESHOLDS_FILE,
)
from churn_udf.contracts.settings import ModelSettings
from churn_udf.model.precision import FP32
from churn_udf.model_records import trained_until
from churn_udf.models_location import ModelsDir, stated
from trainer.config import to_mapping
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.errors import ParityError, RunError
from trainer.release.model_card import render_model_card
from trainer.release.precision import choose_precision
from trainer.release.reference import make_reference
from trainer.runs import (
    BUNDLE_FILE,
    FIT_FILE,
    SHIPPED_FILE,
    Run,
    evaluation_key,
    package_versions,
    read_json,
    short_hash,
)

MAX_DIFFERENCE = 1e-5
REPRODUCIBLE_FACTS = ("encoder", "parameters", "encoder_parameters", "vocabulary_size", "precision")


def package_run(run: Run, snapshot: Snapshot, splits: Splits, models_dir: ModelsDir) -> Bundle:
    """Write the run's model as a bundle, read it back and check that it predicts the same.

    Args:
        run: A judged run.
        snapshot: Its rows.
        splits: Its splits.
        models_dir: Where bundles are; made when missing.

    Raises:
        RunError: The run is not judged with its present settings.
        ParityError: The bundle predicts something else than the run did.
        BundleError: The bundle cannot be written.
    """
    metrics = run.read_json(METRICS_FILE)
    if metrics["evaluation_key"] != evaluation_key(run.run_id, run.config):
        raise RunError(
            f"run {run.run_id} was evaluated with other settings than its config; "
            "run `churn-train evaluate` again"
        )
    fit = run.read_json(FIT_FILE)
    training = training_facts(run, splits, fit, metrics)
    training |= start_facts(fit["facts"], training, snapshot.model_settings)
    training["score_cutoff"] = str(snapshot.document["score_cutoff_date"])
    versions = package_versions()
    precision = choose_precision(run, snapshot, splits)
    card = render_model_card(
        training=training,
        versions=versions,
        metrics=metrics,
        snapshot=snapshot,
        precision=precision,
    )
    files: dict[str, Path | str | bytes] = {
        path.relative_to(run.model_dir).as_posix(): path
        for path in sorted(run.model_dir.rglob("*"))
        if path.is_file()
    }
    for name in (CALIBRATION_FILE, THRESHOLDS_FILE, METRICS_FILE):
        files[name] = run.path / name
    files[MODEL_CARD_FILE] = card
    files[REFERENCE_FILE] = make_reference(run, snapshot, splits).to_json()
    if precision is not None:
        files[PRECISION_FILE] = precision.to_json()
    bundle = write_bundle(
        models_dir,
        files=files,
        settings=snapshot.model_settings,
        features=snapshot.features,
        training=training,
        versions=versions,
    )
    difference = check_predictions(run, snapshot, splits, bundle)
    run.write_json(
        BUNDLE_FILE,
        {
            "bundle_id": bundle.bundle_id,
            "models_dir": stated(models_dir),
            "packaging_key": packaging_key(run),
            "max_abs_difference": difference,
        },
    )
    return bundle


def packaged_bundle_id(run: Run, models_dir: ModelsDir) -> str | None:
    """Return the bundle made of the run's present results, if it is still there."""
    from churn_udf.bundle_store import list_bundle_ids

    found = read_json(run.path / BUNDLE_FILE)
    if found is None or found.get("packaging_key") != packaging_key(run):
        return None
    bundle_id = str(found["bundle_id"])
    return bundle_id if bundle_id in list_bundle_ids(models_dir) else None


def packaging_key(run: Run) -> str:
    """Return a hash of everything that decides the bundle of a run."""
    precision = to_mapping(run.config)["precision"]
    return short_hash(
        {"evaluation_key": evaluation_key(run.run_id, run.config), "precision": precision}
    )


def check_predictions(run: Run, snapshot: Snapshot, splits: Splits, bundle: Bundle) -> float:
    """Score rows with the bundle in fp32 and compare with what the run wrote of what it ships.

    Returns:
        The largest absolute difference of a probability.

    Raises:
        ParityError: It exceeds 1e-5.
    """
    from churn_udf.scoring import Scorer

    sample = run.read_json(SHIPPED_FILE)
    rows, expected = np.asarray(sample["rows"]), np.asarray(sample["probabilities"])
    scorer = Scorer.load(bundle, device=run.config.fit.device, precision=FP32)
    scores = scorer.score_arrays(*snapshot.texts(rows), snapshot.feature_matrix[rows])
    difference = float(np.max(np.abs(scores.probabilities - expected)))
    if not difference <= MAX_DIFFERENCE:
        raise ParityError(
            f"bundle {bundle.bundle_id} and run {run.run_id} differ by up to {difference:.2e} on "
            f"{len(rows)} test rows; allowed: {MAX_DIFFERENCE:.0e}. Evaluate and package again on "
            "this machine; if it stays, report it as a bug"
        )
    return difference


def training_facts(
    run: Run, splits: Splits, fit: dict[str, Any], metrics: dict[str, Any]
) -> dict[str, Any]:
    """Return what the manifest says about training: JSON-ready, free of times and local paths."""
    facts = {name: fit["facts"][name] for name in REPRODUCIBLE_FACTS if name in fit["facts"]}
    if "encoder" in facts:
        facts["encoder"] = Path(str(facts["encoder"])).name
    test = metrics["test"][metrics["model"]]
    return {
        **facts,
        "run_id": run.run_id,
        "snapshot_id": run.snapshot_id,
        "code_version": run.facts["code_version"],
        "seed": run.config.fit.seed,
        "ensemble": metrics["ensemble"]["chosen"],
        "weights": metrics["ensemble"]["weights"][metrics["ensemble"]["chosen"]],
        "refit": run.config.fit.refit,
        "valid_mode": splits.valid_mode,
        "test_mode": splits.test_mode,
        "first_cutoff": splits.plan.train[0].isoformat(),
        "last_cutoff": splits.plan.train[-1].isoformat(),
        "splits": splits.facts["splits"],
        "fits": splits.facts["fits"],
        "test_auroc": test["auroc"]["value"],
        "test_average_precision": test["average_precision"]["value"],
    }


def start_facts(
    fit: Mapping[str, Any], training: Mapping[str, Any], settings: ModelSettings
) -> dict[str, Any]:
    """Return from which bundle each fit started, if any; what that had learned, the model knows.

    Args:
        fit: Facts of the fits.
        training: The manifest's training facts so far.
        settings: Of the snapshot.
    """
    start = fit.get("start")
    if not start:
        return {}
    found: dict[str, Any] = {"warm_start": start["bundle_id"], "starts": fit["starts"]}
    if start["bundle_id"] in fit["starts"].values():
        own = trained_until(training, settings.to_dict())
        found["trained_until"] = max(str(own or ""), str(start["trained_until"]))
    return found
