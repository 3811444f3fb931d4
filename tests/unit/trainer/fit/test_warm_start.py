"""Starting from the champion: where it is honest, and what it does."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from champion import forget_champion
from training_example import Trained, tiny_config, trained_copy

from churn_udf.bundles import bundle_directory, open_bundle
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model_records import read_records
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError
from trainer.fit.warm_start import WarmStart, load_start, open_start, resolve_start
from trainer.pipeline import splits_of, train_snapshot

DAY = datetime.timedelta(days=1)
CONFIG = tiny_config(fit__warm_start="champion")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return trained_copy(tmp_path)


@pytest.fixture
def newer(trained: Trained):
    """A snapshot of other users over the same dates."""
    return synthetic_snapshot(trained.workspace.snapshots_dir, num_users=150, seed=3)


def start_of(trained: Trained, until: datetime.date) -> WarmStart:
    bundle = open_bundle(bundle_directory(trained.workspace.models_dir, trained.outcome.bundle_id))
    return WarmStart(bundle_id=bundle.bundle_id, directory=bundle.directory, trained_until=until)


def test_a_judged_fit_starts_only_from_what_did_not_know_its_rows(trained: Trained, newer) -> None:
    splits = splits_of(newer, CONFIG)
    limit = splits.plan.valid[0]
    assert start_of(trained, limit - DAY).problem_of(limit, splits) is None
    assert start_of(trained, limit).problem_of(limit, splits) is None
    problem = start_of(trained, limit + DAY).problem_of(limit, splits)
    assert problem is not None
    assert str(limit) in problem
    by_user = dataclasses.replace(
        splits, plan=dataclasses.replace(splits.plan, test_mode="by_user")
    )
    assert start_of(trained, limit).problem_of(limit, by_user) is not None


def test_the_start_has_the_champions_weights_and_words(trained: Trained, newer) -> None:
    start = start_of(trained, datetime.date(2024, 1, 1))
    features = newer.feature_matrix[:500]
    model, tokenizer = load_start(start, CONFIG.fit, features)
    champion = ChurnClassifier.load(start.directory)
    for name, value in champion.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value)
    assert torch.equal(model.wide.weight, champion.wide.weight)
    assert tokenizer.vocabulary_size == champion.config.encoder["vocab_size"]
    codes = model.coding(torch.from_numpy(features)).double().mean(dim=0).float()
    assert np.allclose(model.mean_codes_FC, codes)


def test_champion_means_a_bundle_that_fits_or_none_with_a_reason(trained: Trained, newer) -> None:
    models_dir = trained.workspace.models_dir
    found, problem = resolve_start(models_dir, newer, CONFIG.fit)
    assert (found.warm_start, problem) == (trained.outcome.bundle_id, None)
    for changes, word in (
        ({"hidden_size": 32}, "encoder"),
        ({"num_bins": 5}, "num_bins"),
        ({"pseudo_labels": True}, "pseudo_labels"),
        ({"encoder": "bert-base-cased"}, "bert-base-cased"),
    ):
        other = dataclasses.replace(CONFIG.fit, **changes)
        found, problem = resolve_start(models_dir, newer, other)
        assert found.warm_start == "none"
        assert problem is not None
        assert word in problem
    named = dataclasses.replace(CONFIG.fit, num_bins=5, warm_start=trained.outcome.bundle_id)
    with pytest.raises(ConfigError, match=r"fit\.warm_start"):
        open_start(models_dir, newer, named)
    forget_champion(models_dir)
    found, problem = resolve_start(models_dir, newer, CONFIG.fit)
    assert found.warm_start == "none"
    assert problem == "there is no champion"


def test_a_champion_of_this_very_snapshot_stands_for_what_it_started_from(trained: Trained) -> None:
    found, problem = resolve_start(trained.workspace.models_dir, trained.snapshot, CONFIG.fit)
    assert (found.warm_start, problem) == ("none", None)


def test_a_run_starts_its_last_fit_alone_and_says_so(trained: Trained, newer) -> None:
    ours = trained.outcome.bundle_id
    outcome = train_snapshot(newer, CONFIG, trained.workspace, should_promote=False)
    directory = bundle_directory(trained.workspace.models_dir, outcome.bundle_id)
    training = open_bundle(directory).manifest.training
    assert training["warm_start"] == ours
    assert training["starts"]["final"] == ours
    assert training["starts"]["first"].startswith(f"anew: {ours} has learned labels until 2024-06")
    assert training["starts"]["refit"].startswith("anew: ")
    assert training["trained_until"] == "2024-06-03"
    assert ours in (directory / "MODEL_CARD.md").read_text()
    assert f"started from {ours}" in outcome.report.read_text()
    record = next(
        one
        for one in read_records(trained.workspace.models_dir)
        if one.bundle_id == outcome.bundle_id
    )
    assert record.trained_until_date == datetime.date(2024, 6, 3)
    run = trained.workspace.runs_dir / outcome.run_id
    stages = {}
    for name in ("first", "final"):
        rows = (run / "fits" / name / "history.jsonl").read_text().splitlines()
        stages[name] = [json.loads(row)["stage"] for row in rows]
    assert "pretrain" in stages["first"]
    assert "pretrain" not in stages["final"]

    again = train_snapshot(newer, CONFIG, trained.workspace)
    assert again.was_skipped
    assert again.bundle_id == outcome.bundle_id
    assert train_snapshot(newer, CONFIG, trained.workspace).was_skipped
