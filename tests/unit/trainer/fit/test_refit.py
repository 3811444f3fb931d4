"""Which fits are planned, and where a repeated one stops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.data.splits import SplitConfig, label_ends, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.fit.refit import LEAST_NUMERIC_SHARE, best_shares, planned_refits


def history(stage: str, *losses: float) -> list[dict[str, object]]:
    """Rows that looked at validation after equal shares of a stage."""
    steps = len(losses) - 1
    return [
        {"stage": stage, "share": index / steps, "valid_loss": loss}
        for index, loss in enumerate(losses)
    ]


def test_a_repeated_stage_stops_where_validation_was_best() -> None:
    rows = [*history("text", 0.7, 0.5, 0.4, 0.6, 0.5), {"stage": "words", "loss": 1.0}]
    assert best_shares(rows) == {"text": 0.5}


def test_of_losses_that_are_alike_the_first_counts() -> None:
    assert best_shares(history("text", 0.7, 0.5, 0.5 - 1e-7, 0.6)) == {"text": pytest.approx(1 / 3)}


def test_numbers_are_learned_for_more_than_a_glance() -> None:
    assert best_shares(history("numeric", 0.4, 0.5, 0.6)) == {"numeric": LEAST_NUMERIC_SHARE}
    assert best_shares(history("numeric", 0.6, 0.5, 0.4)) == {"numeric": 1.0}
    assert best_shares([]) == {}


def test_planned_fits_know_newer_labels_and_none_too_new(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=40)
    splits = make_splits(snapshot, SplitConfig(), seed=0)
    assert planned_refits(splits, "none") == {}
    assert list(planned_refits(splits, "test")) == ["refit"]
    planned = planned_refits(splits, "all")
    assert list(planned) == ["refit", "final"]
    ends = label_ends(snapshot)
    assert set(splits.train) < set(planned["refit"]) < set(planned["final"])
    assert ends[planned["refit"]].max() <= np.datetime64(splits.plan.test[0])
    assert set(splits.test) <= set(planned["final"])
    assert ends[planned["final"]].max() <= np.datetime64(snapshot.document["score_cutoff_date"])
