"""The classifier: feature codes, fusion, effects, saving."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.errors import BundleIntegrityError, ScoringError
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.config import ModelConfig
from churn_udf.model.numeric import PiecewiseLinearEncoding
from churn_udf.model.runner import ModelRunner, resolve_device
from churn_udf.tokenization import CompactTokenizer

FEATURES = (
    FeatureSpec(name="recency_days", group="recency"),
    FeatureSpec(name="order_count", group="frequency"),
    FeatureSpec(name="amount_sum", group="spend"),
)
WORDS = ["last", "visit", "dairy", "bakery", "great"]


@pytest.fixture
def runner() -> ModelRunner:
    torch.manual_seed(0)
    encoder = {
        "model_type": "bert",
        "vocab_size": 10,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    model = ChurnClassifier(ModelConfig(encoder=encoder, features=FEATURES, max_tokens=32))
    rows = np.random.default_rng(0).normal(size=(200, 3))
    model.coding.fit(rows)
    model.mean_codes_FC.copy_(model.coding(torch.from_numpy(rows)).mean(dim=0))
    tokenizer = CompactTokenizer(WORDS, max_tokens=32, max_review_tokens=8)
    return ModelRunner(model, tokenizer, device="cpu")


def random_rows(count: int, seed: int = 3):
    generator = np.random.default_rng(seed)
    texts = [" ".join(generator.choice(WORDS, generator.integers(0, 30))) for _ in range(count)]
    reviews = [" ".join(generator.choice(WORDS, generator.integers(0, 5))) for _ in range(count)]
    features = generator.normal(size=(count, 3))
    features[generator.random((count, 3)) < 0.2] = np.nan
    return pa.array(texts), pa.array(reviews), features


def test_codes_fill_bins_in_order_and_mark_unknown():
    coding = PiecewiseLinearEncoding(1, 2)
    coding.fit(np.array([[0.0], [1.0], [3.0]]))
    coded = coding(torch.tensor([[-1.0], [0.5], [2.0], [9.0], [float("nan")]]).double())[:, 0]
    expected = [[0, 0, 0], [0.5, 0, 0], [1, 0.5, 0], [1, 1, 0], [0, 0, 1]]
    assert coded.tolist() == expected


def test_codes_of_a_constant_feature_are_a_step():
    coding = PiecewiseLinearEncoding(1, 2)
    coding.fit(np.full((5, 1), 4.0))
    assert coding(torch.tensor([[4.0], [4.1]]).double())[:, 0].tolist() == [[0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("token_budget", [1, 40, 10_000])
def test_scores_do_not_depend_on_batches(runner, token_budget):
    texts, reviews, features = random_rows(50)
    whole = runner.run(texts, reviews, features)
    runner.token_budget = token_budget
    again = runner.run(texts, reviews, features)
    np.testing.assert_allclose(again.logits, whole.logits, atol=1e-5, rtol=0)
    np.testing.assert_allclose(again.group_effects, whole.group_effects, atol=1e-5, rtol=0)


def test_scores_do_not_depend_on_order(runner):
    texts, reviews, features = random_rows(40)
    order = np.random.default_rng(1).permutation(40)
    whole = runner.run(texts, reviews, features).logits
    shuffled = runner.run(
        texts.take(pa.array(order)), reviews.take(pa.array(order)), features[order]
    )
    np.testing.assert_allclose(shuffled.logits, whole[order], atol=1e-5, rtol=0)


def test_effect_of_a_group_is_the_logit_lost_without_it(runner):
    texts, reviews, features = random_rows(10)
    output = runner.run(texts, reviews, features)
    assert runner.feature_groups == ("recency", "frequency", "spend", "behaviour_text")
    tokens = runner.tokenizer.encode(texts, reviews)
    order = np.argsort(tokens.lengths, kind="stable")
    with torch.inference_mode():
        text, codes = runner._inputs(tokens.take(order), features[order])
        codes[:, 1] = runner.model.mean_codes_FC[1]
        without = runner.model.fuse(text, codes).double().numpy()
    np.testing.assert_allclose(
        output.group_effects[order, 1], output.logits[order] - without, atol=1e-5
    )


def test_saved_model_gives_the_same_logits(runner, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    runner.model.save(tmp_path)
    runner.tokenizer.save(tmp_path / "tokenizer")
    rows = random_rows(20)
    again = ModelRunner.load(tmp_path, device="cpu").run(*rows)
    np.testing.assert_array_equal(again.logits, runner.run(*rows).logits)


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
def test_damaged_model_is_refused(runner, tmp_path, file):
    runner.model.save(tmp_path)
    (tmp_path / file).write_bytes(b"\x80nonsense")
    with pytest.raises(BundleIntegrityError):
        ChurnClassifier.load(tmp_path)


def test_unknown_device_is_named():
    with pytest.raises(ScoringError, match="allowed: auto, cpu"):
        resolve_device("cuda:99")
