"""One attention call for all texts gives what calls per length give.

The kernel itself runs on a GPU alone; where there is one, the last test runs it. Elsewhere a plain
loop over the same bounds stands for it, so that what the encoder hands over is tested anyway.
"""

import pytest
import torch
from torch.nn import functional

from churn_udf.model import varlen
from churn_udf.model.bert import PackedBert

CONFIG = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
LENGTHS = [1, 3, 3, 7, 12, 12, 12, 30]


def encode(encoder: PackedBert, device: str = "cpu", *, all_tokens: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    ids_N = torch.randint(5, 60, (sum(LENGTHS),), generator=generator).to(device)
    segments_N = torch.randint(0, 2, (sum(LENGTHS),), generator=generator).to(device)
    with torch.inference_mode():
        return encoder(ids_N, segments_N, LENGTHS, all_tokens=all_tokens)


@pytest.fixture
def encoder() -> PackedBert:
    packed = PackedBert(CONFIG)
    packed.initialize(torch.Generator().manual_seed(1))
    return packed.eval()


def attend_by_loop(queries_QHK, keys_NHK, values_NHK, query_bounds, key_bounds):
    """What the kernel is documented to do: text by text, by its bounds."""
    assert query_bounds.offsets.dtype == key_bounds.offsets.dtype == torch.int32
    assert len(query_bounds.offsets) == len(key_bounds.offsets)
    outputs = []
    for text in range(len(key_bounds.offsets) - 1):
        rows, known = (
            slice(int(bounds.offsets[text]), int(bounds.offsets[text + 1]))
            for bounds in (query_bounds, key_bounds)
        )
        assert rows.stop - rows.start <= query_bounds.longest
        assert known.stop - known.start <= key_bounds.longest
        heads = [
            part.transpose(0, 1) for part in (queries_QHK[rows], keys_NHK[known], values_NHK[known])
        ]
        outputs.append(functional.scaled_dot_product_attention(*heads).transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("all_tokens", [False, True])
def test_one_call_attends_as_calls_per_length_do(encoder, monkeypatch, all_tokens):
    expected = encode(encoder, all_tokens=all_tokens)
    monkeypatch.setattr(varlen, "is_usable", lambda queries_QHK: True)
    monkeypatch.setattr(varlen, "attend", attend_by_loop)
    torch.testing.assert_close(encode(encoder, all_tokens=all_tokens), expected, atol=1e-5, rtol=0)


def test_training_never_takes_the_kernel_that_knows_no_dropout(encoder, monkeypatch):
    monkeypatch.setattr(varlen, "is_usable", lambda queries_QHK: True)
    monkeypatch.setattr(varlen, "attend", None)
    ids_N = torch.full((4,), 5)
    states_BD = encoder.train()(ids_N, torch.zeros_like(ids_N), [4])
    assert states_BD.requires_grad


def test_processor_and_full_precision_take_sdpa():
    assert not varlen.is_usable(torch.zeros(2, 4, 8, dtype=torch.bfloat16))
    assert not varlen.is_usable(torch.zeros(2, 4, 8))


def test_a_device_without_the_kernel_is_told_once_and_served_by_sdpa(caplog):
    varlen._passes_trial.cache_clear()
    device = torch.device("cpu")  # its torch has no such kernel
    assert [varlen._passes_trial(device, torch.bfloat16, 2, 32) for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    assert "no variable-length attention on cpu for heads of width 32" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kernel_gives_what_the_processor_gives(encoder):
    expected = encode(encoder)
    found = encode(encoder.to("cuda", torch.bfloat16), "cuda").float().cpu()
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)
