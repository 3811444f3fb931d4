"""The steps from warehouse to champion, each usable alone, and ``run``, which is all of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from churn_udf.bundle_store import Bundle
from churn_udf.contracts.bundle import METRICS_FILE, MODEL_CARD_FILE
from churn_udf.models_location import ModelsDir
from churn_udf.registry import CHAMPION, RETIRED, read_registry
from trainer.config import TrainConfig, to_mapping
from trainer.data.export import export_snapshot
from trainer.data.snapshot import Snapshot
from trainer.data.splits import BY_USER, Splits, make_splits
from trainer.data.warehouse import Warehouse
from trainer.errors import QualityGateError, RunError
from trainer.fairness import check_segments
from trainer.fit.config import NO_START
from trainer.fit.refit import clear_fits, fit_all
from trainer.judging import evaluate_run, is_evaluated
from trainer.progress import Progress
from trainer.release.gate import GateVerdict, Places, judge_candidate
from trainer.release.package import package_run, packaged_bundle_id
from trainer.release.promotion import promote_candidate
from trainer.release.registry import champion_id
from trainer.runs import (
    FIT_FILE,
    HISTORY_FILE,
    REPORT_FILE,
    SPLITS_FILE,
    Run,
    code_version,
    run_id_of,
    start_run,
    utc_now,
    write_text,
)
from trainer.tracking import TrackedRun, require_trackers, track_run

GATE_REASON = "passed the gate of churn-train run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workspace:
    """Folders that the steps read and write."""

    snapshots_dir: Path
    runs_dir: Path
    models_dir: ModelsDir
    progress: Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What ``run`` did."""

    run_id: str
    snapshot_id: str
    bundle_id: str
    is_champion: bool
    was_skipped: bool
    """Whether snapshot, settings and code were unchanged and the bundle was there."""
    metrics: dict[str, Any]
    report: Path
    gate_error: QualityGateError | None = None
    """Why the model was packaged but not promoted, when the gate refused it."""
    verdict: GateVerdict | None = None
    """What the gate found; None where it was not asked."""


def track(
    snapshot: Snapshot, config: TrainConfig, workspace: Workspace
) -> AbstractContextManager[TrackedRun]:
    """Return the tracked run of these inputs, to be entered; see ``trainer.tracking``."""
    settings = to_mapping(config)
    del settings["tracking"]
    code = code_version()
    facts = {
        "run_id": run_id_of(snapshot.snapshot_id, config, code),
        "snapshot_id": snapshot.snapshot_id,
        "code_version": code,
    }
    return track_run(config.tracking, facts=facts, params=settings, progress=workspace.progress)


def with_start(snapshot: Snapshot, config: TrainConfig, workspace: Workspace) -> TrainConfig:
    """Return the settings in which ``fit.warm_start: champion`` is a bundle, or none."""
    if config.fit.warm_start == NO_START:
        return config
    from trainer.fit.warm_start import resolve_start

    fit, problem = resolve_start(workspace.models_dir, snapshot, config.fit)
    if problem:
        workspace.progress.warn(f"fit.warm_start: every fit starts anew: {problem}")
    return dataclasses.replace(config, fit=fit)


def fit_step(
    snapshot: Snapshot,
    config: TrainConfig,
    workspace: Workspace,
    *,
    on_log: Callable[[Mapping[str, Any]], None] | None = None,
) -> Run:
    """Train on a snapshot, or finish the run that an earlier process began.

    Args:
        snapshot: The rows.
        config: Settings.
        workspace: Where runs are.
        on_log: Called with every row of the training history, an earlier process's too.

    Raises:
        SplitError: The history is too short or its labels too uniform.
        ConfigError: A setting cannot be used.
        TrainingDivergedError: The loss is not finite.
    """
    config = with_start(snapshot, config, workspace)
    splits = splits_of(snapshot, config)
    run = start_run(
        workspace.runs_dir,
        snapshot_id=snapshot.snapshot_id,
        snapshot_path=snapshot.path,
        config=config,
    )
    run.write_json(SPLITS_FILE, splits.facts)
    if splits.test_mode == BY_USER:
        workspace.progress.warn(
            "the history is too short to hold back a cutoff for the test: testing on held-out "
            "users of the training cutoffs instead; the metrics do not show how the model ages"
        )
    elif splits.valid_mode == BY_USER:
        workspace.progress.warn(
            "the history is too short for a validation cutoff of its own: validating on held-out "
            "users of the training cutoffs instead"
        )
    if run.is_fitted:
        workspace.progress.note(f"fit: run {run.run_id} is trained already")
        if on_log:
            for row in run.read_json(FIT_FILE)["history"]:
                on_log(row)
        return run
    start = None
    if config.fit.warm_start != NO_START:
        from trainer.fit.warm_start import open_start

        start = open_start(workspace.models_dir, snapshot, config.fit)
    fits = fit_all(
        *(snapshot, splits, config.fit, run.path),
        progress=workspace.progress,
        on_log=on_log,
        start=start,
    )
    if start is not None:
        fits.facts["start"] = {
            "bundle_id": start.bundle_id,
            "trained_until": start.trained_until.isoformat(),
        }
    lines = "".join(json.dumps(row) + "\n" for row in fits.history)
    write_text(run.path / HISTORY_FILE, lines)
    run.write_json(
        FIT_FILE, {"facts": fits.facts, "history": fits.history, "finished_at": utc_now()}
    )
    return run


def evaluate_step(run: Run, snapshot: Snapshot, workspace: Workspace) -> dict[str, Any]:
    """Judge a fitted run and return its metrics.

    Raises:
        RunError: The run is not fitted.
    """
    if not run.is_fitted:
        raise RunError(f"run {run.run_id} is not trained yet; run `churn-train fit` first")
    return evaluate_run(run, snapshot, splits_of(snapshot, run.config), workspace.progress)


def package_step(run: Run, snapshot: Snapshot, workspace: Workspace) -> Bundle:
    """Package a judged run as a bundle, proven to repeat the run's predictions.

    Raises:
        RunError: The run is not judged.
        ParityError: The bundle predicts something else.
    """
    splits = splits_of(snapshot, run.config)
    with workspace.progress.step("package"):
        return package_run(run, snapshot, splits, workspace.models_dir)


def run_all(
    warehouse: Warehouse,
    config: TrainConfig,
    workspace: Workspace,
    *,
    force: bool = False,
    should_promote: bool = True,
) -> RunOutcome:
    """Take the warehouse's examples all the way to a promoted model.

    Args:
        warehouse: Where ``churn_examples`` is.
        config: Settings.
        workspace: Where everything goes.
        force: Train and judge anew even if nothing has changed.
        should_promote: Make the model the champion when it passes the gate.

    Returns:
        What was done; a model that the gate refuses is packaged, and ``gate_error`` says why.

    Raises:
        ChurnError: A step failed.
    """
    snapshot = export_snapshot(
        warehouse, workspace.snapshots_dir, config=config.snapshot, progress=workspace.progress
    )
    return train_snapshot(
        snapshot,
        config,
        workspace,
        force=force,
        should_promote=should_promote,
        warehouse=warehouse,
    )


def train_snapshot(
    snapshot: Snapshot,
    config: TrainConfig,
    workspace: Workspace,
    *,
    force: bool = False,
    should_promote: bool = True,
    warehouse: Warehouse | None = None,
) -> RunOutcome:
    """Do everything of ``run_all`` that comes after the snapshot.

    Without a warehouse, ``gate.unchecked`` decides what the gate's checks of it count as.
    """
    config = with_start(snapshot, config, workspace)
    splits = splits_of(snapshot, config)  # what is refused is refused before a run is begun
    check_segments(config, snapshot, splits)
    config.evaluate.rfm.positions(snapshot.feature_names)
    require_trackers(config.tracking)
    run = start_run(
        workspace.runs_dir,
        snapshot_id=snapshot.snapshot_id,
        snapshot_path=snapshot.path,
        config=config,
    )
    if force:
        for name in (METRICS_FILE, FIT_FILE):
            (run.path / name).unlink(missing_ok=True)
        clear_fits(run.path)
    bundle_id = None if force else packaged_bundle_id(run, workspace.models_dir)
    was_skipped = bundle_id is not None and run.is_fitted and is_evaluated(run)
    if was_skipped:
        workspace.progress.note(
            f"unchanged: snapshot {snapshot.snapshot_id}, settings and code are those of run "
            f"{run.run_id}, skipping; --force to retrain"
        )
    else:
        with track(snapshot, config, workspace) as tracked:
            run = fit_step(snapshot, config, workspace, on_log=tracked.on_log)
            if force or not is_evaluated(run):
                evaluate_step(run, snapshot, workspace)
            bundle = package_step(run, snapshot, workspace)
            files = run.path / REPORT_FILE, bundle.directory / MODEL_CARD_FILE
            tracked.results(run.read_json(METRICS_FILE), *files)
        bundle_id = bundle.bundle_id
    assert bundle_id is not None
    metrics = run.read_json(METRICS_FILE)
    verdict = None
    if should_promote and was_skipped and _was_set_aside(workspace.models_dir, bundle_id):
        workspace.progress.note(
            f"bundle {bundle_id} was retired, or another one became champion after it: left as it "
            f"is; `churn-train models promote {bundle_id}` brings it back"
        )
    elif should_promote:
        verdict = _promote_if_good(config, workspace, warehouse, bundle_id)
    return RunOutcome(
        run_id=run.run_id,
        snapshot_id=snapshot.snapshot_id,
        bundle_id=bundle_id,
        is_champion=champion_id(workspace.models_dir) == bundle_id,
        was_skipped=was_skipped,
        metrics=metrics,
        report=run.path / REPORT_FILE,
        gate_error=verdict.error() if verdict else None,
        verdict=verdict,
    )


def splits_of(snapshot: Snapshot, config: TrainConfig) -> Splits:
    """Return the splits that these settings make of a snapshot."""
    return make_splits(snapshot, config.splits, seed=config.fit.seed)


def _promote_if_good(
    config: TrainConfig, workspace: Workspace, warehouse: Warehouse | None, bundle_id: str
) -> GateVerdict | None:
    """Promote a model that passes the gate; None where it is the champion already."""
    if champion_id(workspace.models_dir) == bundle_id:
        return None
    places = Places(
        warehouse=warehouse, runs_dir=workspace.runs_dir, snapshots_dir=workspace.snapshots_dir
    )
    verdict = judge_candidate(
        workspace.models_dir, bundle_id, config, places, progress=workspace.progress
    )
    if verdict.is_passed:
        promote_candidate(
            workspace.models_dir,
            bundle_id,
            reason=GATE_REASON,
            checks=verdict.to_dicts(),
            expected_champion=verdict.expected_champion,
        )
    return verdict


def _was_set_aside(models_dir: ModelsDir, bundle_id: str) -> bool:
    """Return whether somebody retired a bundle, or chose another champion after it."""
    registry = read_registry(models_dir)
    if bundle_id == registry.champion_id:
        return False
    return registry.stage_of(bundle_id) == RETIRED or any(
        entry.bundle_id == bundle_id and entry.to_stage == CHAMPION
        for entry in registry.transitions
    )
