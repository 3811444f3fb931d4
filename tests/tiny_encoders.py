"""Tiny pretrained encoders of every family with tiny tokenizers, made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("last", "visit", "bought", "dairy", "bakery", "gap", "days", "good", "bad", "usual")
SPECIAL = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "gpt2": ("<|endoftext|>",),
}
STYLES = {
    **dict.fromkeys(("bert", "distilbert", "electra", "modernbert"), "bert"),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), "roberta"),
    **dict.fromkeys(("gpt2", "llama", "qwen2", "qwen3"), "gpt2"),
}
SPECIAL_NAMES = {
    "bert": ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
    "roberta": ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"),
    "gpt2": ("eos_token",),
}
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    "bert": COMMON,
    "roberta": {**COMMON, "max_position_embeddings": 66, "type_vocab_size": 1},
    "xlm-roberta": {**COMMON, "max_position_embeddings": 66, "type_vocab_size": 1},
    "camembert": {**COMMON, "max_position_embeddings": 66, "type_vocab_size": 1},
    "electra": {**COMMON, "embedding_size": 20},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 64,
    },
    "modernbert": {**COMMON, "local_attention": 8, "global_attn_every_n_layers": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "llama": {**COMMON, "num_key_value_heads": 2},
    "qwen2": {**COMMON, "num_key_value_heads": 2},
    "qwen3": {**COMMON, "num_key_value_heads": 2, "head_dim": 8},
}


def special_ids(family: str) -> dict[str, int]:
    """Ids of a family's special tokens, under the names that a configuration uses."""
    style = STYLES[family]
    ids = {f"{name}_id": place for place, name in enumerate(SPECIAL_NAMES[style])}
    if style == "gpt2":
        ids["bos_token_id"] = ids["eos_token_id"]
    return ids


def encoder_config(family: str, vocab_size: int = 60) -> dict[str, Any]:
    """The whole transformers configuration of a tiny encoder."""
    from transformers import AutoConfig

    settings = {"vocab_size": vocab_size, **SHAPES[family], **special_ids(family)}
    config: dict[str, Any] = AutoConfig.for_model(family, **settings).to_dict()
    return config


def tiny_model(family: str, vocab_size: int = 60, seed: int = 0, **changes: Any) -> Any:
    """A randomly initialised transformers model, in evaluation mode."""
    from transformers import AutoConfig, AutoModel

    settings = {**encoder_config(family, vocab_size), **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = AutoModel.from_config(config).eval()
        for value in model.parameters():  # biases and norms too: a lost one must be seen
            value.data.add_(0.1 * torch.randn_like(value))
    return model


def tiny_tokenizer(family: str) -> Any:
    """A word tokenizer with the special tokens of the family."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    style = STYLES[family]
    special = SPECIAL[style]
    words = (*special, *(() if "<unk>" in special or "[UNK]" in special else ("?",)), *WORDS)
    unknown = next(word for word in ("[UNK]", "<unk>", "?") if word in words)
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(SPECIAL_NAMES[style], special, strict=True))
    if style == "gpt2":
        names["bos_token"] = names["eos_token"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def save_tiny_encoder(family: str, folder: Path, **changes: Any) -> Path:
    """Write model and tokenizer as ``from_pretrained`` reads them."""
    tokenizer = tiny_tokenizer(family)
    tiny_model(family, vocab_size=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
