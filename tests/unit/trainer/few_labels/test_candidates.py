"""Candidates for labelling: uncertain, diverse, deterministic, better than chance."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from training_example import Trained

from trainer.errors import ConfigError, RunError
from trainer.few_labels.candidates import choose_candidates, measure_uncertainty, reasons
from trainer.few_labels.label_candidates import label_candidates, unlabelled_rows, write_candidates
from trainer.progress import Progress
from trainer.runs import open_run


def test_uncertainty_is_entropy_and_disagreement():
    text = np.array([0.5, 0.9, 0.1, 0.99])
    alone = measure_uncertainty([text])
    np.testing.assert_array_equal(alone.disagreement_N, 0.0)
    assert alone.entropy_N[0] == pytest.approx(1.0)
    assert alone.entropy_N[1] == pytest.approx(alone.entropy_N[2])
    trees = np.array([0.5, 0.1, 0.1, 0.99])
    both = measure_uncertainty([text, trees])
    assert both.total_N.argmax() == 1  # the members contradict each other there
    assert both.disagreement_N[2] == pytest.approx(0.0, abs=1e-6)
    words = reasons({"bert": text, "gbm": trees}, both, np.array([0, 1, 3]))
    assert words == [
        "undecided: 50 %",
        "models disagree: bert 90 %, gbm 10 %",
        "unlike the ones ranked before",
    ]


def test_picks_are_uncertain_and_no_two_alike():
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 5, (8, 3))
    owners = np.repeat(np.arange(8), 50)
    points = centres[owners] + generator.normal(0, 0.01, (400, 3))
    uncertainty = np.where(owners < 5, 0.9, 0.05) + generator.uniform(0, 0.01, 400)
    picked = choose_candidates(uncertainty, points, 5)
    assert picked[0] == uncertainty.argmax()
    assert sorted(owners[picked]) == [0, 1, 2, 3, 4]
    most_uncertain = np.argsort(-uncertainty)[:5]
    assert len(set(owners[most_uncertain])) < 5  # uncertainty alone would repeat itself
    np.testing.assert_array_equal(picked, choose_candidates(uncertainty, points, 5))


def test_every_row_is_picked_once_when_all_are_asked_for():
    points = np.zeros((4, 2))
    assert sorted(choose_candidates(np.full(4, 0.5), points, 9)) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r"count is 0; allowed: 1 or more"):
        choose_candidates(np.full(4, 0.5), points, 0)


def test_picked_labels_teach_more_than_random_ones():
    """Most rows lie in two groups that the model knows; the rest in twenty small ones."""
    gains = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        centres = generator.normal(0, 1, (22, 24))
        answers = np.r_[0, 1, generator.permutation(np.repeat([0, 1], 10))]
        weights = np.r_[0.4, 0.4, np.full(20, 0.01)]
        owners = generator.choice(22, 3_000, p=weights)
        points = centres[owners] + generator.normal(0, 0.05, (3_000, 24))
        labels = answers[owners]
        known = np.flatnonzero(owners < 2)[:20]
        pool, judged = np.arange(500, 2_000), np.arange(2_000, 3_000)

        def accuracy(
            extra, points=points, labels=labels, known=known, judged=judged, owners=owners
        ):
            rows = np.r_[known, extra].astype(int)
            model = LogisticRegression(C=10.0).fit(points[rows], labels[rows])
            rare = judged[owners[judged] >= 2]
            return model.score(points[rare], labels[rare])

        first = LogisticRegression(C=10.0).fit(points[known], labels[known])
        chances = first.predict_proba(points[pool])[:, 1]
        uncertainty = measure_uncertainty([chances]).total_N
        ours = accuracy(pool[choose_candidates(uncertainty, points[pool], 20)])
        drawn = [accuracy(generator.choice(pool, 20, replace=False)) for _ in range(10)]
        gains.append(ours - float(np.mean(drawn)))
    assert min(gains) > 0.03
    assert float(np.mean(gains)) > 0.1


def test_export_of_a_trained_run(trained: Trained, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    run = open_run(trained.workspace.runs_dir, None)
    snapshot, quiet = trained.snapshot, Progress(quiet=True)
    table = label_candidates(run, snapshot, count=15, progress=quiet)
    assert table.column_names == [
        *("rank", "user_id", "cutoff_date", "probability", "uncertainty", "reason")
    ]
    assert table.column("rank").to_pylist() == list(range(1, 16))
    users = table.column("user_id").to_pylist()
    assert len(set(users)) == 15
    assert set(users) <= set(snapshot.user_ids(unlabelled_rows(snapshot)))
    cutoffs = {str(date) for date in table.column("cutoff_date").to_pylist()}
    assert cutoffs == {snapshot.document["score_cutoff_date"]}
    assert table.equals(label_candidates(run, snapshot, count=15, progress=quiet))
    write_candidates(table, tmp_path / "out" / "c.csv")
    write_candidates(table, tmp_path / "out" / "c.parquet")
    assert pyarrow.csv.read_csv(tmp_path / "out" / "c.csv").num_rows == 15
    assert pyarrow.parquet.read_table(tmp_path / "out" / "c.parquet").equals(table)
    with pytest.raises(ConfigError, match=r"ends with \.csv or \.parquet"):
        write_candidates(table, tmp_path / "c.json")


def test_boosted_trees_of_the_run_take_part(trained: Trained):
    import lightgbm

    run = open_run(trained.workspace.runs_dir, None)
    snapshot, quiet = trained.snapshot, Progress(quiet=True)
    alone = label_candidates(run, snapshot, count=30, progress=quiet)
    rows = np.flatnonzero(~np.isnan(snapshot.labels))
    data = lightgbm.Dataset(
        snapshot.feature_matrix[rows],
        1.0 - snapshot.labels[rows],
        feature_name=list(snapshot.feature_names),
    )
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    contrary = lightgbm.train(settings, data, num_boost_round=30)  # learned the labels upside down
    (run.model_dir / "gbm.txt").write_text(contrary.model_to_string())
    together = label_candidates(run, snapshot, count=30, progress=quiet)
    assert any("models disagree" in text for text in together.column("reason").to_pylist())
    assert together.column("user_id").to_pylist() != alone.column("user_id").to_pylist()


def test_what_cannot_be_asked_is_refused(trained: Trained):
    from trainer.data.synthetic import synthetic_snapshot

    run = open_run(trained.workspace.runs_dir, None)
    (run.path / "fit.json").unlink()
    with pytest.raises(RunError, match="not trained yet"):
        label_candidates(run, trained.snapshot, count=3, progress=Progress(quiet=True))
    settled = synthetic_snapshot(
        trained.root / "other", num_users=20, num_cutoffs=3, settings={"horizon_days": 0}
    )
    with pytest.raises(ConfigError, match="no unlabelled row at the score cutoff"):
        unlabelled_rows(settled)
