"""Every family of pretrained encoders fine-tunes into a model that loads and scores."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_encoders import save_tiny_encoder, tiny_model, tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from churn_udf.model.runner import ModelRunner
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError
from trainer.fit.build import _special_ids, build_classifier
from trainer.fit.config import FitConfig
from trainer.fit.data import text_arrays
from trainer.fit.loop import fit_model
from trainer.progress import Progress

SMALL = FitConfig(
    max_tokens=48,
    max_review_tokens=12,
    numeric_epochs=1,
    epochs=1,
    max_epoch_examples=96,
    min_examples=0,
    max_valid_examples=32,
    evaluations_per_epoch=1,
    average_decay=0.0,
    batch_tokens=512,
    precision="fp32",
    device="cpu",
)
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "modernbert", "gpt2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    snapshot = synthetic_snapshot(
        tmp_path_factory.mktemp("snapshots"), num_users=60, num_cutoffs=8, seed=3
    )
    return snapshot, make_splits(snapshot, SplitConfig(), seed=0)


def config_for(folder, **changes) -> FitConfig:
    return dataclasses.replace(SMALL, encoder=str(folder), **changes)


def build(data, config: FitConfig):
    snapshot, splits = data
    rows = splits.train[:50]
    texts = text_arrays(snapshot, rows)
    return build_classifier(*texts, snapshot.feature_matrix[rows], snapshot.features, config)


@pytest.mark.parametrize("family", FAMILIES)
def test_family_fine_tunes_into_a_model_that_scores(family, data, tmp_path):
    folder = save_tiny_encoder(family, tmp_path / "encoder")
    snapshot, splits = data
    config = config_for(folder, encoder_learning_rate=1e-2)
    result = fit_model(*data, config, tmp_path / "run", progress=Progress(quiet=True))
    runner = ModelRunner.load(result.model_dir, device="cpu")
    texts = text_arrays(snapshot, splits.test)
    features = snapshot.feature_matrix[splits.test]
    logits = runner.run(*texts, features).logits
    assert np.isfinite(logits).all()
    one = runner.run(texts[0][5:6], texts[1][5:6], features[5:6]).logits
    np.testing.assert_allclose(one, logits[5:6], atol=1e-5, rtol=0)
    steps = [row for row in result.history if row["stage"] == "fine-tune"]
    assert len([row for row in steps if "valid_loss" in row]) >= 2
    stored = json.loads((result.model_dir / "model.json").read_text())["encoder"]
    assert stored["model_type"] == family
    assert str(tmp_path) not in json.dumps(stored)


@pytest.mark.parametrize("family", FAMILIES)
def test_pretrained_weights_arrive_unchanged(family, data, tmp_path):
    folder = save_tiny_encoder(family, tmp_path)
    model, tokenizer = build(data, config_for(folder))
    reference = tiny_model(family, vocab_size=len(tiny_tokenizer(family)))
    tokens = tokenizer.encode(*(column[:4] for column in text_arrays(data[0], data[1].test)))
    model.eval()
    rows = np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1])
    segments = np.split(tokens.segments, np.cumsum(tokens.lengths)[:-1])
    has_segments = getattr(reference.config, "type_vocab_size", 0) > 1
    with torch.inference_mode():
        pooled = model.encode_text(
            torch.from_numpy(tokens.ids),
            torch.from_numpy(tokens.segments),
            tokens.lengths.tolist(),
        )
        for row, segment, state in zip(rows, segments, pooled, strict=True):
            extra = {"token_type_ids": torch.tensor(segment)[None]} if has_segments else {}
            expected = reference(input_ids=torch.tensor(row)[None], **extra).last_hidden_state
            place = -1 if family == "gpt2" else 0
            torch.testing.assert_close(state, expected[0, place], atol=1e-5, rtol=0)


def test_gpt2_opens_and_closes_with_its_only_special_token(data, tmp_path):
    _, tokenizer = build(data, config_for(save_tiny_encoder("gpt2", tmp_path)))
    assert tokenizer.first_id == tokenizer.separator_id == 0


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"cls": 1, "bos": 7, "sep": 2, "eos": 8, "mask": 3}, (1, 2, 3)),
        ({"bos": 7, "eos": 8}, (7, 8, 8)),
        ({"eos": 8}, (8, 8, 8)),
        ({"cls": 1}, (1, 1, 1)),
    ],
    ids=["bert", "llama", "qwen", "opening-only"],
)
def test_a_missing_special_token_is_stood_in_for(tokens, expected):
    names = ("cls", "bos", "sep", "eos", "mask")
    assert _special_ids(
        SimpleNamespace(**{f"{n}_token_id": tokens.get(n) for n in names}), "x"
    ) == (expected)


def test_a_tokenizer_without_special_tokens_is_refused(data, tmp_path):
    save_tiny_encoder("bert", tmp_path)
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer("bert").backend_tokenizer)
    bare.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="without opening or closing token"):
        build(data, config_for(tmp_path))


def test_checkpoint_with_a_task_head_loads_without_it(data, tmp_path):
    from transformers import RobertaConfig, RobertaForSequenceClassification

    save_tiny_encoder("roberta", tmp_path)
    plain = tiny_model("roberta", vocab_size=len(tiny_tokenizer("roberta")))
    settings = {k: v for k, v in plain.config.to_dict().items() if k != "model_type"}
    headed = RobertaForSequenceClassification(RobertaConfig(**settings))
    headed.roberta.load_state_dict(plain.state_dict(), strict=False)
    headed.save_pretrained(tmp_path)
    model, _ = build(data, config_for(tmp_path))
    loaded = model.encoder.state_dict()
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(loaded[name], plain.state_dict()[name])
    assert not [name for name in loaded if "classifier" in name or "pooler" in name]


def test_weights_saved_in_half_precision_train_in_full(data, tmp_path):
    folder = save_tiny_encoder("distilbert", tmp_path, dtype=torch.bfloat16)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    model, _ = build(data, config_for(folder))
    assert {value.dtype for value in model.encoder.parameters()} == {torch.float32}
    assert "dtype" not in model.config.encoder


def test_positions_limit_the_length(data, tmp_path):
    folder = save_tiny_encoder("roberta", tmp_path)
    build(data, config_for(folder, max_tokens=64, batch_tokens=512))
    with pytest.raises(ConfigError, match=r"max_tokens is 65; .* reads at most 64"):
        build(data, config_for(folder, max_tokens=65, batch_tokens=512))


def test_encoder_decoder_is_refused_by_name(data, tmp_path):
    from transformers import T5Config

    T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"'t5'; encoder-decoders are not read; allowed.*gpt2"):
        build(data, config_for(tmp_path))


def test_foreign_tokenizer_is_refused(data, tmp_path):
    tiny_model("bert", vocab_size=7).save_pretrained(tmp_path)
    tiny_tokenizer("bert").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has 7 words, its tokenizer 15"):
        build(data, config_for(tmp_path))


def test_folder_that_lacks_weights_is_refused(data, tmp_path):
    from safetensors.torch import load_file, save_file

    save_tiny_encoder("electra", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights .*layer\.1"):
        build(data, config_for(tmp_path))
