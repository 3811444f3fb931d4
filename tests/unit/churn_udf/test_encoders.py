"""Every known family computes what transformers computes, whatever stands in the same batch."""

import pytest
import torch
from tiny_encoders import encoder_config, tiny_model

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.model.bert import PackedBert
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.config import ModelConfig
from churn_udf.model.encoder import (
    MOST_PADDING,
    PaddedEncoder,
    attach_adapter,
    build_encoder,
    padded_groups,
)
from churn_udf.model.families import FAMILIES, find_family, most_tokens

LENGTHS = [2, 3, 3, 17, 30, 9]
CAUSAL = ("gpt2", "llama", "qwen2", "qwen3")
PACKED = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def build(family: str, **changes):
    """Our encoder and transformers' model with the same weights."""
    model = tiny_model(family, **changes)
    encoder = build_encoder(model.config.to_dict()).eval()
    target = encoder.inner if isinstance(encoder, PaddedEncoder) else encoder
    assert not target.load_state_dict(model.state_dict(), strict=False).missing_keys
    return encoder, model


def random_texts(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(6, 60, (length,), generator=generator) for length in lengths]
    segments = [torch.randint(0, 2, (length,), generator=generator) for length in lengths]
    return ids, segments


def reference_states(model, ids, segments):
    """States of each text alone, by transformers itself."""
    has_segments = getattr(model.config, "type_vocab_size", 0) > 1
    with torch.inference_mode():
        return [
            model(
                input_ids=one[None], **({"token_type_ids": two[None]} if has_segments else {})
            ).last_hidden_state[0]
            for one, two in zip(ids, segments, strict=True)
        ]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_equal_transformers_on_each_text_alone(family):
    encoder, model = build(family)
    ids, segments = random_texts()
    expected = reference_states(model, ids, segments)
    read_at = -1 if family in CAUSAL else 0
    with torch.inference_mode():
        pooled = encoder(torch.cat(ids), torch.cat(segments), LENGTHS)
        tokens = encoder(torch.cat(ids), torch.cat(segments), LENGTHS, all_tokens=True)
    torch.testing.assert_close(
        pooled, torch.stack([row[read_at] for row in expected]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(tokens, torch.cat(expected), atol=1e-5, rtol=0)
    assert isinstance(encoder, PackedBert) == (family in PACKED)


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_and_order_change_nothing(family):
    encoder, _ = build(family)
    ids, segments = random_texts()
    with torch.inference_mode():
        together = encoder(torch.cat(ids), torch.cat(segments), LENGTHS)
        alone = torch.cat(
            [encoder(one, two, [len(one)]) for one, two in zip(ids, segments, strict=True)]
        )
        order = [4, 0, 3, 5, 2, 1]
        mixed = encoder(
            torch.cat([ids[i] for i in order]),
            torch.cat([segments[i] for i in order]),
            [LENGTHS[i] for i in order],
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed, together[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["distilbert", "modernbert", "gpt2", "roberta"])
def test_right_padding_and_mask_hide_the_padding(family, monkeypatch):
    monkeypatch.setattr("churn_udf.model.encoder.MOST_PADDING", 0.99)
    encoder, model = build(family)
    if family == "roberta":
        encoder = PaddedEncoder(model.config.to_dict()).eval()
        encoder.inner.load_state_dict(model.state_dict(), strict=False)
    ids, segments = random_texts()
    assert padded_groups(LENGTHS) == [len(LENGTHS)]
    with torch.inference_mode():
        tokens = encoder(torch.cat(ids), torch.cat(segments), LENGTHS, all_tokens=True)
    expected = torch.cat(reference_states(model, ids, segments))
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)


def test_packed_and_padded_roberta_agree_and_know_their_first_position():
    encoder, model = build("roberta")
    assert isinstance(encoder, PackedBert)
    ids, segments = random_texts([64])
    with torch.inference_mode():
        pooled = encoder(ids[0], segments[0], [64])
    expected = reference_states(model, ids, segments)[0][:1]
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)
    assert most_tokens(model.config.to_dict()) == 64
    assert encoder.embeddings.position_offset == 2


@pytest.mark.parametrize(
    ("family", "limit"), [("bert", 64), ("distilbert", 64), ("gpt2", 64), ("electra", 64)]
)
def test_other_families_read_as_many_tokens_as_they_have_positions(family, limit):
    assert most_tokens(tiny_model(family).config.to_dict()) == limit


def test_electra_may_have_embeddings_as_wide_as_its_layers():
    encoder, model = build("electra", embedding_size=32)
    assert encoder.embeddings_project is None
    ids, segments = random_texts([5])
    with torch.inference_mode():
        pooled = encoder(ids[0], segments[0], [5])
    expected = reference_states(model, ids, segments)[0][:1]
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)


def test_segments_are_read_only_where_the_model_has_them():
    ids, segments = random_texts([9])
    for family, reads_segments in (("bert", True), ("roberta", False), ("gpt2", False)):
        encoder, _ = build(family)
        with torch.inference_mode():
            seen = encoder(ids[0], segments[0], [9])
            blind = encoder(ids[0], torch.zeros_like(segments[0]), [9])
        assert bool((seen - blind).abs().max() > 1e-4) == reads_segments, family


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_layers(family):
    encoder = build_encoder(encoder_config(family))
    ids, segments = random_texts()
    encoder(torch.cat(ids), torch.cat(segments), LENGTHS).square().sum().backward()
    without = [
        name
        for name, p in encoder.named_parameters()
        if p.grad is None and "pooler" not in name and "embedding" not in name
    ]
    assert without == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoders", id="t5"),
        pytest.param({"model_type": "vit"}, "'vit'", id="vision"),
        pytest.param({"model_type": "bert", "is_decoder": True}, "made causal", id="causal-bert"),
    ],
)
def test_unknown_families_are_refused_by_name(config, words):
    with pytest.raises(ValueError, match=words) as caught:
        find_family(config)
    assert "modernbert" in str(caught.value)


def test_padded_groups_hold_little_padding_and_every_text():
    lengths = sorted([*range(2, 40), *range(2, 40, 3)])
    groups = padded_groups(lengths)
    start = 0
    for count in groups:
        part = lengths[start : start + count]
        assert sum(part) >= (1 - MOST_PADDING) * max(part) * count
        start += count
    assert start == len(lengths)
    assert len(groups) < len(lengths) / 3
    assert padded_groups([7, 7, 7]) == [3]


ADAPTED = [(family, "bottleneck") for family in FAMILIES] + [
    (family, "prefix") for family in (*PACKED, *CAUSAL)
]


@pytest.mark.parametrize(("family", "kind"), ADAPTED)
def test_stored_adapters_are_saved_and_change_the_states(family, kind, tmp_path):
    config = encoder_config(family)
    adapter = {"kind": kind, "size": 3, "dropout": 0.0}
    features = (FeatureSpec(name="recency", group="recency"),)
    model = ChurnClassifier(ModelConfig(encoder=config, features=features, adapter=adapter)).eval()
    ids, segments = random_texts()
    inputs = torch.cat(ids), torch.cat(segments), LENGTHS
    with torch.no_grad():
        for name, value in model.encoder.named_parameters():
            if "up." in name or "prefix" in name:
                value.normal_(generator=torch.Generator().manual_seed(1))
    model.save(tmp_path)
    loaded = ChurnClassifier.load(tmp_path)
    plain = build_encoder(config).eval()
    names = {name.replace(".base.", "."): v for name, v in model.encoder.state_dict().items()}
    assert not plain.load_state_dict(names, strict=False).missing_keys
    with torch.inference_mode():
        adapted = model.encode_text(*inputs)
        torch.testing.assert_close(loaded.encode_text(*inputs), adapted)
        alone = [
            model.encode_text(one, two, [len(one)]) for one, two in zip(ids, segments, strict=True)
        ]
        torch.testing.assert_close(adapted, torch.cat(alone), atol=1e-5, rtol=0)
        assert (plain(*inputs) - adapted).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["distilbert", "modernbert"])
def test_families_without_a_prefix_say_so(family):
    config = encoder_config(family)
    with pytest.raises(ValueError, match="takes no prefix"):
        attach_adapter(build_encoder(config), config, {"kind": "prefix", "size": 2})
