"""BERT without padding: the tokens of all texts in one matrix.

Parameter names are those of ``transformers.BertModel``, so weights move both ways unchanged
(parity is a test). RoBERTa is the same but for its first position, ELECTRA but for embeddings
that may be narrower than the layers. Every dense layer runs on all tokens at once; attention
runs within each text, by one call per group of equal length, or by one call of a
variable-length kernel where the device has one; the last layer is computed for the
first token of each text alone, as nothing else is read, and multiplies no other token by its key
and value matrices. Architecture: Devlin et al. 2019.

Shape suffixes: N tokens of all texts, B texts, T tokens of a text, D hidden, H heads,
K head width, P tokens of a learned prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from churn_udf.model import varlen
from churn_udf.model.adapters import KeyValuePrefix
from churn_udf.model.dropout import FastDropout
from churn_udf.model.families import position_offset
from churn_udf.model.mixed import Dense
from churn_udf.model.varlen import TextBounds

INITIALIZER_STD = 0.02


def embedding_width(config: Mapping[str, Any]) -> int:
    """Return the width of the embeddings, ELECTRA's ``embedding_size`` or the layers' width."""
    is_electra = config["model_type"] == "electra"
    return int(config["embedding_size"] if is_electra else config["hidden_size"])


class _Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalised."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = embedding_width(config)
        self.word_embeddings = nn.Embedding(
            config["vocab_size"], width, padding_idx=config.get("pad_token_id", 0)
        )
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        self.position_offset = position_offset(config)
        self.has_segments = config["type_vocab_size"] > 1
        self.dropout = FastDropout(config["hidden_dropout_prob"])

    def forward(
        self, ids_N: torch.Tensor, positions_N: torch.Tensor, segments_N: torch.Tensor
    ) -> torch.Tensor:
        known_N = segments_N if self.has_segments else torch.zeros_like(segments_N)
        embedded_ND = (
            self.word_embeddings(ids_N)
            + self.token_type_embeddings(known_N)
            + self.position_embeddings(positions_N + self.position_offset)
        )
        normed: torch.Tensor = self.dropout(self.LayerNorm(embedded_ND))
        return normed


class SelfAttention(nn.Module):
    """Multi-head attention of packed texts."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden = config["hidden_size"]
        self.num_heads = config["num_attention_heads"]
        self.query = Dense(hidden, hidden)
        self.key = Dense(hidden, hidden)
        self.value = Dense(hidden, hidden)
        self.dropout_probability = float(config["attention_probs_dropout_prob"])
        self.prefix: KeyValuePrefix | None = None

    def forward(
        self, hidden_ND: torch.Tensor, layout: PackedLayout, *, first_only: bool
    ) -> torch.Tensor:
        """Return (N, D), or (B, D) for the first token of each text alone."""
        queries = self.query(hidden_ND[layout.first_B] if first_only else hidden_ND)
        queries_QHK = queries.unflatten(-1, (self.num_heads, -1))
        has_kernel = self.prefix is None and not self.training and varlen.is_usable(queries_QHK)
        if first_only and not has_kernel and self._can_absorb():
            return self._attend_to_states(queries, hidden_ND, layout)
        keys, values = self.key(hidden_ND), self.value(hidden_ND)
        if has_kernel:
            attended_QHK = varlen.attend(
                queries_QHK,
                keys.unflatten(-1, (self.num_heads, -1)),
                values.unflatten(-1, (self.num_heads, -1)),
                layout.text_bounds(first_only=first_only),
                layout.text_bounds(first_only=False),
            )
            return attended_QHK.flatten(-2)
        # One split, as the gradient of a slice is a whole matrix of zeros for every group.
        sizes = [count * length for count, length in layout.groups]
        query_sizes = [count for count, _ in layout.groups] if first_only else sizes
        parts = zip(queries.split(query_sizes), keys.split(sizes), values.split(sizes), strict=True)
        outputs, prefix = [], self.prefix
        for (count, length), (query, key, value) in zip(layout.groups, parts, strict=True):
            query_length = 1 if first_only else length
            text_keys = self._heads(key, count, length)
            text_values = self._heads(value, count, length)
            attended = functional.scaled_dot_product_attention(
                self._heads(query, count, query_length),
                text_keys if prefix is None else prefix.before(text_keys, 0),
                text_values if prefix is None else prefix.before(text_values, 1),
                dropout_p=self.dropout_probability if self.training else 0.0,
            )
            outputs.append(attended.transpose(1, 2).reshape(count * query_length, -1))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _can_absorb(self) -> bool:
        """Return whether keys and values are plain products and each query's weights sum to 1."""
        is_plain = type(self.key) is Dense and type(self.value) is Dense
        drops = self.training and self.dropout_probability > 0
        return is_plain and self.prefix is None and not drops

    def _attend_to_states(
        self, queries_BD: torch.Tensor, hidden_ND: torch.Tensor, layout: PackedLayout
    ) -> torch.Tensor:
        """Return (B, D) for one query a text, without keys and values of all tokens.

        With ``q . (W h)`` = ``(q W) . h`` and ``sum(a W h)`` = ``W sum(a h)`` the two matrices
        meet one row a text and head instead of one a token. A key's bias adds the same to all
        scores of a query, which softmax ignores.
        """
        num_texts, width = queries_BD.shape
        by_head = (self.num_heads, -1, width)
        queries_HBK = queries_BD.view(num_texts, self.num_heads, -1).transpose(0, 1)
        asked_BHD = torch.bmm(queries_HBK, self.key.weight.view(by_head)).transpose(0, 1)
        counts = [count for count, _ in layout.groups]
        states = torch.split(hidden_ND, [count * length for count, length in layout.groups])
        found = []
        for (count, length), asked, rows in zip(
            layout.groups, torch.split(asked_BHD, counts), states, strict=True
        ):
            tokens = rows.view(count, 1, length, width)
            found.append(
                functional.scaled_dot_product_attention(
                    asked.unsqueeze(1), tokens, tokens, scale=queries_HBK.shape[-1] ** -0.5
                ).squeeze(1)
            )
        found_HBD = torch.cat(found).transpose(0, 1)
        values_HBK = torch.bmm(found_HBD, self.value.weight.view(by_head).transpose(1, 2))
        return values_HBK.transpose(0, 1).reshape(num_texts, width) + self.value.bias

    def _heads(self, rows: torch.Tensor, count: int, length: int) -> torch.Tensor:
        """(count * T, D) -> (count, H, T, K)."""
        return rows.view(count, length, self.num_heads, -1).transpose(1, 2)


class _DenseResidual(nn.Module):
    """Dense layer, dropout, residual, layer norm."""

    def __init__(self, config: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.dense = Dense(width, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.dropout = FastDropout(config["hidden_dropout_prob"])

    def forward(self, values: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.LayerNorm(self.dropout(self.dense(values)) + residual)
        return normed


class _Layer(nn.Module):
    """One transformer layer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, width = config["hidden_size"], config["intermediate_size"]
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": _DenseResidual(config, hidden)}
        )
        self.intermediate = nn.ModuleDict({"dense": Dense(hidden, width)})
        self.output = _DenseResidual(config, width)

    def forward(
        self, hidden_ND: torch.Tensor, layout: PackedLayout, *, first_only: bool
    ) -> torch.Tensor:
        residual = hidden_ND[layout.first_B] if first_only else hidden_ND
        attended = self.attention["self"](hidden_ND, layout, first_only=first_only)
        attended = self.attention["output"](attended, residual)
        widened = functional.gelu(self.intermediate["dense"](attended))
        result: torch.Tensor = self.output(widened, attended)
        return result


class PackedLayout:
    """Where each text lies in the packed matrix.

    Args:
        lengths: Tokens of each text; texts of equal length should stand together.
        device: Where the index tensors go.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        lengths_B = torch.as_tensor(lengths, dtype=torch.long)
        starts_B = torch.cumsum(lengths_B, 0) - lengths_B
        total = int(lengths_B.sum())
        positions_N = torch.arange(total) - torch.repeat_interleave(starts_B, lengths_B)
        self.first_B = starts_B.to(device, non_blocking=True)
        self.positions_N = positions_N.to(device, non_blocking=True)
        values, counts = torch.unique_consecutive(lengths_B, return_counts=True)
        self.groups = list(zip(counts.tolist(), values.tolist(), strict=True))
        """(count, length) of the texts of equal length, one after the other."""
        self._ends_B = torch.cumsum(lengths_B, 0)
        self._bounds: dict[bool, TextBounds] = {}

    def text_bounds(self, *, first_only: bool) -> TextBounds:
        """Return where each text begins and ends among all tokens, or among the first ones."""
        if first_only not in self._bounds:
            ends = torch.arange(1, len(self._ends_B) + 1) if first_only else self._ends_B
            longest = 1 if first_only else max(length for _, length in self.groups)
            offsets = functional.pad(ends, (1, 0)).int()
            self._bounds[first_only] = TextBounds(
                offsets.to(self.first_B.device, non_blocking=True), longest
            )
        return self._bounds[first_only]


class PackedBert(nn.Module):
    """BERT, RoBERTa or ELECTRA over packed texts.

    Args:
        config: A transformers configuration of such a family, as a mapping.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.hidden_size = int(config["hidden_size"])
        self.embeddings = _Embeddings(config)
        width = embedding_width(config)
        is_narrow = width != self.hidden_size
        self.embeddings_project = Dense(width, self.hidden_size) if is_narrow else None
        layers = [_Layer(config) for _ in range(config["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def initialize(self, generator: torch.Generator) -> None:
        """Draw new weights as BERT does: normal with deviation 0.02, biases zero."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, (nn.Linear, nn.Embedding)):
                    module.weight.normal_(0.0, INITIALIZER_STD, generator=generator)
                    if isinstance(module, nn.Linear):
                        module.bias.zero_()
                if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx].zero_()

    def attach_prefix(self, num_tokens: int) -> None:
        """Let every layer attend to ``num_tokens`` learned keys and values before each text."""
        for attention in self.modules():
            if isinstance(attention, SelfAttention):
                width = self.hidden_size // attention.num_heads
                attention.prefix = KeyValuePrefix(num_tokens, attention.num_heads, width)

    def forward(
        self,
        ids_N: torch.Tensor,
        segments_N: torch.Tensor,
        lengths: Sequence[int],
        *,
        all_tokens: bool = False,
    ) -> torch.Tensor:
        """Encode packed texts.

        Args:
            ids_N: (N,) int64 token ids of all texts, one after the other.
            segments_N: (N,) int64, 0 for behaviour and 1 for reviews.
            lengths: Tokens of each text, summing to N.
            all_tokens: Return every token's state and not the first ones' alone.

        Returns:
            (B, D) states of the first tokens, or (N, D).
        """
        layout = PackedLayout(lengths, ids_N.device)
        hidden = self.embeddings(ids_N, layout.positions_N, segments_N)
        if self.embeddings_project is not None:
            hidden = self.embeddings_project(hidden)
        layers = list(self.encoder["layer"].children())
        for layer in layers[:-1]:
            hidden = layer(hidden, layout, first_only=False)
        states: torch.Tensor = layers[-1](hidden, layout, first_only=not all_tokens)
        return states
