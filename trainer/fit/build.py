"""Building an untrained classifier and its tokenizer for a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.model.bert import PackedBert
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.config import ModelConfig
from churn_udf.model.encoder import PaddedEncoder
from churn_udf.model.families import find_family, most_tokens
from churn_udf.tokenization import SPECIAL_WORDS, HuggingFaceTokenizer, Tokenizer
from trainer.errors import ConfigError
from trainer.fit.config import COMPACT, FitConfig
from trainer.fit.vocabulary import learn_vocabulary


def build_classifier(
    behavior_texts: pa.Array,
    review_texts: pa.Array,
    train_features: npt.NDArray[np.float64],
    features: tuple[FeatureSpec, ...],
    config: FitConfig,
) -> tuple[ChurnClassifier, Tokenizer]:
    """Return a classifier ready to train.

    Args:
        behavior_texts: Texts that the compact vocabulary may be learned from.
        review_texts: Reviews of the same rows.
        train_features: (B, F) float64 training rows that the feature codes are fitted on.
        features: The features in order.
        config: Sizes and encoder.

    Raises:
        ConfigError: The encoder cannot be loaded.
    """
    generator = torch.Generator().manual_seed(config.seed)
    pretrained: torch.nn.Module | None = None
    tokenizer: Tokenizer
    if config.encoder == COMPACT:
        tokenizer = learn_vocabulary(behavior_texts, review_texts, config)
        encoder_config = compact_encoder_config(tokenizer.vocabulary_size, config)
    else:
        pretrained, encoder_config, tokenizer = _load_pretrained(config)
    model_config = ModelConfig(
        encoder=encoder_config,
        features=features,
        num_bins=config.num_bins,
        dropout=config.dropout,
        max_tokens=config.max_tokens,
        max_review_tokens=config.max_review_tokens,
        modality=config.modality,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ChurnClassifier(model_config)
    if pretrained is not None:
        _copy_pretrained(pretrained, model)
    elif isinstance(model.encoder, PackedBert):
        model.encoder.initialize(generator)
    model.coding.fit(train_features)
    codes_BFC = model.coding(torch.from_numpy(train_features))
    model.mean_codes_FC.copy_(codes_BFC.double().mean(dim=0).float())
    return model, tokenizer


def compact_encoder_config(vocabulary_size: int, config: FitConfig) -> dict[str, Any]:
    """Return the transformers configuration of the compact BERT."""
    return {
        "model_type": "bert",
        "vocab_size": vocabulary_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": 4 * config.hidden_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,  # with it torch leaves its fast attention on the CPU
        "max_position_embeddings": config.max_tokens,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": SPECIAL_WORDS.index("[PAD]"),
    }


NOT_OF_THE_MODEL = frozenset(
    {"_name_or_path", "architectures", "dtype", "id2label", "label2id", "transformers_version"}
)
"""Entries of a transformers configuration that tell of a file, a task or a place."""


def _load_pretrained(config: FitConfig) -> tuple[torch.nn.Module, dict[str, Any], Tokenizer]:
    """Load encoder, its configuration and its tokenizer through transformers."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        encoder_config = AutoConfig.from_pretrained(config.encoder).to_dict()
        find_family(encoder_config)
        model, report = AutoModel.from_pretrained(
            config.encoder, dtype=torch.float32, output_loading_info=True
        )
        loaded = AutoTokenizer.from_pretrained(config.encoder, use_fast=True)
        text = loaded.backend_tokenizer.to_str()
    except Exception as error:
        hint = "" if not Path(config.encoder).exists() else " (the folder exists)"
        raise ConfigError(
            f"fit.encoder {config.encoder!r} cannot be loaded{hint}: {error}. Allowed: "
            f"{COMPACT!r}, a folder with config.json, weights and tokenizer.json, or a hub id "
            "that this machine can reach"
        ) from error
    missing = [name for name in sorted(report["missing_keys"]) if "pooler" not in name]
    if missing:
        raise ConfigError(
            f"fit.encoder {config.encoder!r} lacks weights {missing[:5]}; it is not a whole model"
        )
    limit = most_tokens(encoder_config)
    if limit is not None and config.max_tokens > limit:
        raise ConfigError(
            f"fit.max_tokens is {config.max_tokens}; {config.encoder!r} reads at most {limit}"
        )
    if len(loaded) > encoder_config["vocab_size"]:
        raise ConfigError(
            f"fit.encoder {config.encoder!r} has {encoder_config['vocab_size']} words, its "
            f"tokenizer {len(loaded)}; allowed: the tokenizer that the encoder was trained with"
        )
    first, last, masked = _special_ids(loaded, config.encoder)
    tokenizer = HuggingFaceTokenizer(
        text,
        first_id=first,
        separator_id=last,
        masked_id=masked,
        max_tokens=config.max_tokens,
        max_review_tokens=config.max_review_tokens,
    )
    kept = {name: item for name, item in encoder_config.items() if name not in NOT_OF_THE_MODEL}
    return model, kept, tokenizer


def _special_ids(loaded: Any, name: str) -> tuple[int, int, int]:
    """Return opening, closing and mask id; where there is no such token another stands in."""
    openers = (loaded.cls_token_id, loaded.bos_token_id)
    closers = (loaded.sep_token_id, loaded.eos_token_id)
    first = next((item for item in (*openers, *closers) if item is not None), None)
    last = next((item for item in (*closers, *openers) if item is not None), None)
    if first is None or last is None:
        raise ConfigError(
            f"fit.encoder {name!r} has a tokenizer without opening or closing token; "
            "allowed: encoders with [CLS]/[SEP], <s>/</s>, <|endoftext|> or the like"
        )
    masked = loaded.mask_token_id if loaded.mask_token_id is not None else last
    return int(first), int(last), int(masked)


def _copy_pretrained(pretrained: torch.nn.Module, model: ChurnClassifier) -> None:
    """Move the weights of a transformers model into the classifier's encoder."""
    target = model.encoder.inner if isinstance(model.encoder, PaddedEncoder) else model.encoder
    loaded = target.load_state_dict(pretrained.state_dict(), strict=False)
    assert not loaded.missing_keys, loaded.missing_keys
