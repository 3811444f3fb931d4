"""Picking the text encoder: packed BERT, or any other family through ``transformers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from churn_udf.model.bert import PackedBert

PACKED_FAMILIES = frozenset({"bert"})


class PaddedEncoder(nn.Module):
    """Any ``transformers`` encoder behind the packed interface; pads to the longest text."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        family = dict(config)
        model_config = AutoConfig.for_model(family.pop("model_type"), **family)
        self.inner = AutoModel.from_config(model_config)  # type: ignore[no-untyped-call]
        self.hidden_size = int(model_config.hidden_size)
        self.pad_id = int(getattr(model_config, "pad_token_id", 0) or 0)
        self.has_segments = int(getattr(model_config, "type_vocab_size", 0) or 0) > 1

    def forward(
        self,
        ids_N: torch.Tensor,
        segments_N: torch.Tensor,
        lengths: Sequence[int],
        *,
        all_tokens: bool = False,
    ) -> torch.Tensor:
        """Encode packed texts; arguments and result as in ``PackedBert.forward``."""
        sizes = list(lengths)
        padded = torch.nn.utils.rnn.pad_sequence
        rows = list(torch.split(ids_N, sizes))
        inputs = {
            "input_ids": padded(rows, True, float(self.pad_id)),
            "attention_mask": padded([torch.ones_like(row) for row in rows], True),
        }
        if self.has_segments:
            inputs["token_type_ids"] = padded(list(torch.split(segments_N, sizes)), True)
        hidden_BTD: torch.Tensor = self.inner(**inputs).last_hidden_state
        if all_tokens:
            return hidden_BTD[inputs["attention_mask"].bool()]
        return hidden_BTD[:, 0]


def build_encoder(config: Mapping[str, Any]) -> PackedBert | PaddedEncoder:
    """Return an encoder with fresh weights for a transformers configuration mapping."""
    is_packed = config.get("model_type") in PACKED_FAMILIES and config.get("hidden_act") == "gelu"
    if is_packed and config.get("type_vocab_size", 2) > 1:
        return PackedBert(config)
    return PaddedEncoder(config)
