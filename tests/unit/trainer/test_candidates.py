"""Kinds of ensembles judged, shipped, packaged and scored, on synthetic users."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_example import Trained, quiet_workspace, tiny_config, trained_copy

from churn_udf.bundle_store import Bundle, open_bundle
from churn_udf.calibration import Calibrator
from churn_udf.model.ensemble import EnsembleRunner, read_ensemble
from churn_udf.scoring import Scorer
from trainer.candidates import Candidate, shipped_calibrator
from trainer.data.snapshot import Snapshot
from trainer.data.splits import make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.evaluate import fit_calibrator
from trainer.evaluate.base_rates import base_rate_offset
from trainer.evaluate.tabular import BaselineRows, choose_lightgbm
from trainer.fit.refit import Fits
from trainer.pipeline import RunOutcome, train_snapshot
from trainer.runs import Run, open_run

STACK = {"ensemble__kinds": "stack", "ensemble__members": "bert,gbm,logistic,bg_nbd"}


def judged_again(root: Path, **overrides: object) -> tuple[Trained, Run, Bundle]:
    """Judge a copy of the session's run with other members; nothing is trained."""
    trained = trained_copy(root)
    outcome = train_snapshot(trained.snapshot, tiny_config(**overrides), trained.workspace)
    assert outcome.run_id == trained.outcome.run_id
    bundle = open_bundle(trained.workspace.models_dir / "bundles" / outcome.bundle_id)
    run = open_run(trained.workspace.runs_dir, outcome.run_id)
    return Trained(root, trained.workspace, outcome), run, bundle


def relabelled(snapshot: Snapshot, rows: Any) -> Snapshot:
    """The snapshot with the labels of some rows turned round."""
    churned = snapshot.table.column("is_churned").to_pylist()
    for row in rows:
        churned[row] = not churned[row]
    position = snapshot.table.schema.get_field_index("is_churned")
    table = snapshot.table.set_column(position, "is_churned", pa.array(churned, pa.bool_()))
    return dataclasses.replace(snapshot, table=table)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Run, Bundle]:
    """A run whose stack was asked for; tests only read it."""
    return judged_again(tmp_path_factory.mktemp("stack"), **STACK)


def test_a_stack_is_scored_as_it_was_shipped(stack: tuple[Trained, Run, Bundle]) -> None:
    trained, run, bundle = stack
    assert trained.outcome.metrics["model"] == "stack"
    assert trained.outcome.is_champion
    ensemble = read_ensemble(bundle.directory)
    assert ensemble.kind == "stack"
    assert dict(ensemble.weights) == trained.outcome.metrics["ensemble"]["weights"]["stack"]
    assert len(ensemble.weights) > 1
    sample = run.read_json("shipped.json")
    rows, snapshot = np.asarray(sample["rows"]), trained.snapshot
    scorer = Scorer.load(bundle, device="cpu", precision="fp32")
    found = scorer.score_arrays(*snapshot.texts(rows), snapshot.feature_matrix[rows])
    np.testing.assert_allclose(found.probabilities, sample["probabilities"], atol=1e-6)
    assert len(rows) == 200
    assert np.ptp(found.probabilities) > 0.2


def test_every_kind_is_in_the_metrics_and_the_table(stack: tuple[Trained, Run, Bundle]) -> None:
    metrics = stack[0].outcome.metrics
    assert list(metrics["test"])[:2] == ["stack", "bert"]
    assert set(metrics["ensemble"]["valid_log_loss"]) == {"bert", "gbm", "stack"}
    assert "bert" in metrics["differences"]
    assert metrics["calibration"]["base_rate_kind"] == "shrunk"


def test_test_predictions_are_the_weighted_members(stack: tuple[Trained, Run, Bundle]) -> None:
    """What is shipped is fitted anew; what is judged did not know the test rows."""
    trained, run, _ = stack
    table = pq.read_table(run.path / "predictions.parquet")
    assert "stack_logit" in table.column_names
    splits = make_splits(trained.snapshot, run.config.splits, seed=run.config.fit.seed)
    runner = EnsembleRunner.load(run.model_dir, trained.snapshot.features, device="cpu")
    texts = trained.snapshot.texts(splits.test)
    shipped = runner.run(*texts, trained.snapshot.feature_matrix[splits.test]).logits
    is_test = np.asarray(table.column("split").to_pylist()) == "test"
    judged = table.column("stack_logit").to_numpy()[is_test]
    assert np.corrcoef(shipped, judged)[0, 1] > 0.6
    assert np.abs(shipped - judged).max() > 1e-3


def test_trees_alone_are_judged_packaged_and_scored(tmp_path: Path) -> None:
    trained, run, bundle = judged_again(
        tmp_path, ensemble__kinds="gbm", ensemble__members="bert,gbm"
    )
    assert trained.outcome.metrics["model"] == "gbm"
    assert read_ensemble(bundle.directory).weights == {"gbm": 1.0}
    snapshot = trained.snapshot
    scorer = Scorer.load(bundle, device="cpu", precision="fp32")
    scored = pa.Table.from_batches(
        list(scorer.score_batches(snapshot.table.slice(0, 30).combine_chunks().to_batches()))
    )
    splits = make_splits(snapshot, run.config.splits, seed=run.config.fit.seed)

    def rows_of(rows: Any) -> BaselineRows:
        return BaselineRows(
            features_NF=snapshot.feature_matrix[rows],
            labels_N=snapshot.labels[rows],
            user_ids_N=np.asarray(snapshot.user_ids(rows)),
        )

    names = snapshot.feature_names
    recipe = choose_lightgbm(rows_of(splits.train), rows_of(splits.valid), names, 0)
    last = recipe.fit(rows_of(splits.final))
    assert (bundle.directory / "gbm.txt").read_text() == last.model_text
    expected = bundle.calibrator.apply(last.logits_of(snapshot.feature_matrix[:30]))
    np.testing.assert_allclose(
        scored.column("churn_probability").to_numpy(), expected, rtol=0, atol=1e-12
    )
    effects = np.asarray(scored.column("reason_effects").to_pylist())
    assert np.isfinite(effects).all()
    assert effects.any()


def test_the_shipped_calibrator_pools_validation_and_test(
    stack: tuple[Trained, Run, Bundle],
) -> None:
    trained, run, bundle = stack
    snapshot = trained.snapshot
    table = pq.read_table(run.path / "predictions.parquet")
    logits, labels = (table.column(name).to_numpy() for name in ("stack_logit", "label"))
    users = np.asarray(table.column("user_id").to_pylist())
    splits = make_splits(snapshot, run.config.splits, seed=run.config.fit.seed)
    assert len(logits) == len(splits.valid) + len(splits.test)
    expected, _ = fit_calibrator(logits, labels, users, kinds=(bundle.calibrator.kind,), seed=0)
    assert bundle.calibrator.params == expected.params
    offset = base_rate_offset("shrunk", expected, logits, labels.astype(float), np.empty(0))
    assert bundle.calibrator.offset == pytest.approx(offset)


def calibrator_of(snapshot: Snapshot, **settings: object) -> tuple[Calibrator, Any, Any]:
    """Ship a calibrator of made-up logits, without any fit."""
    config = tiny_config(**settings)
    splits = make_splits(snapshot, config.splits, seed=0)
    generator = np.random.default_rng(0)
    logits = {name: generator.normal(size=len(getattr(splits, name))) for name in ("valid", "test")}
    found = Candidate(
        ensemble=cast(Any, None),
        calibrator=Calibrator(kind="platt", params={"a": [1.0], "b": [0.0]}),
        calibration={},
        logits=logits,
        probabilities={},
    )
    directories = {name: Path(name) for name in ("first", "judged", "shipped")}
    fits = Fits(**cast(Any, directories), history=[], facts={})
    run = cast(Run, types.SimpleNamespace(config=config))
    return shipped_calibrator(run, snapshot, splits, found, fits), splits, logits


def test_labels_that_are_not_known_yet_calibrate_nothing(tmp_path: Path) -> None:
    whole = synthetic_snapshot(tmp_path, num_users=60, num_cutoffs=16)
    cutoffs = np.unique(whole.cutoff_dates[~np.isnan(whole.labels)])
    snapshot = whole.until(cutoffs[-1].item())  # the test labels lie after the score cutoff
    found, splits, logits = calibrator_of(snapshot)
    turned, *_ = calibrator_of(relabelled(snapshot, splits.test))
    assert found == turned
    users = np.asarray(snapshot.user_ids(splits.valid))
    expected, _ = fit_calibrator(
        logits["valid"], snapshot.labels[splits.valid], users, kinds=("platt",), seed=0
    )
    assert found.params == expected.params
    known, splits, _ = calibrator_of(whole)
    changed, *_ = calibrator_of(relabelled(whole, splits.test))
    assert known != changed


def test_fewer_cutoffs_to_learn_from_do_not_empty_the_calibration(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=60, num_cutoffs=16)
    few = {"splits__test_cutoffs": 2, "splits__max_train_cutoffs": 1}
    found, splits, _ = calibrator_of(snapshot, **few)
    assert not np.isin(splits.valid, splits.final).all()
    assert np.isfinite(found.offset)


def probabilities(root: Path, outcome: RunOutcome) -> dict[str, np.ndarray]:
    """Split -> what the chosen model said."""
    table = pq.read_table(root / "runs" / outcome.run_id / "predictions.parquet")
    split = np.asarray(table.column("split").to_pylist())
    values = table.column(outcome.metrics["model"]).to_numpy()
    return {name: values[split == name] for name in ("valid", "test")}


SMALL = {
    "ensemble__members": "bert,gbm,logistic,rfm_logistic,bg_nbd",
    "ensemble__kinds": "bert,gbm,stack",
    "fit__numeric_epochs": 10,
}


def test_two_folders_one_killed_between_fits_end_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.fit import loop

    config = tiny_config(**SMALL)
    snapshot = synthetic_snapshot(tmp_path / "snapshots", num_users=100)
    first = train_snapshot(snapshot, config, quiet_workspace(tmp_path / "a"))
    fit_model, calls = loop.fit_model, []

    def killed_at_second(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments[3].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit_model(*arguments, **options)

    monkeypatch.setattr(loop, "fit_model", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        train_snapshot(snapshot, config, quiet_workspace(tmp_path / "b"))
    second = train_snapshot(snapshot, config, quiet_workspace(tmp_path / "b"))
    assert calls == ["first", "refit", "refit", "final"]
    assert second.bundle_id == first.bundle_id
    assert json.dumps(second.metrics, sort_keys=True) == json.dumps(first.metrics, sort_keys=True)


@pytest.mark.parametrize("refit", ["test", "all"])
def test_what_is_judged_never_learned_a_test_label(tmp_path: Path, refit: str) -> None:
    """Turn the test labels round: only metrics move, and what ships when it may know them."""
    config = tiny_config(**STACK, fit__refit=refit, fit__numeric_epochs=10)
    snapshot = synthetic_snapshot(tmp_path / "snapshots", num_users=100)
    splits = make_splits(snapshot, config.splits, seed=config.fit.seed)
    outcomes = {
        name: train_snapshot(item, config, quiet_workspace(tmp_path / name))
        for name, item in {"a": snapshot, "b": relabelled(snapshot, splits.test)}.items()
    }
    plain, turned = (probabilities(tmp_path / name, outcomes[name]) for name in "ab")
    for name in ("valid", "test"):
        np.testing.assert_array_equal(plain[name], turned[name])
    auroc = [found.metrics["test"]["stack"]["auroc"]["value"] for found in outcomes.values()]
    assert auroc[0] + auroc[1] == pytest.approx(1.0)
    assert auroc[0] > 0.6
    assert outcomes["a"].metrics["ensemble"] == outcomes["b"].metrics["ensemble"]
    assert outcomes["a"].metrics["threshold"] == outcomes["b"].metrics["threshold"]
    for name in ("gbm.txt", "logistic.json", "bg_nbd.json", "model.safetensors"):
        files = [
            tmp_path / folder / "runs" / found.run_id / "model" / name
            for folder, found in outcomes.items()
        ]
        is_same = files[0].read_bytes() == files[1].read_bytes()
        assert is_same == (refit == "test" or name == "bg_nbd.json"), name  # that reads no label
    calibrations = [
        (tmp_path / folder / "runs" / found.run_id / "calibration.json").read_text()
        for folder, found in outcomes.items()
    ]
    assert (calibrations[0] == calibrations[1]) == (refit == "test")


@pytest.mark.parametrize(
    ("refit", "shipped"), [("none", "first"), ("test", "refit"), ("all", "final")]
)
def test_refit_ships_the_fit_it_names(tmp_path: Path, refit: str, shipped: str) -> None:
    config = tiny_config(
        ensemble__kinds="gbm", ensemble__members="bert,gbm", fit__refit=refit, fit__numeric_epochs=5
    )
    snapshot = synthetic_snapshot(tmp_path / "snapshots", num_users=80)
    outcome = train_snapshot(snapshot, config, quiet_workspace(tmp_path))
    run = open_run(tmp_path / "runs", outcome.run_id)
    facts = run.read_json("fit.json")["facts"]
    judged = "first" if refit == "none" else "refit"
    assert facts["models"] == {
        "first": "fits/first",
        "refit": f"fits/{judged}",
        "final": f"fits/{shipped}",
    }
    weights = (run.model_dir / "model.safetensors").read_bytes()
    assert weights == (run.path / f"fits/{shipped}/model/model.safetensors").read_bytes()
    splits = make_splits(snapshot, config.splits, seed=config.fit.seed)
    rows = {"first": splits.train, "refit": splits.refit, "final": splits.final}[shipped]
    trees = (run.model_dir / "gbm.txt").read_text()
    root_count = int(trees.split("\ninternal_count=")[1].split()[0])
    assert 0.7 * len(rows) < root_count < 0.9 * len(rows)  # four fifths are drawn for each tree
    assert list(facts["refits"]) == [name for name in ("refit", "final") if name in facts["refits"]]
    assert len(facts["refits"]) == {"none": 0, "test": 1, "all": 2}[refit]
