"""The packed encoder computes what transformers' BERT computes, whatever the batch."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from churn_udf.model.bert import PackedBert, PackedLayout
from churn_udf.model.encoder import PaddedEncoder, build_encoder

CONFIG = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def encoder() -> PackedBert:
    packed = PackedBert(CONFIG)
    packed.initialize(torch.Generator().manual_seed(1))
    return packed.eval()


def random_texts(lengths: list[int], seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(5, 60, (length,), generator=generator) for length in lengths]
    segments = [torch.randint(0, 2, (length,), generator=generator) for length in lengths]
    return ids, segments


def test_states_equal_transformers(encoder):
    from transformers import BertConfig, BertModel

    settings = {key: value for key, value in CONFIG.items() if key != "model_type"}
    reference = BertModel(BertConfig(**settings), add_pooling_layer=False).eval()
    missing = reference.load_state_dict(encoder.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert not missing.missing_keys
    ids, segments = random_texts([3, 3, 7, 12, 32])
    with torch.inference_mode():
        first = encoder(torch.cat(ids), torch.cat(segments), [3, 3, 7, 12, 32])
        tokens = encoder(torch.cat(ids), torch.cat(segments), [3, 3, 7, 12, 32], all_tokens=True)
        expected = [
            reference(input_ids=one[None], token_type_ids=two[None]).last_hidden_state[0]
            for one, two in zip(ids, segments, strict=True)
        ]
    torch.testing.assert_close(first, torch.stack([row[0] for row in expected]), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens, torch.cat(expected), atol=1e-5, rtol=0)


def test_neighbours_and_order_change_nothing(encoder):
    ids, segments = random_texts([4, 9, 9, 2])
    with torch.inference_mode():
        together = encoder(torch.cat(ids), torch.cat(segments), [4, 9, 9, 2])
        alone = torch.cat(
            [encoder(one, two, [len(one)]) for one, two in zip(ids, segments, strict=True)]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_gradients_reach_every_weight(encoder):
    ids, segments = random_texts([5, 8])
    model = PackedBert(CONFIG)
    model(torch.cat(ids), torch.cat(segments), [5, 8]).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    model.zero_grad()
    model.eval()(torch.cat(ids), torch.cat(segments), [5, 8]).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["encoder.layer.2.attention.self.key.bias"]  # softmax ignores it


def test_first_tokens_alone_have_the_states_and_gradients_of_all_tokens(encoder):
    lengths = [3, 3, 7, 12, 32]
    ids, segments = random_texts(lengths)
    layout = PackedLayout(lengths, torch.device("cpu"))

    def states_and_gradients(all_tokens):
        encoder.zero_grad()
        states = encoder(torch.cat(ids), torch.cat(segments), lengths, all_tokens=all_tokens)
        states = states[layout.first_B] if all_tokens else states
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
        return states.detach(), gradients

    states, gradients = states_and_gradients(all_tokens=False)
    expected, expected_gradients = states_and_gradients(all_tokens=True)
    unread = expected_gradients.pop("encoder.layer.2.attention.self.key.bias")
    encoder.zero_grad()
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-4, rtol=1e-3)
    assert unread.abs().max() < 1e-4


@pytest.mark.parametrize("all_tokens", [False, True])
def test_gradients_of_a_batch_are_those_of_its_texts_alone(encoder, all_tokens):
    lengths = [3, 3, 7, 12, 12, 32]
    ids, segments = random_texts(lengths)

    def gradients(batches):
        encoder.zero_grad()
        for batch in batches:
            states = encoder(
                torch.cat([ids[index] for index in batch]),
                torch.cat([segments[index] for index in batch]),
                [lengths[index] for index in batch],
                all_tokens=all_tokens,
            )
            states.square().sum().backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    together = gradients([range(len(lengths))])
    alone = gradients([[index] for index in range(len(lengths))])
    encoder.zero_grad()
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-3)


def test_other_families_run_padded_and_agree_with_their_rows_alone():
    config = {
        "model_type": "distilbert",
        "vocab_size": 60,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 32,
    }
    torch.manual_seed(0)
    model = build_encoder(config).eval()
    assert isinstance(model, PaddedEncoder)
    ids, segments = random_texts([4, 9, 2])
    with torch.inference_mode():
        together = model(torch.cat(ids), torch.cat(segments), [4, 9, 2])
        alone = torch.cat(
            [model(one, two, [len(one)]) for one, two in zip(ids, segments, strict=True)]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_bert_variants_that_the_packed_code_does_not_know_go_through_transformers():
    assert isinstance(build_encoder({**CONFIG, "hidden_act": "relu"}), PaddedEncoder)


def test_huggingface_tokenizer_builds_the_same_pair_as_transformers(tmp_path):
    from tokenizers import BertWordPieceTokenizer

    from churn_udf.tokenization import HuggingFaceTokenizer, load_tokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "last", "visit", "##s", "good"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    reference = BertWordPieceTokenizer(str(tmp_path / "words.txt"))
    tokenizer = HuggingFaceTokenizer(
        reference.to_str(),
        first_id=2,
        separator_id=3,
        masked_id=4,
        max_tokens=16,
        max_review_tokens=4,
    )
    tokenizer.save(tmp_path)
    batch = load_tokenizer(tmp_path).encode(pa.array(["last visits"]), pa.array(["good"]))
    expected = reference.encode("last visits", "good")
    assert batch.ids.tolist() == expected.ids
    assert np.array_equal(batch.segments, expected.type_ids)
