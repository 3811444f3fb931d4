"""Training: determinism, resuming after a kill, learning, refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from churn_udf.model.runner import ModelRunner
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError, TrainingDivergedError
from trainer.fit.config import FitConfig
from trainer.fit.data import shuffled_batches, text_arrays
from trainer.fit.loop import fit_model
from trainer.fit.stages import StageState
from trainer.progress import Progress

SMALL = FitConfig(
    hidden_size=16,
    num_layers=1,
    max_tokens=48,
    max_review_tokens=12,
    min_word_count=3,
    pretrain_epochs=1,
    max_pretrain_examples=150,
    numeric_epochs=2,
    epochs=2,
    max_epoch_examples=150,
    min_examples=0,
    batch_tokens=512,
    device="cpu",
    checkpoint_seconds=0.0,
)


class Killed(BaseException):
    """Stands for a process that dies."""


class DyingProgress(Progress):
    """Dies after so many advances."""

    def __init__(self, steps: int) -> None:
        super().__init__(quiet=True)
        self.steps_left = steps

    def refresh(self, step) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            raise Killed


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    snapshot = synthetic_snapshot(
        tmp_path_factory.mktemp("snapshots"), num_users=80, num_cutoffs=10, seed=3
    )
    return snapshot, make_splits(snapshot, SplitConfig(), seed=0)


def fit(data, run_dir: Path, config: FitConfig = SMALL, progress: Progress | None = None):
    return fit_model(*data, config, run_dir, progress=progress or Progress(quiet=True))


def test_logits(data, result) -> np.ndarray:
    snapshot, splits = data
    runner = ModelRunner.load(result.model_dir, device="cpu")
    texts = text_arrays(snapshot, splits.test)
    return runner.run(*texts, snapshot.feature_matrix[splits.test]).logits


test_logits.__test__ = False


@pytest.fixture(scope="module")
def counted(data, tmp_path_factory):
    """An undisturbed run, and how many steps it took."""
    progress = DyingProgress(0)
    result = fit(data, tmp_path_factory.mktemp("undisturbed"), progress=progress)
    return result, -progress.steps_left


@pytest.fixture(scope="module")
def undisturbed(counted):
    return counted[0]


def test_same_seed_gives_the_same_model(data, undisturbed, tmp_path):
    again = fit(data, tmp_path)
    np.testing.assert_allclose(
        test_logits(data, again), test_logits(data, undisturbed), atol=1e-6, rtol=0
    )
    for row, other in zip(again.history, undisturbed.history, strict=True):
        assert row["stage"] == other["stage"]
        numbers = {name: value for name, value in other.items() if name != "stage"}
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, abs=1e-6)


def test_another_seed_gives_another_model(data, undisturbed, tmp_path):
    other = fit(data, tmp_path, dataclasses.replace(SMALL, seed=1))
    assert np.abs(test_logits(data, other) - test_logits(data, undisturbed)).max() > 1e-3


@pytest.mark.parametrize("share", [0.15, 0.4, 0.65, 0.95])
def test_killed_run_resumes_to_the_same_model(data, counted, tmp_path, share):
    undisturbed, num_steps = counted
    with pytest.raises(Killed):
        fit(data, tmp_path, progress=DyingProgress(round(share * num_steps)))
    assert (tmp_path / "checkpoint" / "state.pt").is_file()
    resumed = fit(data, tmp_path)
    np.testing.assert_allclose(
        test_logits(data, resumed), test_logits(data, undisturbed), atol=1e-6, rtol=0
    )
    assert len(resumed.history) == len(undisturbed.history)
    assert not (tmp_path / "checkpoint" / "state.pt").exists()


def test_checkpoint_of_other_settings_is_not_taken_up(data, undisturbed, tmp_path):
    with pytest.raises(Killed):
        fit(data, tmp_path, dataclasses.replace(SMALL, seed=5), DyingProgress(8))
    result = fit(data, tmp_path)
    np.testing.assert_allclose(
        test_logits(data, result), test_logits(data, undisturbed), atol=1e-6, rtol=0
    )


def test_damaged_checkpoint_costs_time_but_not_the_run(data, undisturbed, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.pt").write_bytes(b"half a file")
    result = fit(data, tmp_path)
    assert len(result.history) == len(undisturbed.history)


def test_training_learns_from_features_and_text(data, tmp_path):
    from sklearn.metrics import roc_auc_score

    snapshot, splits = data
    config = dataclasses.replace(SMALL, numeric_epochs=20, epochs=3, max_epoch_examples=1_000)
    logits = test_logits(data, fit(data, tmp_path, config))
    assert roc_auc_score(snapshot.labels[splits.test], logits) > 0.6


def test_text_teaches_what_no_feature_knows(data, tmp_path):
    """Reviews name the outcome; the features are those of somebody else."""
    import pyarrow as pa
    from sklearn.metrics import roc_auc_score

    snapshot, splits = data
    table, labels = snapshot.table, snapshot.labels
    generator = np.random.default_rng(0)
    reviews = [
        f"the parcel was {'broken' if label > 0.5 else 'lovely'} this time {word}"
        for label, word in zip(
            labels, generator.choice(["box", "bag", "order"], len(labels)), strict=True
        )
    ]
    column = table.schema.get_field_index("review_text_recent")
    changed = dataclasses.replace(
        snapshot, table=table.set_column(column, "review_text_recent", pa.array(reviews))
    )
    changed.__dict__["feature_matrix"] = generator.permutation(snapshot.feature_matrix)
    config = dataclasses.replace(
        SMALL, hidden_size=32, epochs=8, patience=20, max_epoch_examples=1_000, batch_tokens=128
    )
    logits = test_logits((changed, splits), fit((changed, splits), tmp_path, config))
    assert roc_auc_score(labels[splits.test], logits) > 0.95


def test_history_names_every_stage(undisturbed):
    assert {row["stage"] for row in undisturbed.history} == {"pretrain", "numeric", "fine-tune"}
    assert all("valid_auroc" in row for row in undisturbed.history if "valid_loss" in row)


def test_vocabulary_holds_no_word_of_rows_after_training(data, tmp_path):
    """Words that only later cutoffs know must not be in the vocabulary."""
    import pyarrow as pa

    snapshot, splits = data
    table = snapshot.table
    texts = table.column("behavior_text").to_pylist()
    late = set(range(snapshot.num_rows)) - set(splits.pretrain.tolist())
    marked = [f"{text} lateword" if index in late else text for index, text in enumerate(texts)]
    column = table.schema.get_field_index("behavior_text")
    changed = dataclasses.replace(
        snapshot, table=table.set_column(column, "behavior_text", pa.array(marked))
    )
    result = fit((changed, splits), tmp_path)
    words = (result.model_dir / "tokenizer" / "vocab.txt").read_text().split("\n")
    assert "lateword" not in words
    assert len(words) > 20


def test_feature_codes_are_fitted_on_training_rows_alone(data, tmp_path):
    snapshot, splits = data
    matrix = snapshot.feature_matrix.copy()
    outside = np.setdiff1d(np.arange(snapshot.num_rows), splits.train)
    matrix[outside] = 1e9
    changed = dataclasses.replace(snapshot)
    changed.__dict__["feature_matrix"] = matrix
    result = fit((changed, splits), tmp_path, dataclasses.replace(SMALL, epochs=1))
    knots = ModelRunner.load(result.model_dir, device="cpu").model.coding.knots_FQ
    assert float(knots.max()) < 1e8


def test_rare_vocabulary_is_refused_with_the_setting_to_change(data, tmp_path):
    with pytest.raises(ConfigError, match=r"lower fit\.min_word_count"):
        fit(data, tmp_path, dataclasses.replace(SMALL, min_word_count=10**9))


def test_unknown_encoder_is_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="cannot be loaded"):
        fit(data, tmp_path, dataclasses.replace(SMALL, encoder=str(tmp_path / "nothing")))


def test_diverging_loss_stops_the_run(data, tmp_path):
    snapshot, splits = data
    labels = snapshot.labels.copy()
    labels[splits.train] = np.nan
    changed = dataclasses.replace(snapshot)
    changed.__dict__["labels"] = labels
    with pytest.raises(TrainingDivergedError, match=r"lower fit\.learning_rate"):
        fit((changed, splits), tmp_path)


def test_any_local_bert_fine_tunes(data, tmp_path):
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path / "encoder"
    snapshot, _ = data
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(snapshot.table.column("behavior_text").to_pylist(), vocab_size=200)
    trained.save_model(str(tmp_path))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(folder)
    BertModel(
        BertConfig(
            vocab_size=trained.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
    ).save_pretrained(folder)
    config = dataclasses.replace(SMALL, encoder=str(folder), epochs=1)
    result = fit(data, tmp_path / "run", config)
    assert result.facts["encoder"] == str(folder)
    assert np.isfinite(test_logits(data, result)).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 0}, "fit.epochs"),
        ({"precision": "fp8"}, "fit.precision"),
        ({"hidden_size": 15, "num_heads": 2}, "fit.hidden_size"),
        ({"batch_tokens": 10}, "fit.batch_tokens"),
        ({"dropout": 1.0}, "fit.dropout"),
    ],
)
def test_bad_settings_are_named(change, named):
    with pytest.raises(ConfigError, match=named):
        dataclasses.replace(SMALL, **change)


def test_supervised_batches_mix_lengths_but_keep_equal_ones_together():
    lengths = np.random.default_rng(0).integers(3, 40, 500)
    batches = shuffled_batches(lengths, 400, np.random.default_rng(1), by_length=False)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    spreads = [np.ptp(lengths[batch]) for batch in batches if len(batch) > 5]
    assert np.mean(spreads) > 20
    assert all((np.diff(lengths[batch]) >= 0).all() for batch in batches)
    tokens = np.array([lengths[batch].sum() for batch in batches])
    assert tokens.max() <= 1.3 * 400


def test_supervised_batches_are_pictures_of_all_lengths_with_few_groups():
    lengths = np.clip(np.random.default_rng(0).lognormal(3.8, 0.5, 5_000), 8, 128).astype(int)
    batches = shuffled_batches(lengths, 4_096, np.random.default_rng(1), by_length=False)
    means = np.array([lengths[batch].mean() for batch in batches])
    assert means.std() < 0.75 * lengths.std() / np.sqrt(np.mean([len(batch) for batch in batches]))
    assert np.mean([len(np.unique(lengths[batch])) for batch in batches]) < 20
    again = shuffled_batches(lengths, 4_096, np.random.default_rng(1), by_length=False)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))
    other = shuffled_batches(lengths, 4_096, np.random.default_rng(2), by_length=False)
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(batches, other, strict=True))


def test_every_row_of_the_history_is_called_back_after_a_kill_too(data, counted, tmp_path):
    undisturbed, num_steps = counted
    rows = []
    with pytest.raises(Killed):
        fit_model(*data, SMALL, tmp_path, progress=DyingProgress(num_steps - 2), on_log=rows.append)
    assert 0 < len(rows) < len(undisturbed.history)
    rows.clear()
    result = fit_model(*data, SMALL, tmp_path, progress=Progress(quiet=True), on_log=rows.append)
    assert rows == result.history == undisturbed.history


def test_average_of_weights_moves_floats_by_the_growing_decay():
    module = torch.nn.BatchNorm1d(3)  # holds a counter beside its weights
    state = StageState.starting_at(module)
    torch.nn.init.constant_(module.weight, 5.0)
    module.num_batches_tracked.add_(7)
    state.follow(module, 0.99)
    torch.testing.assert_close(state.average["weight"], torch.full((3,), 1.0 + 4.0 * (9 / 11)))
    assert int(state.average["num_batches_tracked"]) == 0
