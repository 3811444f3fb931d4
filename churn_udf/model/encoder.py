"""Picking the text encoder: packed for BERT's kin, or padded through ``transformers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from churn_udf.model.adapters import BOTTLENECK, PREFIX, KeyValuePrefix, attach_bottlenecks
from churn_udf.model.bert import PackedBert
from churn_udf.model.families import LAST_TOKEN, find_family

MOST_PADDING = 0.2
"""Padding that a padded batch may hold, as a share of its tokens; beyond that it is cut."""


class PaddedEncoder(nn.Module):
    """Any known family through ``transformers`` behind the packed interface.

    Texts that stand together are padded to the longest of them, in groups that hold little
    padding when texts come sorted by length.

    Args:
        config: A transformers configuration, as a mapping.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        settings = dict(config)
        self.family = find_family(settings)
        model_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        options = {"add_pooling_layer": False} if self.family.pooler_is_optional else {}
        self.inner = AutoModel.from_config(  # type: ignore[no-untyped-call]
            model_config, dtype=torch.float32, **options
        )
        self.hidden_size = int(model_config.hidden_size)
        # Models without a pad token are causal, and no token reads what comes after it.
        self.pad_id = int(getattr(model_config, "pad_token_id", 0) or 0)
        self.has_segments = int(getattr(model_config, "type_vocab_size", 0) or 0) > 1
        self.prefixes: nn.ModuleList | None = None

    def attach_prefix(self, num_tokens: int) -> None:
        """Let every layer attend to ``num_tokens`` learned keys and values before each text.

        Raises:
            ValueError: A family that reads no keys and values from outside.
        """
        config = self.inner.config
        if self.family.pooling != LAST_TOKEN:
            raise ValueError(
                f"a {config.model_type!r} of this kind takes no prefix; allowed: families of "
                "BERT, RoBERTa and ELECTRA, and causal ones; or another adapter, such as lora"
            )
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        head_width = getattr(config, "head_dim", None)
        width = int(head_width or self.hidden_size // config.num_attention_heads)
        self.prefixes = nn.ModuleList(
            KeyValuePrefix(num_tokens, heads, width) for _ in range(config.num_hidden_layers)
        )

    def forward(
        self,
        ids_N: torch.Tensor,
        segments_N: torch.Tensor,
        lengths: Sequence[int],
        *,
        all_tokens: bool = False,
    ) -> torch.Tensor:
        """Encode packed texts; arguments as in ``PackedBert.forward``.

        Returns:
            (B, D) states of the tokens that the family is read at, or (N, D) of all.
        """
        sizes, outputs, text, token = list(lengths), [], 0, 0
        for count in padded_groups(sizes):
            chosen = sizes[text : text + count]
            rows = slice(token, token + sum(chosen))
            outputs.append(self._encode(ids_N[rows], segments_N[rows], chosen, all_tokens))
            text, token = text + count, rows.stop
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _encode(
        self, ids_N: torch.Tensor, segments_N: torch.Tensor, sizes: list[int], all_tokens: bool
    ) -> torch.Tensor:
        """Encode the texts of one padded batch."""
        padded = nn.utils.rnn.pad_sequence
        rows = list(torch.split(ids_N, sizes))
        is_token_BT = padded([torch.ones_like(row) for row in rows], True)
        inputs: dict[str, Any] = {"input_ids": padded(rows, True, float(self.pad_id))}
        if self.has_segments:
            inputs["token_type_ids"] = padded(list(torch.split(segments_N, sizes)), True)
        if self.family.pooling == LAST_TOKEN:
            inputs.update(use_cache=False, **self._prefix_inputs(is_token_BT))
        hidden_BTD: torch.Tensor = self.inner(
            **{"attention_mask": is_token_BT, **inputs}
        ).last_hidden_state
        if all_tokens:
            return hidden_BTD[is_token_BT.bool()]
        if self.family.pooling == LAST_TOKEN:
            texts_B = torch.arange(len(sizes), device=ids_N.device)
            return hidden_BTD[texts_B, torch.tensor(sizes, device=ids_N.device) - 1]
        return hidden_BTD[:, 0]

    def _prefix_inputs(self, is_token_BT: torch.Tensor) -> dict[str, Any]:
        """Return what a causal model is given for the prefix; nothing without one."""
        if self.prefixes is None:
            return {}
        from transformers import DynamicCache

        cache, count = DynamicCache(), len(is_token_BT)
        for index, prefix in enumerate(self.prefixes):
            assert isinstance(prefix, KeyValuePrefix)
            cache.update(prefix.expanded(count, 0), prefix.expanded(count, 1), index)
        num_tokens = cache.get_seq_length()
        positions_T = torch.arange(is_token_BT.shape[1], device=is_token_BT.device)
        return {
            "past_key_values": cache,
            "attention_mask": nn.functional.pad(is_token_BT, (num_tokens, 0), value=1),
            "position_ids": positions_T.expand(count, -1),
        }


def padded_groups(lengths: Sequence[int]) -> list[int]:
    """Cut texts into runs, each with at most ``MOST_PADDING`` of padding.

    Args:
        lengths: Tokens of each text.

    Returns:
        How many texts each run holds; their sum is the number of texts.
    """
    groups: list[int] = []
    count = used = longest = 0
    for length in lengths:
        wider = max(longest, length)
        if count and used + length < (1.0 - MOST_PADDING) * wider * (count + 1):
            groups.append(count)
            count, used, wider = 0, 0, length
        count, used, longest = count + 1, used + length, wider
    return [*groups, count]


def build_encoder(
    config: Mapping[str, Any], adapter: Mapping[str, Any] | None = None
) -> PackedBert | PaddedEncoder:
    """Return an encoder with fresh weights.

    Args:
        config: A transformers configuration, as a mapping.
        adapter: ``{"kind": "bottleneck" | "prefix", "size": ...}`` or None; see ``attach_adapter``.

    Raises:
        ValueError: The family is not known, or takes no such adapter.
    """
    family = find_family(config)
    is_packed = family.is_packed and config.get("hidden_act") == "gelu"
    encoder = PackedBert(config) if is_packed else PaddedEncoder(config)
    if adapter is not None:
        attach_adapter(encoder, config, adapter)
    return encoder


def attach_adapter(
    encoder: PackedBert | PaddedEncoder, config: Mapping[str, Any], adapter: Mapping[str, Any]
) -> None:
    """Give an encoder the new weights of an adapter that is applied, not merged.

    Args:
        encoder: The encoder of ``config``.
        config: Its transformers configuration.
        adapter: ``kind``: ``bottleneck`` or ``prefix``; ``size``: its width or tokens;
            ``dropout`` of a bottleneck, used in training alone.

    Raises:
        ValueError: Another kind, or a family that takes no prefix.
    """
    if adapter["kind"] == BOTTLENECK:
        attach_bottlenecks(encoder, find_family(config), adapter["size"], adapter["dropout"])
    elif adapter["kind"] == PREFIX:
        encoder.attach_prefix(adapter["size"])
    else:
        raise ValueError(f"adapter kind {adapter['kind']!r}; allowed: {BOTTLENECK}, {PREFIX}")
