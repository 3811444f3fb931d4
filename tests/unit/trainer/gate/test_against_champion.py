"""The comparison with the champion: who knows what, and the paired bootstrap."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
from gate_example import copy_of_bundle
from training_example import Trained, tiny_config

from churn_udf.registry import CHAMPION, move
from trainer.config import GateConfig
from trainer.evaluate import classification_metrics
from trainer.release.gate import Places, judge_candidate
from trainer.release.gate.against_champion import (
    BUNDLES,
    IN_SAMPLE,
    RECIPE,
    UNFAIR,
    against_champion,
    footing_of,
)
from trainer.release.gate.evidence import Model, Recipe, cutoff_of_snapshot
from trainer.release.gate.shipped_checks import (
    Outcomes,
    Sampling,
    calibration_gap,
    champion_checks,
)

CUTOFF = datetime.date(2024, 5, 6)
SAMPLING = Sampling(num_samples=200, seed=3, confidence=0.9)


@pytest.mark.parametrize(
    ("mine", "theirs", "has_test", "is_test_known", "expected"),
    [
        pytest.param(False, False, True, False, BUNDLES, id="neither-knows"),
        pytest.param(True, False, True, False, RECIPE, id="monthly"),
        pytest.param(True, True, True, True, IN_SAMPLE, id="weekly"),
        pytest.param(True, False, False, False, IN_SAMPLE, id="no-test-predictions"),
        pytest.param(False, True, True, True, UNFAIR, id="champion-alone-knows"),
    ],
)
def test_footing_follows_from_who_knows_the_labels(
    mine: bool, theirs: bool, has_test: bool, is_test_known: bool, expected: str
) -> None:
    found = footing_of(
        CUTOFF,
        CUTOFF if has_test else None,
        is_known_to_mine=mine,
        is_known_to_theirs=theirs,
        is_test_known_to_theirs=is_test_known,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("until", "knows"),
    [(-1, False), (0, False), (1, True), (None, True)],
    ids=["before", "at", "after", "unknown"],
)
def test_a_model_knows_a_cutoff_if_a_label_of_it_ends_later(
    trained: Trained, until: int | None, knows: bool
) -> None:
    model = Model.open(trained.workspace.models_dir, trained.outcome.bundle_id)
    date = None if until is None else CUTOFF + datetime.timedelta(days=until)
    assert Model(bundle=model.bundle, trained_until=date).knows(CUTOFF) == knows


def outcomes(num_users: int = 60) -> tuple[Outcomes, Any, Any]:
    generator = np.random.default_rng(1)
    users = np.repeat([f"u{index}" for index in range(num_users)], 2)
    labels = (generator.random(len(users)) < 0.4).astype(float)
    noise = generator.normal(0, 1, (2, len(users)))
    mine, theirs = 1 / (1 + np.exp(-(labels - 0.4 + noise)))
    return Outcomes(cutoff_date=CUTOFF, users=users, labels=labels), mine, theirs


def test_paired_bootstrap_resamples_users_as_computed_by_hand() -> None:
    found, mine, theirs = outcomes()
    checks = champion_checks(
        found, mine, theirs, GateConfig(), SAMPLING, {"champion": "c", "how": "h"}
    )
    generator = np.random.default_rng(SAMPLING.seed)
    drawn = generator.integers(0, 60, size=(200, 60))
    names = np.unique(found.users)
    place = {name: np.flatnonzero(found.users == name) for name in names}
    for check, metric, sign in zip(checks, ("auroc", "log_loss"), (1.0, -1.0), strict=True):
        gains = []
        for sample in drawn:
            rows = np.concatenate([place[names[user]] for user in sample])
            both = [
                classification_metrics(found.labels[rows], values[rows], 0.5)[metric]
                for values in (mine, theirs)
            ]
            gains.append(sign * (both[0] - both[1]))
        low, high = np.percentile(gains, [5, 95])
        assert check.value == pytest.approx(high, abs=1e-9)
        assert check.detail["difference"]["low"] == pytest.approx(low, abs=1e-9)


@pytest.mark.parametrize(("step", "is_passed"), [(1e-9, True), (0.0, True), (-1e-9, False)])
def test_a_deficit_is_compared_with_its_bound(step: float, is_passed: bool) -> None:
    found, mine, theirs = outcomes()
    detail = {"champion": "c", "how": "h"}
    (auroc, _) = champion_checks(found, theirs, mine, GateConfig(), SAMPLING, detail)
    assert auroc.value is not None
    gate = GateConfig(max_champion_deficit=-(auroc.value - step))
    (again, _) = champion_checks(found, theirs, mine, gate, SAMPLING, detail)
    assert again.is_passed == is_passed


def test_calibration_gap_is_the_mean_miss_with_users_resampled() -> None:
    found, mine, _ = outcomes()
    gap = calibration_gap(found, mine, SAMPLING)
    assert gap.value == pytest.approx(mine.mean() - found.labels.mean(), abs=1e-12)
    assert gap.low < gap.value < gap.high


def champion_detail(trained: Trained, bundle_id: str) -> dict[str, Any]:
    workspace = trained.workspace
    places = Places(runs_dir=workspace.runs_dir, snapshots_dir=workspace.snapshots_dir)
    verdict = judge_candidate(workspace.models_dir, bundle_id, tiny_config(), places)
    return {check.name: check for check in verdict.checks if "champion" in check.name}


def test_champion_that_does_not_know_meets_the_test_predictions(trained: Trained) -> None:
    """A monthly routine: the candidate's labels end after the cutoff, the champion's before."""
    models_dir, candidate = trained.workspace.models_dir, trained.outcome.bundle_id

    def end_at_the_cutoff(training: dict[str, Any]) -> None:
        training["trained_until"] = CUTOFF.isoformat()

    old = copy_of_bundle(models_dir, candidate, None, end_at_the_cutoff)
    move(models_dir, old, CHAMPION, reason="test")
    found = champion_detail(trained, candidate)
    assert set(found) == {
        *("champion_auroc", "champion_log_loss"),
        *("shipped_champion_auroc", "shipped_champion_log_loss"),
    }
    assert found["champion_auroc"].detail["footing"] == RECIPE
    assert "test predictions" in found["champion_auroc"].message
    tested = trained.outcome.metrics["test"]["bert"]["auroc"]["value"]
    model = Model.open(models_dir, old)
    rows = np.flatnonzero(trained.snapshot.cutoff_dates == np.datetime64(CUTOFF))
    table = trained.snapshot.table.slice(int(rows[0]), len(rows))
    theirs = classification_metrics(trained.snapshot.labels[rows], model.score(table, "cpu"), 0.5)[
        "auroc"
    ]
    difference = found["champion_auroc"].detail["difference"]["value"]
    assert difference == pytest.approx(tested - theirs, abs=1e-9)


def test_champion_that_alone_knows_the_labels_decides_nothing(trained: Trained) -> None:
    models_dir, champion = trained.workspace.models_dir, trained.outcome.bundle_id

    def end_at_the_cutoff(training: dict[str, Any]) -> None:
        training["trained_until"] = CUTOFF.isoformat()

    bad = copy_of_bundle(models_dir, champion, change=end_at_the_cutoff)
    found = champion_detail(trained, bad)
    assert found["champion_auroc"].detail["footing"] == UNFAIR
    assert found["champion_auroc"].is_passed
    assert "decides nothing" in found["champion_auroc"].message


@pytest.mark.parametrize("is_good", [True, False], ids=["holds-up", "does-not"])
def test_test_predictions_may_hold_up_against_a_champion_that_memorised(
    trained: Trained, is_good: bool
) -> None:
    models_dir, champion = trained.workspace.models_dir, trained.outcome.bundle_id
    snapshot, config = trained.snapshot, tiny_config()
    cutoff = cutoff_of_snapshot(snapshot, CUTOFF, config)
    labels = cutoff.outcomes.labels
    told = 0.2 + 0.6 * labels if is_good else np.full(len(labels), 0.5)
    users = cutoff.outcomes.users.tolist()
    recipe = Recipe(cutoff_date=CUTOFF, probabilities=dict(zip(users, told, strict=True)))
    weak = np.full(len(labels), labels.mean())
    checks = against_champion(
        models_dir,
        champion,
        Model.open(models_dir, champion),
        cutoff,
        weak,
        recipe,
        snapshot,
        config,
    )
    assert [check.name for check in checks] == ["champion_auroc", "champion_log_loss"]
    assert [check.is_passed for check in checks] == [is_good, is_good]
    how = "a champion that knows these labels" if is_good else "bundle against bundle, in sample"
    assert how in checks[0].message
