"""The inference engine: what the module computes, in each mode, whatever stands beside a text."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_udf.errors import BundleIntegrityError
from churn_udf.model import engine as engine_module
from churn_udf.model.bert import PackedBert
from churn_udf.model.encoder import build_encoder
from churn_udf.model.engine import PackedEngine, can_pack
from churn_udf.model.precision import usable_mode

BERT = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 34,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
CONFIGS = {
    "bert": BERT,
    "one layer": {**BERT, "num_hidden_layers": 1},
    "one segment": {**BERT, "type_vocab_size": 1},
    "roberta": {**BERT, "model_type": "roberta", "pad_token_id": 1},
    "narrow electra": {**BERT, "model_type": "electra", "embedding_size": 16},
}
LENGTHS = [1, 1, 3, 7, 7, 7, 30]
DRIFT = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.1}
"""Of states whose deviation is 1."""


def build(config: dict) -> PackedBert:
    """An encoder whose weights are all random, norms and biases too."""
    encoder = PackedBert(config)
    generator = torch.Generator().manual_seed(1)
    encoder.initialize(generator)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "LayerNorm" in name or name.endswith("bias"):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            else:
                parameter *= 3.0
    return encoder.eval()


def random_texts(lengths: list[int], config: dict, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (sum(lengths),), generator=generator)
    kinds = torch.randint(0, config["type_vocab_size"], (sum(lengths),), generator=generator)
    return ids, kinds, lengths


def ranges_of(encoder: PackedBert) -> dict[str, tuple[float, float]]:
    """Wide enough for anything, as layer norms bound what there is."""
    return {
        name: (-6.0, 6.0)
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def need(mode: str) -> None:
    """Skip, by name, a mode that this CPU cannot run."""
    _, reason = usable_mode(mode, torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("mode", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_states_are_those_of_the_module(name, mode):
    need(mode)
    encoder = build(CONFIGS[name])
    texts = random_texts(LENGTHS, CONFIGS[name])
    with torch.inference_mode():
        expected = encoder(*texts)
        found = PackedEngine(encoder, mode, ranges_of(encoder))(*texts)
    assert expected.std() > 0.5
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=DRIFT[mode], rtol=0)
    if mode != "fp32":
        assert (found - expected).abs().max() > 1e-5, "the mode is not run"


def test_first_layer_is_the_same_with_and_without_its_table(monkeypatch):
    encoder = build(BERT)
    texts = random_texts(LENGTHS, BERT)
    with torch.inference_mode():
        looked_up = PackedEngine(encoder)
        monkeypatch.setattr(engine_module, "MOST_TABLE_BYTES", 0)
        computed = PackedEngine(encoder)
        assert looked_up._inputs._table_VO is not None
        assert computed._inputs._table_VO is None
        torch.testing.assert_close(looked_up(*texts), computed(*texts), atol=1e-5, rtol=0)


def test_plain_torch_gives_the_same_as_onednn(monkeypatch):
    encoder = build(BERT)
    texts = random_texts(LENGTHS, BERT)
    with torch.inference_mode():
        expected = PackedEngine(encoder)(*texts)
        monkeypatch.setattr("churn_udf.model.dense.HAS_ONEDNN", False)
        torch.testing.assert_close(PackedEngine(encoder)(*texts), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def engines() -> dict[str, PackedEngine]:
    encoder = build(BERT)
    ranges = ranges_of(encoder)
    modes = [m for m in DRIFT if usable_mode(m, torch.device("cpu"))[1] is None]
    return {mode: PackedEngine(encoder, mode, ranges) for mode in modes}


@pytest.mark.parametrize("mode", ["fp32", "bf16", "int8"])
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_neighbours_order_and_batch_size_change_nothing(engines, mode, lengths, seed):
    need(mode)
    ids, kinds, _ = random_texts(lengths, BERT, seed)
    parts = list(zip(ids.split(lengths), kinds.split(lengths), strict=True))
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    with torch.inference_mode():
        together = engines[mode](ids, kinds, lengths)
        alone = torch.cat([engines[mode](one, two, [len(one)]) for one, two in parts])
        mixed = engines[mode](
            torch.cat([parts[i][0] for i in order]),
            torch.cat([parts[i][1] for i in order]),
            [lengths[i] for i in order],
        )
    # Rounding of one value to its neighbour can be tipped by float32 noise before it.
    tolerance = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.05}[mode]
    torch.testing.assert_close(together, alone, atol=tolerance, rtol=0)
    torch.testing.assert_close(mixed, together[order], atol=tolerance, rtol=0)


@pytest.mark.parametrize("mode", ["bf16", "int8"])
def test_rounding_is_tipped_in_few_texts_if_any(engines, mode):
    need(mode)
    lengths = torch.randint(1, 33, (200,), generator=torch.Generator().manual_seed(4)).tolist()
    ids, kinds, _ = random_texts(lengths, BERT)
    parts = zip(ids.split(lengths), kinds.split(lengths), strict=True)
    with torch.inference_mode():
        together = engines[mode](ids, kinds, lengths)
        alone = torch.cat([engines[mode](one, two, [len(one)]) for one, two in parts])
    is_moved_B = (together - alone).abs().amax(dim=1) > 1e-5
    assert is_moved_B.sum() <= 10


def test_int8_without_a_range_for_a_layer_is_refused():
    need("int8")
    encoder = build(BERT)
    ranges = ranges_of(encoder)
    del ranges["encoder.layer.1.output.dense"]
    with pytest.raises(BundleIntegrityError, match=r"no activation range for .*layer\.1\.output"):
        PackedEngine(encoder, "int8", ranges)


@pytest.mark.parametrize("kind", ["prefix", "bottleneck"])
def test_encoders_with_an_adapter_are_left_to_the_module(kind):
    adapter = {"kind": kind, "size": 4, "dropout": 0.0}
    assert can_pack(build_encoder(BERT))
    assert not can_pack(build_encoder(BERT, adapter))
    assert not can_pack(build_encoder({**BERT, "hidden_act": "relu"}))


def test_encoders_whose_layers_a_library_has_wrapped_are_left_to_the_module():
    class Wrapped(torch.nn.Module):
        def __init__(self, base: torch.nn.Module) -> None:
            super().__init__()
            self.base = base

    encoder = build_encoder(BERT)
    attention = encoder.get_submodule("encoder.layer.0.attention.self")
    attention.query = Wrapped(attention.query)
    assert not can_pack(encoder)
