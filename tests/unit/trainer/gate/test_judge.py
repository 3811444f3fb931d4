"""The whole gate, on a trained model, its snapshot and a table that stands in for the warehouse."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from champion import forget_champion
from gate_example import StandIn, copy_of_bundle, warehouse_of
from training_example import Trained, tiny_config, trained_copy

from churn_udf.calibration import Calibrator
from churn_udf.errors import BundleIntegrityError, BundleNotFoundError, ChampionChangedError
from churn_udf.registry import CHAMPION, move, read_registry
from trainer.config import TrainConfig
from trainer.data.warehouse import Warehouse
from trainer.release import parity
from trainer.release.gate import GateVerdict, Places, judge_candidate
from trainer.release.gate.promoting import promote_gated

STRICT = tiny_config(gate__unchecked="refuse")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A trained champion and bundles beside it, for tests that only look."""
    return trained_copy(tmp_path_factory.mktemp("gate") / "trained")


@pytest.fixture
def warehouse(shared: Trained) -> Iterator[StandIn]:
    with warehouse_of(shared.snapshot) as found:
        yield found


def places_of(trained: Trained, warehouse: Any = None) -> Places:
    return Places(
        warehouse=cast(Warehouse, warehouse) if warehouse else None,
        runs_dir=trained.workspace.runs_dir,
        snapshots_dir=trained.workspace.snapshots_dir,
    )


def judge(
    trained: Trained, bundle_id: str, warehouse: Any = None, config: TrainConfig = STRICT
) -> GateVerdict:
    places = places_of(trained, warehouse)
    return judge_candidate(trained.workspace.models_dir, bundle_id, config, places)


def failed(verdict: GateVerdict) -> set[str]:
    return {check.name for check in verdict.failed}


def test_good_model_passes_every_check_and_each_says_number_and_limit(
    shared: Trained, warehouse: StandIn
) -> None:
    verdict = judge(shared, shared.outcome.bundle_id, warehouse)
    assert failed(verdict) == set()
    assert verdict.expected_champion == shared.outcome.bundle_id
    by_name = {check.name: check for check in verdict.checks}
    assert set(by_name) >= {
        *("snapshot_files", "snapshot_settings", "snapshot_labels", "snapshot_label_changes"),
        *("snapshot_age", "test_auroc", "test_recency", "test_base_rate", "segment_auroc"),
        *("test_baselines_log_loss", "test_calibration_gap", "test_calibration_error"),
        *("labelled_rows", "shipped_auroc", "shipped_base_rate", "shipped_recency"),
        *("shipped_claim", "shipped_calibration_gap", "champion_auroc", "champion_log_loss"),
        "parity",
    }
    assert all(check.is_checked and check.limit is not None for check in verdict.checks)
    assert by_name["parity"].value is not None
    assert by_name["parity"].value <= 1e-6
    assert by_name["parity"].limit == 1e-5
    assert by_name["champion_auroc"].value == 0.0
    json.dumps(verdict.to_dicts(), allow_nan=False)


def test_turned_around_copy_is_refused_though_its_metrics_look_fine(
    shared: Trained, warehouse: StandIn
) -> None:
    models_dir = shared.workspace.models_dir
    bad = copy_of_bundle(models_dir, shared.outcome.bundle_id)
    verdict = judge(shared, bad, warehouse)
    assert failed(verdict) >= {"shipped_auroc", "shipped_claim", "champion_auroc"}
    assert not any(name.startswith(("test_", "segment_", "snapshot_")) for name in failed(verdict))
    assert "parity" not in failed(verdict)
    without_runs = judge_candidate(
        models_dir, bad, STRICT, Places(warehouse=cast(Warehouse, warehouse))
    )
    assert failed(without_runs) >= {"shipped_auroc", "champion_auroc", "snapshot_files"}
    forgotten = dataclasses.replace(places_of(shared), runs_dir=None)
    assert failed(judge_candidate(models_dir, bad, STRICT, forgotten)) >= {"shipped_auroc"}


def test_overconfident_copy_is_refused_for_its_calibration(
    shared: Trained, warehouse: StandIn
) -> None:
    sharp = Calibrator(kind="temperature", params={"temperature": [0.02]})
    bad = copy_of_bundle(shared.workspace.models_dir, shared.outcome.bundle_id, sharp)
    names = failed(judge(shared, bad, warehouse))
    assert "shipped_calibration_error" in names
    assert "champion_log_loss" in names
    assert "shipped_auroc" not in names


def test_copy_that_says_all_churn_is_refused_for_its_mean(
    shared: Trained, warehouse: StandIn
) -> None:
    high = Calibrator(kind="platt", params={"a": [1.0], "b": [3.0]})
    bad = copy_of_bundle(shared.workspace.models_dir, shared.outcome.bundle_id, high)
    assert "shipped_calibration_gap" in failed(judge(shared, bad, warehouse))


def test_first_champion_has_nobody_to_be_compared_with(trained: Trained) -> None:
    forget_champion(trained.workspace.models_dir)
    verdict = judge(trained, trained.outcome.bundle_id)
    (check,) = [one for one in verdict.checks if one.name.startswith("champion")]
    assert check.is_passed
    assert "no champion yet" in check.message
    assert verdict.expected_champion is None


def test_champion_of_other_settings_holds_nobody_back(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    champion = models_dir / "bundles" / trained.outcome.bundle_id
    other = copy_of_bundle(models_dir, trained.outcome.bundle_id, None, _older)
    shutil.rmtree(champion)
    verdict = judge(trained, other)
    (check,) = [one for one in verdict.checks if one.name.startswith("champion")]
    assert check.is_passed
    assert "cannot score these rows" in check.message


def _older(training: dict[str, Any]) -> None:
    training["seed"] = 77


def test_without_a_warehouse_the_checks_of_it_are_refused_unless_allowed(shared: Trained) -> None:
    verdict = judge(shared, shared.outcome.bundle_id)
    assert failed(verdict) == {"snapshot_label_changes", "parity"}
    assert "--project-dir" in str(verdict.error())
    allowed = judge(shared, shared.outcome.bundle_id, config=tiny_config())
    assert failed(allowed) == set()
    assert [check.name for check in allowed.checks if not check.is_checked] == [
        "snapshot_label_changes",
        "parity",
    ]


def test_labels_that_changed_since_are_counted(shared: Trained, warehouse: StandIn) -> None:
    cutoff = "(select max(cutoff_date) from churn_examples where is_label_mature)"
    change = (
        "update churn_examples set is_churned = not is_churned "
        f"where cutoff_date = {cutoff} and user_id < 'user_{{:06d}}'"
    )
    warehouse.connection.execute(change.format(4))
    assert failed(judge(shared, shared.outcome.bundle_id, warehouse)) == set()
    warehouse.connection.execute(f"{change.format(5)} and user_id >= 'user_000004'")
    verdict = judge(shared, shared.outcome.bundle_id, warehouse)
    assert failed(verdict) == {"snapshot_label_changes"}
    assert "5 of 200 labels" in str(verdict.error())


@pytest.mark.parametrize(
    ("days", "refused"), [(34, set()), (35, set()), (36, {"snapshot_age"})], ids=str
)
def test_old_snapshot_is_refused(
    shared: Trained, warehouse: StandIn, days: int, refused: set[str]
) -> None:
    newest = "(select max(cutoff_date) from churn_examples where is_label_mature)"
    session = warehouse.connection
    for table in ("int_data_bounds", "int_cutoffs_spined"):
        column = "data_end_date" if table == "int_data_bounds" else "cutoff_date"
        session.execute(f"update {table} set {column} = {column} + 400")
    session.execute(
        f"insert into churn_examples select * replace (cutoff_date + {days} as cutoff_date) "
        f"from churn_examples where cutoff_date = {newest}"
    )
    assert failed(judge(shared, shared.outcome.bundle_id, warehouse)) == refused


def test_newest_labels_of_the_warehouse_are_what_the_bundle_is_judged_by(
    shared: Trained, warehouse: StandIn
) -> None:
    session = warehouse.connection
    for table in ("int_data_bounds", "int_cutoffs_spined"):
        column = "data_end_date" if table == "int_data_bounds" else "cutoff_date"
        session.execute(f"update {table} set {column} = {column} + 400")
    session.execute(
        "insert into churn_examples select * replace (cutoff_date + 7 as cutoff_date, "
        "not is_churned as is_churned) from churn_examples where cutoff_date = "
        "(select max(cutoff_date) from churn_examples where is_label_mature)"
    )
    verdict = judge(shared, shared.outcome.bundle_id, warehouse)
    assert "shipped_auroc" in failed(verdict)
    (rows,) = [check for check in verdict.checks if check.name == "labelled_rows"]
    assert "2024-05-13 (the warehouse)" in rows.message


def test_few_churners_are_not_enough(shared: Trained, warehouse: StandIn) -> None:
    few = tiny_config(gate__min_class_rows=75, gate__unchecked="refuse")
    verdict = judge(shared, shared.outcome.bundle_id, warehouse, few)
    assert failed(verdict) == {"labelled_rows"}
    assert "the fewer are 74; at least 75" in str(verdict.error())
    enough = tiny_config(gate__min_class_rows=74, gate__unchecked="refuse")
    assert judge(shared, shared.outcome.bundle_id, warehouse, enough).is_passed


def test_rows_can_be_bounded(shared: Trained, warehouse: StandIn) -> None:
    few = tiny_config(gate__max_rows=120)
    told = []
    for place in (warehouse, None):
        verdict = judge(shared, shared.outcome.bundle_id, place, few)
        (rows,) = [check for check in verdict.checks if check.name == "labelled_rows"]
        assert rows.detail["churned"] + rows.detail["stayed"] == 120
        told.append(rows.value)
    assert told[0] == told[1], "the same users, drawn by hash"


def test_other_windows_are_refused(shared: Trained) -> None:
    with warehouse_of(shared.snapshot) as found:
        other = StandIn(shared.snapshot, found.connection, horizon_days=7)
        verdict = judge(shared, shared.outcome.bundle_id, other)
    assert failed(verdict) == {"snapshot_settings", "shipped_auroc", "parity"}
    assert "horizon_days 28 against 7 of the warehouse" in str(verdict.error())


def test_warehouse_that_scores_otherwise_is_refused(
    shared: Trained, warehouse: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = parity.make_churn_score

    def shifted(get_scorer: Any) -> Any:
        function = make(get_scorer)

        def churn_score(behavior: Any, review: Any, features: Any) -> pa.Array:
            return pc.multiply(function(behavior, review, features), 1 - 4e-5)

        return churn_score

    monkeypatch.setattr(parity, "make_churn_score", shifted)
    verdict = judge(shared, shared.outcome.bundle_id, warehouse)
    assert failed(verdict) == {"parity"}
    assert "at most 1e-05" in str(verdict.error())


def test_damaged_or_missing_snapshot_is_refused(trained: Trained) -> None:
    shard = trained.snapshot.path / "part-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 255
    shard.write_bytes(content)
    verdict = judge(trained, trained.outcome.bundle_id)
    assert "snapshot_files" in failed(verdict)
    assert "is damaged" in str(verdict.error())
    shutil.rmtree(shard.parent)
    missing = judge(trained, trained.outcome.bundle_id)
    assert failed(missing) >= {"snapshot_files", "shipped_auroc"}
    assert "--snapshots-dir" in str(missing.error())


def test_missing_or_damaged_candidate_is_an_error(trained: Trained) -> None:
    with pytest.raises(BundleNotFoundError):
        judge(trained, "0" * 16)
    directory = trained.workspace.models_dir / "bundles" / trained.outcome.bundle_id
    (directory / "metrics.json").write_text("{}")
    with pytest.raises(BundleIntegrityError):
        judge(trained, trained.outcome.bundle_id)


def promote(trained: Trained, bundle_id: str, **options: Any) -> Any:
    return promote_gated(
        trained.workspace.models_dir,
        bundle_id,
        tiny_config(),
        places_of(trained),
        reason=options.pop("reason", "why"),
        **options,
    )


def test_refused_candidate_moves_nothing_until_somebody_overrides(trained: Trained) -> None:
    models_dir, champion = trained.workspace.models_dir, trained.outcome.bundle_id
    bad = copy_of_bundle(models_dir, champion)
    before = files_of(trained.root)
    for options in ({}, {"dry_run": True}, {"dry_run": True, "is_override": True}):
        promote(trained, bad, **options)
        assert files_of(trained.root) == before
    assert promote(trained, bad).is_refused
    assert read_registry(models_dir).champion_id == champion
    forced = promote(trained, bad, is_override=True, reason="to see")
    assert not forced.is_refused
    assert forced.move.is_override
    entry = read_registry(models_dir).transitions[-1]
    assert (entry.bundle_id, entry.is_override, entry.reason) == (bad, True, "to see")
    refused = {check["name"] for check in entry.checks if not check["is_passed"]}
    assert "shipped_auroc" in refused
    back = promote(trained, champion)
    assert back.verdict is None
    assert read_registry(models_dir).champion_id == champion
    assert promote(trained, bad).is_refused, "an override proves nothing"


def files_of(root: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_passed_candidate_is_promoted_with_its_checks(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    good = copy_of_bundle(models_dir, trained.outcome.bundle_id, None, _older)
    planned = promote(trained, good, dry_run=True)
    assert not planned.is_refused
    assert not planned.move.was_moved
    assert read_registry(models_dir).champion_id == trained.outcome.bundle_id
    done = promote(trained, good, is_override=True)
    assert not done.move.is_override, "there was nothing to override"
    assert done.move.previous_bundle_id == trained.outcome.bundle_id
    entry = read_registry(models_dir).transitions[-1]
    assert (entry.to_stage, entry.is_override) == (CHAMPION, False)
    assert {check["name"] for check in entry.checks} >= {"champion_auroc", "parity"}


def test_promotion_meanwhile_is_noticed(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.release.gate import promoting

    models_dir = trained.workspace.models_dir
    good = copy_of_bundle(models_dir, trained.outcome.bundle_id, None, _older)
    rival = copy_of_bundle(models_dir, trained.outcome.bundle_id)
    judge_first = promoting.judge_candidate

    def slow(*arguments: Any, **options: Any) -> Any:
        verdict = judge_first(*arguments, **options)
        move(models_dir, rival, CHAMPION, reason="somebody else")
        return verdict

    monkeypatch.setattr(promoting, "judge_candidate", slow)
    with pytest.raises(ChampionChangedError, match="in between"):
        promote(trained, good)
    assert read_registry(models_dir).champion_id == rival


def test_scores_of_the_gate_are_those_of_the_bundle(shared: Trained) -> None:
    from churn_udf.bundles import open_bundle
    from churn_udf.scoring import Scorer
    from trainer.release.gate.evidence import Model

    models_dir = shared.workspace.models_dir
    model = Model.open(models_dir, shared.outcome.bundle_id)
    table = shared.snapshot.table.slice(0, 40)
    batch = table.combine_chunks().to_batches()[0]
    bundle = open_bundle(models_dir / "bundles" / shared.outcome.bundle_id)
    expected = Scorer.load(bundle, device="cpu").score_batch(batch).column("churn_probability")
    np.testing.assert_allclose(model.score(table, "cpu"), expected.to_numpy(), atol=1e-12)
    assert model.score(table.slice(0, 0), "cpu").shape == (0,)
