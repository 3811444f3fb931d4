"""Which families of encoders are known, and what differs between them.

A family is what ``model_type`` says in a transformers configuration. Bidirectional encoders are
read at their first token, which sees the whole text; in a causal decoder only the last token does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

FIRST_TOKEN, LAST_TOKEN = "first_token", "last_token"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """What differs between families."""

    pooling: str
    """Token whose state stands for the text: ``first_token`` or ``last_token``."""
    keys_and_values: str
    """Pattern of the names of the dense layers that make keys and values (with the queries, where
    the family computes the three in one)."""
    attention_outputs: str
    """Pattern of the dense layers that end attention."""
    feed_forward_outputs: str
    """Pattern of the dense layers that end the feed-forward part."""
    is_packed: bool = False
    """Whether ``PackedBert`` computes it: BERT's layers, up to positions and embedding width."""
    positions_follow_padding: bool = False
    """Whether the first position is ``pad_token_id + 1``, as in RoBERTa."""
    pooler_is_optional: bool = False
    """Whether transformers can leave out the pooler, which nothing here reads."""


_BERT = EncoderFamily(
    pooling=FIRST_TOKEN,
    keys_and_values=r"layer\.\d+\.attention\.self\.(key|value)",
    attention_outputs=r"layer\.\d+\.attention\.output\.dense",
    feed_forward_outputs=r"layer\.\d+\.output\.dense",
    is_packed=True,
    pooler_is_optional=True,
)
_ROBERTA = dataclasses.replace(_BERT, positions_follow_padding=True)
_ELECTRA = dataclasses.replace(_BERT, pooler_is_optional=False)
_DISTILBERT = EncoderFamily(
    pooling=FIRST_TOKEN,
    keys_and_values=r"layer\.\d+\.attention\.[kv]_lin",
    attention_outputs=r"layer\.\d+\.attention\.out_lin",
    feed_forward_outputs=r"layer\.\d+\.ffn\.lin2",
)
_MODERNBERT = EncoderFamily(
    pooling=FIRST_TOKEN,
    keys_and_values=r"layers\.\d+\.attn\.Wqkv",
    attention_outputs=r"layers\.\d+\.attn\.Wo",
    feed_forward_outputs=r"layers\.\d+\.mlp\.Wo",
)
_GPT2 = EncoderFamily(
    pooling=LAST_TOKEN,
    keys_and_values=r"h\.\d+\.attn\.c_attn",
    attention_outputs=r"h\.\d+\.attn\.c_proj",
    feed_forward_outputs=r"h\.\d+\.mlp\.c_proj",
)
_LLAMA = EncoderFamily(
    pooling=LAST_TOKEN,
    keys_and_values=r"layers\.\d+\.self_attn\.[kv]_proj",
    attention_outputs=r"layers\.\d+\.self_attn\.o_proj",
    feed_forward_outputs=r"layers\.\d+\.mlp\.down_proj",
)
FAMILIES: Mapping[str, EncoderFamily] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _ELECTRA,
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
"""Every family that is known; each has its test."""


def find_family(config: Mapping[str, Any]) -> EncoderFamily:
    """Return the family of a transformers configuration.

    Raises:
        ValueError: A family that is not known, or a bidirectional one made causal.
    """
    kind = str(config.get("model_type"))
    allowed = f"allowed families: {', '.join(FAMILIES)}"
    if kind not in FAMILIES:
        why = "; encoder-decoders are not read" if config.get("is_encoder_decoder") else ""
        raise ValueError(f"it is of the family {kind!r}{why}; {allowed}")
    family = FAMILIES[kind]
    if family.pooling == FIRST_TOKEN and config.get("is_decoder"):
        raise ValueError(f"it is a {kind!r} made causal (is_decoder); {allowed}, as encoders")
    return family


def position_offset(config: Mapping[str, Any]) -> int:
    """Return the place of the first token in the table of positions."""
    follows = find_family(config).positions_follow_padding
    return int(config["pad_token_id"]) + 1 if follows else 0


def most_tokens(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens the encoder can read, None where positions have no table."""
    limit = config.get("max_position_embeddings", config.get("n_positions"))
    return None if limit is None else int(limit) - position_offset(config)
