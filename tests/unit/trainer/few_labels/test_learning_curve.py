"""Learning curves: nested draws, resuming, what is measured, table and chart."""

import json

import numpy as np
import pytest
from training_example import tiny_config

from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError
from trainer.few_labels import learning_curve
from trainer.few_labels.chart import curve_table, render_curve
from trainer.few_labels.learning_curve import CurveConfig, measure_curve, models_of
from trainer.few_labels.subsets import PLAIN, STRATIFIED, label_order
from trainer.progress import Progress


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshots")
    return synthetic_snapshot(folder, num_users=120, num_cutoffs=10, seed=4)


@pytest.fixture(scope="module")
def splits(snapshot):
    return make_splits(snapshot, SplitConfig(), seed=0)


def quiet() -> Progress:
    return Progress(quiet=True)


@pytest.mark.parametrize("draw", [PLAIN, STRATIFIED])
def test_order_holds_every_row_once_and_depends_on_the_seed(snapshot, splits, draw):
    order = label_order(snapshot, splits.train, draw=draw, seed=1)
    np.testing.assert_array_equal(np.sort(order), splits.train)
    np.testing.assert_array_equal(order, label_order(snapshot, splits.train, draw=draw, seed=1))
    assert (order != label_order(snapshot, splits.train, draw=draw, seed=2)).any()


def test_plain_order_gives_every_user_a_first_row_before_any_second(snapshot, splits):
    order = label_order(snapshot, splits.train, draw=PLAIN, seed=0)
    users = len(set(snapshot.user_ids(splits.train)))
    assert len(set(snapshot.user_ids(order[:users]))) == users
    cutoffs = snapshot.cutoff_dates[order[:users]]
    assert len(np.unique(cutoffs)) > 1  # not always the oldest or the newest one


@pytest.mark.parametrize("size", [20, 50, 100])
def test_stratified_beginnings_churn_as_often_as_all_rows(snapshot, splits, size):
    labels = snapshot.labels
    rate = labels[splits.train].mean()
    for seed in range(5):
        order = label_order(snapshot, splits.train, draw=STRATIFIED, seed=seed)
        assert abs(labels[order[:size]].sum() - size * rate) <= 1.0


def test_curve_is_measured_resumed_and_extended(snapshot, tmp_path, monkeypatch):
    config = tiny_config()
    models = ("pretrained", "plain", "logistic")
    measured = []
    real = learning_curve._Meter.measure

    def counting(self, model, size, seed):
        if len(measured) == 4 and "killed" not in measured:
            measured.append("killed")
            raise KeyboardInterrupt
        measured.append((model, size, seed))
        return real(self, model, size, seed)

    monkeypatch.setattr(learning_curve._Meter, "measure", counting)
    curve = CurveConfig(sizes=(40, 120), seeds=1, models=models)
    with pytest.raises(KeyboardInterrupt):
        measure_curve(snapshot, config, curve, tmp_path, quiet())
    document = measure_curve(snapshot, config, curve, tmp_path, quiet())
    points = [item for item in measured if item != "killed"]
    assert len(points) == len(set(points)) == 6
    assert json.loads((tmp_path / "learning_curve.json").read_text()) == document
    wider = CurveConfig(sizes=(40, 120), seeds=2, models=("logistic",))
    extended = measure_curve(snapshot, config, wider, tmp_path, quiet())
    assert len(extended["points"]) == 8
    assert measured[-2:] == [("logistic", 40, 1), ("logistic", 120, 1)]
    entry = next(e for e in extended["summary"] if (e["model"], e["labels"]) == ("logistic", 40))
    values = [
        p["auroc"] for p in extended["points"] if (p["model"], p["labels"]) == ("logistic", 40)
    ]
    assert entry["auroc"]["mean"] == pytest.approx(np.mean(values))
    assert entry["auroc"]["std"] == pytest.approx(np.std(values, ddof=1))
    for point in extended["points"]:
        assert point["users"] <= point["labels"]
        assert 0.0 <= point["auroc"] <= 1.0
    assert not (tmp_path / "fits").exists()
    with pytest.raises(ConfigError, match="holds the curve"):
        measure_curve(snapshot, tiny_config(fit__epochs=2), curve, tmp_path, quiet())
    _check_table_and_page(extended)


def _check_table_and_page(document):
    table = curve_table(document, "auroc")
    assert "AUROC on valid" in table
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["labels", "40", "120"]
    page = render_curve(document)
    assert page.count("<svg") == 4
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page == render_curve(document)


def test_more_labels_teach_more(snapshot, tmp_path):
    curve = CurveConfig(sizes=(20, 240), seeds=5, models=("logistic",))
    summary = measure_curve(snapshot, tiny_config(), curve, tmp_path, quiet())["summary"]
    few, many = (entry["auroc"]["mean"] for entry in summary)
    assert many > few + 0.02


def test_test_rows_are_read_only_when_asked_for(snapshot, splits, tmp_path, monkeypatch):
    read = []
    real = learning_curve._Meter._rows

    def spying(self, rows):
        read.append(set(rows.tolist()))
        return real(self, rows)

    monkeypatch.setattr(learning_curve._Meter, "_rows", spying)
    for split in ("valid", "test"):
        read.clear()
        curve = CurveConfig(sizes=(100,), seeds=1, models=("logistic",), split=split)
        document = measure_curve(snapshot, tiny_config(), curve, tmp_path / split, quiet())
        assert document["judged_rows"] == len(getattr(splits, split))
        touched = set().union(*read) & set(splits.test.tolist())
        assert bool(touched) == (split == "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (5,)}, "sizes are"),
        ({"seeds": 0}, "seeds is 0"),
        ({"draw": "odd"}, "draw is 'odd'"),
        ({"split": "train"}, "split is 'train'"),
        ({"models": ("bert",)}, "models are"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        CurveConfig(**changes)


def test_sizes_beyond_the_training_rows_are_left_out(snapshot, tmp_path):
    curve = CurveConfig(sizes=(50, 1_000_000), seeds=1, models=("logistic",))
    document = measure_curve(snapshot, tiny_config(), curve, tmp_path, quiet())
    assert {point["labels"] for point in document["points"]} == {50}
    too_large = CurveConfig(sizes=(1_000_000,), seeds=1)
    with pytest.raises(ConfigError, match="labelled training rows"):
        measure_curve(snapshot, tiny_config(), too_large, tmp_path, quiet())


def test_without_pretraining_there_is_one_bert():
    chosen = ("pretrained", "plain", "lightgbm")
    assert tuple(models_of(tiny_config().fit, chosen)) == chosen
    assert tuple(models_of(tiny_config(fit__pretrain_epochs=0).fit, chosen)) == chosen[1:]
