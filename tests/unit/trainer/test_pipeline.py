"""The steps from snapshot to champion, on synthetic users."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from champion import forget_champion
from training_example import Trained, quiet_workspace, tiny_config

from churn_udf.bundle_store import open_bundle, read_champion, set_champion
from churn_udf.scoring import Scorer
from trainer import pipeline
from trainer.config import load_config
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError, RunError, SplitError
from trainer.evaluate import METRIC_NAMES
from trainer.pipeline import evaluate_step, train_snapshot
from trainer.progress import Progress
from trainer.release.promotion import retire_model
from trainer.runs import (
    code_version,
    evaluation_key,
    finite_or_none,
    open_run,
    run_id_of,
    start_run,
    write_text,
)


def test_run_leaves_everything_behind(trained: Trained) -> None:
    run = open_run(trained.workspace.runs_dir, trained.outcome.run_id)
    assert {path.name for path in run.path.iterdir()} >= {
        *("run.json", "config.yaml", "splits.json", "fit.json", "history.jsonl", "model"),
        *("calibration.json", "thresholds.json", "metrics.json", "predictions.parquet"),
        *("report.html", "bundle.json"),
    }
    assert not list(run.path.glob(".*"))
    assert run.config == tiny_config()
    assert run.snapshot_path.resolve() == trained.snapshot.path.resolve()
    assert trained.outcome.is_champion
    assert not trained.outcome.was_skipped


def test_metrics_have_every_model_metric_and_interval(trained: Trained) -> None:
    found = trained.outcome.metrics
    assert list(found["test"]) == ["bert", "base_rate", "recency"]
    for table in found["test"].values():
        assert list(table) == list(METRIC_NAMES)
        for interval in table.values():
            assert interval["low"] is None or interval["low"] <= interval["high"]
    assert set(found["differences"]) == {"base_rate", "recency"}
    assert found["best_baseline"] == "recency"
    assert found["test"]["bert"]["auroc"]["value"] > 0.65


def test_predictions_repeat_the_metrics(trained: Trained) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    table = pq.read_table(run.path / "predictions.parquet").to_pandas()
    assert set(table["split"]) == {"valid", "test"}
    test = table[table["split"] == "test"]
    assert len(test) == 200
    brier = float(np.mean((test["bert"] - test["label"]) ** 2))
    expected = trained.outcome.metrics["test"]["bert"]["brier_score"]["value"]
    assert brier == pytest.approx(expected)


def test_report_is_one_page_about_this_run(trained: Trained) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    page = (run.path / "report.html").read_text()
    assert run.run_id in page
    assert trained.outcome.snapshot_id in page


def test_nothing_is_done_twice(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "fit_step", _must_not_run)
    monkeypatch.setattr(pipeline, "evaluate_step", _must_not_run)
    monkeypatch.setattr(pipeline, "package_step", _must_not_run)
    stream = io.StringIO()
    workspace = dataclasses.replace(trained.workspace, progress=Progress(stream))
    again = train_snapshot(trained.snapshot, tiny_config(), workspace)
    assert again.was_skipped
    assert again.bundle_id == trained.outcome.bundle_id
    assert "unchanged: " in stream.getvalue()
    assert "--force" in stream.getvalue()


def _must_not_run(*_: Any, **__: Any) -> Any:
    raise AssertionError("this step should have been skipped")


def test_other_thresholds_judge_anew_without_training(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.fit.loop.fit_model", _must_not_run)
    config = tiny_config(thresholds__strategy="capacity", thresholds__parameter=0.2)
    outcome = train_snapshot(trained.snapshot, config, trained.workspace)
    assert outcome.run_id == trained.outcome.run_id
    assert outcome.bundle_id != trained.outcome.bundle_id
    assert outcome.metrics["threshold"]["strategy"] == "capacity"
    champion = read_champion(trained.workspace.models_dir)
    assert champion is not None
    assert champion.previous_bundle_id == trained.outcome.bundle_id


def test_metrics_hold_every_segment_and_the_reliability_of_every_cutoff(trained: Trained) -> None:
    found = trained.outcome.metrics
    assert list(found["slices"]["by"]) == ["tenure", "value", "frequency"]
    for division in found["slices"]["by"].values():
        segments = division["segments"]
        assert sum(segment["rows"] for segment in segments) == 200
        assert all(("metrics" in one) is (one["too_small"] is None) for one in segments)
    everybody = found["slices"]["all"]["metrics"]
    for name in ("auroc", "log_loss", "brier_score", "recall", "precision"):
        assert everybody[name]["value"] == pytest.approx(found["test"]["bert"][name]["value"])
    for split in ("valid", "test"):
        cutoffs = [one["segment"] for one in found["reliability"][split]["cutoffs"]]
        assert cutoffs == found["splits"][split]["cutoffs"]
    run = open_run(trained.workspace.runs_dir, None)
    card = (run.path / "report.html").read_text()
    assert "By segment" in card


def test_flags_by_group_are_the_same_judged_packaged_and_scored(trained: Trained) -> None:
    config = tiny_config(thresholds__per_group="recency", fit__refit="test")
    outcome = train_snapshot(trained.snapshot, config, trained.workspace)
    assert outcome.bundle_id != trained.outcome.bundle_id
    bundle = open_bundle(trained.workspace.models_dir / "bundles" / outcome.bundle_id)
    groups = bundle.thresholds.groups
    assert groups is not None
    assert groups.bands.feature == "days_since_active"
    stated = outcome.metrics["group_thresholds"]
    assert groups.flag_thresholds == tuple(stated["thresholds"])
    assert sum(one["is_own"] for one in stated["groups"]) >= 3
    cutoff = datetime.date.fromisoformat(outcome.metrics["splits"]["test"]["cutoffs"][0])
    test = pc.equal(trained.snapshot.table.column("cutoff_date"), cutoff)
    rows = trained.snapshot.table.filter(test).combine_chunks().to_batches()[0]
    scores = Scorer.load(bundle, device="cpu").score_batch(rows)
    flagged = scores.column("is_flagged").to_numpy(zero_copy_only=False)
    flag_rate = outcome.metrics["slices"]["all"]["metrics"]["flag_rate"]["value"]
    assert flagged.mean() == pytest.approx(flag_rate)
    recency = rows.column("days_since_active").to_numpy()
    bounds = np.array(groups.flag_thresholds)[groups.bands.groups_of(recency)]
    assert (flagged == (scores.column("churn_probability").to_numpy() >= bounds)).all()
    assert np.unique(bounds).size >= 3
    run = open_run(trained.workspace.runs_dir, outcome.run_id)
    assert "Flags are set by recency" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"evaluate__slices": ["tenur"]}, "'tenur' is unknown"),
        ({"fit__group_reweighting": "town"}, "'town' is unknown"),
        ({"thresholds__per_group": "profile.town"}, "is unknown"),
    ],
)
def test_unknown_segments_are_found_before_training(
    trained: Trained, setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "start_run", _must_not_run)
    with pytest.raises(ConfigError, match=message):
        train_snapshot(trained.snapshot, tiny_config(**setting), trained.workspace)


def test_thresholds_by_group_of_a_profile_column_are_refused(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(trained.snapshot), "profile_values", {"town": {"user_000001": "north"}}
    )
    with pytest.raises(ConfigError, match="'town', a profile column, which scoring does not see"):
        train_snapshot(
            trained.snapshot, tiny_config(thresholds__per_group="town"), trained.workspace
        )


def test_deleted_bundle_is_packaged_again(trained: Trained) -> None:
    bundle = trained.workspace.models_dir / "bundles" / trained.outcome.bundle_id
    bundle.rename(trained.root / "elsewhere")
    again = train_snapshot(trained.snapshot, tiny_config(), trained.workspace)
    assert not again.was_skipped
    assert again.bundle_id == trained.outcome.bundle_id
    assert bundle.is_dir()


def test_forced_run_trains_to_the_same_bundle(trained: Trained) -> None:
    again = train_snapshot(trained.snapshot, tiny_config(), trained.workspace, force=True)
    assert not again.was_skipped
    assert again.bundle_id == trained.outcome.bundle_id


def test_rollback_is_not_undone_by_an_unchanged_run(trained: Trained) -> None:
    config = tiny_config(thresholds__strategy="capacity")
    train_snapshot(trained.snapshot, config, trained.workspace)
    set_champion(trained.workspace.models_dir, trained.outcome.bundle_id, reason="rollback")
    again = train_snapshot(trained.snapshot, config, trained.workspace)
    assert again.was_skipped
    assert not again.is_champion
    champion = read_champion(trained.workspace.models_dir)
    assert champion is not None
    assert champion.bundle_id == trained.outcome.bundle_id


def test_retired_candidate_is_not_promoted_by_an_unchanged_run(trained: Trained) -> None:
    changed = tiny_config(thresholds__parameter=0.3, thresholds__strategy="capacity")
    refused = dataclasses.replace(changed, gate=dataclasses.replace(changed.gate, min_auroc=1.1))
    candidate = train_snapshot(trained.snapshot, refused, trained.workspace)
    assert candidate.gate_error is not None
    retire_model(trained.workspace.models_dir, candidate.bundle_id, reason="it misbehaves")
    again = train_snapshot(trained.snapshot, changed, trained.workspace)
    assert (again.bundle_id, again.was_skipped) == (candidate.bundle_id, True)
    assert not again.is_champion
    assert again.verdict is None


def test_unpromoted_model_is_promoted_by_the_next_run(trained: Trained) -> None:
    config = tiny_config(thresholds__strategy="capacity")
    first = train_snapshot(trained.snapshot, config, trained.workspace, should_promote=False)
    assert not first.is_champion
    second = train_snapshot(trained.snapshot, config, trained.workspace)
    assert second.was_skipped
    assert second.is_champion


def test_gate_keeps_the_bundle_but_not_the_crown(trained: Trained) -> None:
    forget_champion(trained.workspace.models_dir)
    config = tiny_config(gate__min_auroc=1.1)
    outcome = train_snapshot(trained.snapshot, config, trained.workspace)
    assert outcome.gate_error is not None
    assert "at least 1.100" in str(outcome.gate_error)
    assert read_champion(trained.workspace.models_dir) is None
    assert (trained.workspace.models_dir / "bundles" / outcome.bundle_id).is_dir()


def test_killed_before_evaluation_goes_on_with_the_trained_model(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    for name in ("metrics.json", "bundle.json", "predictions.parquet"):
        (run.path / name).unlink()
    monkeypatch.setattr("trainer.fit.loop.fit_model", _must_not_run)
    again = train_snapshot(trained.snapshot, tiny_config(), trained.workspace)
    assert again.bundle_id == trained.outcome.bundle_id


def test_refused_splits_begin_no_run(tmp_path: Path) -> None:
    workspace = quiet_workspace(tmp_path)
    snapshot = synthetic_snapshot(workspace.snapshots_dir, num_users=1, num_cutoffs=3)
    with pytest.raises(SplitError, match="both outcomes are needed"):
        train_snapshot(snapshot, tiny_config(), workspace)
    assert not workspace.runs_dir.exists()


def test_missing_baseline_feature_is_found_before_training(tmp_path: Path) -> None:
    workspace = quiet_workspace(tmp_path)
    snapshot = synthetic_snapshot(workspace.snapshots_dir, num_users=40)
    with pytest.raises(ConfigError, match="no_such_column"):
        train_snapshot(snapshot, tiny_config(evaluate__recency_feature="no_such_column"), workspace)
    assert not workspace.runs_dir.exists()


def test_unfitted_run_is_not_judged(tmp_path: Path) -> None:
    workspace = quiet_workspace(tmp_path)
    snapshot = synthetic_snapshot(workspace.snapshots_dir, num_users=40)
    run = start_run(
        workspace.runs_dir,
        snapshot_id=snapshot.snapshot_id,
        snapshot_path=snapshot.path,
        config=tiny_config(),
    )
    with pytest.raises(RunError, match="churn-train fit"):
        evaluate_step(run, snapshot, workspace)


def test_ids_follow_what_matters() -> None:
    plain, seeded = load_config(), load_config(overrides={"fit.seed": 1})
    judged = load_config(overrides={"evaluate.num_bootstrap": 5})
    assert run_id_of("s", plain, "v") != run_id_of("s", seeded, "v")
    assert run_id_of("s", plain, "v") != run_id_of("t", plain, "v")
    assert run_id_of("s", plain, "v") != run_id_of("s", plain, "w")
    assert run_id_of("s", plain, "v") == run_id_of("s", judged, "v")
    assert evaluation_key("r", plain) != evaluation_key("r", judged)
    assert evaluation_key("r", plain) == evaluation_key("r", load_config())
    assert code_version() == code_version()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("run.json", "damaged"),
        ("config.yaml", "does not know"),
    ],
)
def test_damaged_run_is_a_clear_error(trained: Trained, damage: str, message: str) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    (run.path / damage).write_text("fit: {no_such: 1}")
    with pytest.raises(RunError, match=message):
        open_run(trained.workspace.runs_dir, run.run_id)


def test_run_references(trained: Trained, tmp_path: Path) -> None:
    runs_dir, run_id = trained.workspace.runs_dir, trained.outcome.run_id
    assert open_run(runs_dir, run_id[:5]).run_id == run_id
    assert open_run(tmp_path, str(runs_dir / run_id)).run_id == run_id
    with pytest.raises(RunError, match="found: "):
        open_run(runs_dir, "zzz")
    with pytest.raises(RunError, match="no run in"):
        open_run(tmp_path / "nothing", None)


def test_json_has_null_for_undefined_numbers() -> None:
    nested = {"a": [float("nan"), 1.0], "b": {"c": float("inf")}}
    assert json.loads(json.dumps(finite_or_none(nested))) == {"a": [None, 1.0], "b": {"c": None}}


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
