"""Contrastive training: pairs, crops, negatives, learning, and its place among the stages."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from churn_udf.tokenization import TokenBatch
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError
from trainer.fit.config import FitConfig
from trainer.fit.contrastive import crop, draw_pairs, info_nce
from trainer.fit.encoder_store import EncoderStore, encoder_key
from trainer.fit.loop import fit_model
from trainer.progress import Progress

SMALL = FitConfig(
    hidden_size=16,
    num_layers=1,
    max_tokens=48,
    max_review_tokens=12,
    min_word_count=3,
    pretrain_epochs=1,
    max_pretrain_examples=100,
    contrastive_epochs=1,
    max_contrastive_pairs=64,
    numeric_epochs=1,
    epochs=1,
    max_epoch_examples=60,
    min_examples=0,
    batch_tokens=512,
    device="cpu",
    checkpoint_seconds=0.0,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshots")
    snapshot = synthetic_snapshot(folder, num_users=60, num_cutoffs=8, seed=3)
    return snapshot, make_splits(snapshot, SplitConfig(), seed=0)


def test_pairs_are_two_rows_of_one_user():
    generator = np.random.default_rng(0)
    users = generator.integers(0, 30, 200)
    rows = generator.permutation(1_000)[:200]
    user_of = dict(zip(rows.tolist(), users.tolist(), strict=True))
    pairs = draw_pairs(rows, users, 150, generator)
    assert pairs.shape == (150, 2)
    assert len(set(pairs[:, 0].tolist())) == 150
    sizes = np.bincount(users)
    for first, second in pairs.tolist():
        assert user_of[first] == user_of[second]
        assert (first != second) or sizes[user_of[first]] == 1


def test_a_user_with_one_row_is_paired_with_itself():
    pairs = draw_pairs(np.array([7]), np.array([0]), 5, np.random.default_rng(0))
    assert pairs.tolist() == [[7, 7]]


def test_crop_cuts_one_stretch_and_keeps_what_opens_and_separates():
    lengths = np.array([10, 4, 20])
    ids = np.concatenate([np.r_[2, np.arange(10, 8 + n), 3] for n in lengths])
    tokens = TokenBatch(ids, np.zeros(34, dtype=np.int64), lengths, np.zeros(3, dtype=bool))
    cut = crop(tokens, 0.3, (2, 3), np.random.default_rng(1))
    assert len(cut.ids) == cut.lengths.sum() < 34
    starts = np.cumsum(cut.lengths) - cut.lengths
    for index, (start, length) in enumerate(zip(starts, cut.lengths, strict=True)):
        text = cut.ids[start : start + length]
        assert (text[0], text[-1]) == (2, 3)
        words = text[1:-1]
        gaps = np.diff(np.r_[9, words, 8 + lengths[index]]) > 1
        assert gaps.sum() <= 1
        assert lengths[index] - length <= math.floor(0.3 * lengths[index])
    same = crop(tokens, 0.0, (2, 3), np.random.default_rng(1))
    np.testing.assert_array_equal(same.ids, tokens.ids)


def test_loss_is_low_where_slices_match_and_spares_rows_of_the_same_user():
    users = torch.tensor([0, 1, 2])
    matching = 20.0 * torch.eye(3)
    assert float(info_nce(matching, users)) < 1e-6
    assert float(info_nce(torch.zeros(3, 3), users)) == pytest.approx(math.log(3))
    confused = matching.clone()
    confused[0, 1] = confused[1, 0] = 40.0
    assert float(info_nce(confused, users)) > 5.0
    assert float(info_nce(confused, torch.tensor([0, 0, 2]))) < 1e-6


def test_slices_of_one_user_come_together(data, tmp_path):
    """On texts that name their user the loss falls far below chance."""
    import pyarrow as pa

    snapshot, splits = data
    position = snapshot.table.column_names.index("behavior_text")
    generator = np.random.default_rng(0)
    users = sorted(set(snapshot.user_ids(np.arange(snapshot.num_rows))))
    words = {user: f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i, user in enumerate(users)}
    texts = [
        " ".join([words[user]] * 6 + [f"noise{generator.integers(9)}"])
        for user in snapshot.table.column("user_id").to_pylist()
    ]
    named = dataclasses.replace(
        snapshot,
        table=snapshot.table.set_column(position, "behavior_text", pa.array(texts)),
    )
    config = dataclasses.replace(
        SMALL,
        pretrain_epochs=0,
        contrastive_epochs=50,
        max_contrastive_pairs=64,
        contrastive_learning_rate=5e-3,
    )
    history = fit_model(named, splits, config, tmp_path, progress=Progress(quiet=True)).history
    losses = [row["train_loss"] for row in history if row["stage"] == "contrast"]
    assert losses[0] > 0.8 * math.log(64)
    late = 2 * losses[-1] - losses[len(losses) // 2 - 1]  # the history holds means of all steps
    assert late < 0.8 * math.log(64)


def test_stage_is_left_out_by_default_and_stands_after_the_masked_words(data, tmp_path):
    assert FitConfig().contrastive_epochs == 0
    history = fit_model(*data, SMALL, tmp_path, progress=Progress(quiet=True)).history
    stages = list(dict.fromkeys(row["stage"] for row in history))
    assert stages == ["pretrain", "contrast", "numeric", "fine-tune"]


def test_stored_encoder_gives_the_same_model_without_pretraining_again(data, tmp_path):
    store = EncoderStore(tmp_path / "encoders")
    weights, stages = [], []
    for name in ("first", "second"):
        result = fit_model(
            *data, SMALL, tmp_path / name, progress=Progress(quiet=True), encoders=store
        )
        weights.append((result.model_dir / "model.safetensors").read_bytes())
        stages.append({row["stage"] for row in result.history})
    assert stages[0] - stages[1] == {"pretrain", "contrast"}
    assert weights[0] == weights[1]


def test_key_of_the_store_knows_texts_and_settings_but_no_label(data):
    snapshot, splits = data
    key = encoder_key(snapshot, splits.pretrain, SMALL)
    assert key == encoder_key(snapshot, splits.pretrain.copy(), SMALL)
    assert key != encoder_key(snapshot, splits.pretrain[1:], SMALL)
    other = dataclasses.replace(SMALL, mask_share=0.4)
    assert key != encoder_key(snapshot, splits.pretrain, other)


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


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_killed_fit_neither_spoils_the_store_nor_the_model(data, tmp_path, share):
    counting = DyingProgress(0)
    whole = fit_model(*data, SMALL, tmp_path / "whole", progress=counting)
    store = EncoderStore(tmp_path / "encoders")
    dying = DyingProgress(round(-counting.steps_left * share))
    with pytest.raises(Killed):
        fit_model(*data, SMALL, tmp_path / "killed", progress=dying, encoders=store)
    for name in ("killed", "fresh"):  # the second one reads what the resumed one stored
        result = fit_model(
            *data, SMALL, tmp_path / name, progress=Progress(quiet=True), encoders=store
        )
        assert (result.model_dir / "model.safetensors").read_bytes() == (
            whole.model_dir / "model.safetensors"
        ).read_bytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contrastive_epochs", -1),
        ("max_contrastive_pairs", 0),
        ("contrastive_temperature", 0.0),
        ("contrastive_crop", 1.0),
        ("contrastive_learning_rate", 0.0),
        ("pseudo_label_confidence", 0.4),
        ("pseudo_label_ratio", 0.0),
        ("pseudo_label_weight", 1.5),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"fit\.{name} is"):
        FitConfig(**{name: value})
