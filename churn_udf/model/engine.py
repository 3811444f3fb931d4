"""Inference on the CPU: what ``PackedBert`` computes, with less arithmetic.

Exact up to rounding in fp32; the dense layers may run in bf16 or int8 instead. What is saved:

- queries, keys and values of the first layer are sums of two looked-up rows, because a layer norm
  is linear but for one number per token (its inverse deviation);
- keys and values of the last layer are not computed. Only the first token asks there, so its
  question is carried through the key weights to the inputs, and the mean of the inputs that it
  picks through the value weights (``q.(Wk x) = (Wk'q).x``; key biases cancel in the softmax);
- one weight matrix makes queries, keys and values; residuals and GELU join the matrix products.

Shape suffixes: N tokens of all texts, B texts, C texts of equal length T, D hidden, H heads,
K head width, V rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from churn_udf.model.bert import PackedBert, PackedLayout, SelfAttention
from churn_udf.model.dense import DenseFactory
from churn_udf.model.dropout import FastDropout
from churn_udf.model.encoder import PaddedEncoder
from churn_udf.model.mixed import Dense
from churn_udf.model.precision import FP32

MOST_TABLE_BYTES = 160 * 1024 * 1024
"""Largest table of the first layer; 30,522 words of MiniLM take 135 MiB. Above it is computed."""

PLAIN_LAYERS = (
    nn.Linear,
    Dense,
    nn.Embedding,
    nn.LayerNorm,
    nn.Dropout,
    FastDropout,
    nn.ModuleDict,
    nn.ModuleList,
)


def can_pack(encoder: PackedBert | PaddedEncoder) -> bool:
    """Whether the engine computes this encoder: packed, and plain in all of its parts.

    Adapters, of ours or of a training library, put other layers into it.
    """
    return isinstance(encoder, PackedBert) and all(
        (type(module) in PLAIN_LAYERS or type(module).__module__ == PackedBert.__module__)
        and getattr(module, "prefix", None) is None
        for module in encoder.modules()
    )


class PackedEngine:
    """A packed encoder for inference on the CPU; safe to call from several threads.

    Args:
        encoder: Whose weights are used, as they are now.
        mode: What the dense layers compute in.
        activation_ranges: See ``Precision``; read by int8 alone.

    Raises:
        BundleIntegrityError: int8, and a layer has no range.
    """

    def __init__(
        self,
        encoder: PackedBert,
        mode: str = FP32,
        activation_ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        factory = DenseFactory(mode, activation_ranges or {})
        layers = list(encoder.encoder["layer"].children())
        with torch.inference_mode():
            self._inputs = _Inputs(encoder)
            names = [f"encoder.layer.{index}" for index in range(len(layers))]
            inner = list(zip(names, layers, strict=True))
            self._layers = [_InnerLayer(factory, *item) for item in inner[:-1]]
            self._last = _LastLayer(factory, *inner[-1])
            if self._layers:
                self._inputs.prepare_first_layer(_attention(layers[0]))

    def __call__(
        self, ids_N: torch.Tensor, segments_N: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        """Encode packed texts; arguments as in ``PackedBert.forward``.

        Returns:
            (B, D) float32 states of the first tokens.
        """
        layout = PackedLayout(lengths, ids_N.device)
        padding = (0, -len(ids_N) % _step(len(ids_N)))
        positions_N = functional.pad(layout.positions_N, padding)
        tokens = functional.pad(ids_N, padding), functional.pad(segments_N, padding)
        hidden, projected = self._inputs(*tokens, positions_N)
        for layer in self._layers:
            hidden = layer(hidden, layout, projected)
            projected = None
        return self._last(hidden, layout)


def _step(count: int) -> int:
    """Return what the number of rows is rounded up to.

    oneDNN builds new machine code for every number of rows that it meets (0.3 ms a call).
    """
    return 64 if count >= 1_024 else 16


def _fill(rows: list[torch.Tensor], count: int) -> torch.Tensor:
    """Join matrices, with rows of zeros below up to ``count`` rows."""
    missing = count - sum(len(part) for part in rows)
    if missing:
        rows = [*rows, rows[0].new_zeros(missing, rows[0].shape[1])]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


class _Inputs:
    """Embeddings, and the first layer's queries, keys and values from a table."""

    def __init__(self, encoder: PackedBert) -> None:
        embeddings = encoder.embeddings
        positions_PD = embeddings.position_embeddings.weight[embeddings.position_offset :]
        kinds_SD = embeddings.token_type_embeddings.weight
        if not embeddings.has_segments:
            kinds_SD = kinds_SD[:1]
        self._num_kinds = len(kinds_SD)
        self._num_words = len(embeddings.word_embeddings.weight)
        places_PD = (positions_PD[:, None] + kinds_SD[None]).flatten(0, 1)
        # Words, then places: a position with a segment.
        self._rows_VD = torch.cat([embeddings.word_embeddings.weight, places_PD]).detach()
        self._norm = embeddings.LayerNorm
        self._project = encoder.embeddings_project
        self._table_VO: torch.Tensor | None = None

    def prepare_first_layer(self, attention: nn.Module) -> None:
        """Build the table, unless it is too large or embeddings are narrower than layers."""
        weight_OD, bias_O = _joined(attention)
        num_bytes = (len(self._rows_VD) + 1) * len(bias_O) * weight_OD.element_size()
        if self._project is not None or num_bytes > MOST_TABLE_BYTES:
            return
        centred_VD = self._rows_VD - self._rows_VD.mean(dim=1, keepdim=True)
        scaled_VO = centred_VD @ (weight_OD * self._norm.weight).T
        constant_O = weight_OD @ self._norm.bias + bias_O
        self._table_VO = torch.cat([scaled_VO, constant_O[None]])

    def __call__(
        self, ids_N: torch.Tensor, segments_N: torch.Tensor, positions_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return embeddings (N, D), and queries, keys and values (N, 3 D) if there is a table."""
        places_N = positions_N
        if self._num_kinds > 1:
            places_N = places_N * self._num_kinds + segments_N
        words_N = ids_N.int()
        places_N = (places_N + self._num_words).int()
        embedded_ND = _sum_rows(self._rows_VD, [words_N, places_N], None)
        norm = self._norm
        hidden_ND, _, inverse_N1 = torch.native_layer_norm(
            embedded_ND, list(norm.normalized_shape), norm.weight, norm.bias, norm.eps
        )
        if self._project is not None:
            hidden_ND = self._project(hidden_ND)
        if self._table_VO is None:
            return hidden_ND, None
        inverse_N = inverse_N1.flatten()
        constants_N = torch.full_like(words_N, len(self._table_VO) - 1)
        factors = [inverse_N, inverse_N, torch.ones_like(inverse_N)]
        return hidden_ND, _sum_rows(self._table_VO, [words_N, places_N, constants_N], factors)


def _sum_rows(
    table_VO: torch.Tensor, indices: list[torch.Tensor], factors: list[torch.Tensor] | None
) -> torch.Tensor:
    """Return (N, O): for each token the sum of the rows named, times their factors (N,)."""
    starts_N = torch.arange(0, len(indices) * len(indices[0]), len(indices), dtype=torch.int32)
    summed: torch.Tensor = functional.embedding_bag(
        torch.stack(indices, dim=1).flatten(),
        table_VO,
        starts_N,
        mode="sum",
        per_sample_weights=None if factors is None else torch.stack(factors, dim=1).flatten(),
    )
    return summed


def _joined(attention: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights (3 D, D) and biases (3 D,) of queries, keys and values."""
    parts = [attention.get_submodule(name) for name in ("query", "key", "value")]
    return (
        torch.cat([part.get_parameter("weight") for part in parts]).detach(),
        torch.cat([part.get_parameter("bias") for part in parts]).detach(),
    )


def _attention(layer: nn.Module) -> SelfAttention:
    """Return the attention of a layer."""
    found = layer.get_submodule("attention.self")
    assert isinstance(found, SelfAttention)
    return found


def _linear(layer: nn.Module, name: str) -> nn.Linear:
    """Return a dense layer by its name."""
    found = layer.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


class _Tail:
    """What follows attention in a layer."""

    def __init__(self, factory: DenseFactory, name: str, layer: nn.Module) -> None:
        end, up, down = "attention.output.dense", "intermediate.dense", "output.dense"
        self._end = factory.dense(f"{name}.{end}", _linear(layer, end))
        self._norm = layer.get_submodule("attention.output.LayerNorm")
        self._feed_forward = factory.feed_forward(
            *(f"{name}.{up}", _linear(layer, up)), *(f"{name}.{down}", _linear(layer, down))
        )
        self._last_norm = layer.get_submodule("output.LayerNorm")

    def __call__(self, attended_ND: torch.Tensor, residual_ND: torch.Tensor) -> torch.Tensor:
        normed_ND = self._norm(self._end(attended_ND, residual_ND))
        result: torch.Tensor = self._last_norm(self._feed_forward(normed_ND))
        return result


class _InnerLayer:
    """A layer that is computed for all tokens."""

    def __init__(self, factory: DenseFactory, name: str, layer: nn.Module) -> None:
        attention = _attention(layer)
        weight_OD, bias_O = _joined(attention)
        joined = nn.Linear(weight_OD.shape[1], weight_OD.shape[0])
        joined.weight, joined.bias = nn.Parameter(weight_OD, False), nn.Parameter(bias_O, False)
        self._num_heads = attention.num_heads
        self._project = factory.dense(f"{name}.attention.self.query", joined)
        self._tail = _Tail(factory, name, layer)

    def __call__(
        self, hidden_ND: torch.Tensor, layout: PackedLayout, projected: torch.Tensor | None
    ) -> torch.Tensor:
        if projected is None:
            projected = self._project(hidden_ND, None)
        return self._tail(self._attend(projected, layout), hidden_ND)

    def _attend(self, projected: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
        """(N, 3 D) -> (N, D), within each text."""
        sizes, width = [count * length for count, length in layout.groups], projected.shape[1] // 3
        outputs, texts = [], torch.split(projected[: sum(sizes)], sizes)
        for (count, length), rows in zip(layout.groups, texts, strict=True):
            shape = (count, length, 3, self._num_heads, -1)
            query, key, value = rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)
            attended = functional.scaled_dot_product_attention(query, key, value)
            outputs.append(attended.transpose(1, 2).reshape(-1, width))
        return _fill(outputs, len(projected))


class _LastLayer:
    """The layer that is computed for the first token of each text."""

    def __init__(self, factory: DenseFactory, name: str, layer: nn.Module) -> None:
        attention = _attention(layer)
        heads = attention.num_heads
        self._query = attention.get_submodule("query")
        key_DD = attention.get_parameter("key.weight").detach()
        value_DD = attention.get_parameter("value.weight").detach()
        width = len(key_DD) // heads
        self._key_HKD = key_DD.view(heads, width, -1) * width**-0.5
        self._value_HDK = value_DD.view(heads, width, -1).transpose(1, 2).contiguous()
        self._value_bias_D = attention.get_parameter("value.bias").detach()
        self._tail = _Tail(factory, name, layer)

    def __call__(self, hidden_ND: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
        first_BD = hidden_ND[layout.first_B]
        heads, width, hidden_size = self._key_HKD.shape
        queries_HBK = self._query(first_BD).view(-1, heads, width).transpose(0, 1)
        asked_BHD = torch.bmm(queries_HBK, self._key_HKD).transpose(0, 1).contiguous()
        sizes, outputs = [count * length for count, length in layout.groups], []
        questions = torch.split(asked_BHD, [count for count, _ in layout.groups])
        texts = torch.split(hidden_ND[: sum(sizes)], sizes)
        for (count, length), asked, rows in zip(layout.groups, questions, texts, strict=True):
            rows_CTD = rows.view(count, length, hidden_size)
            shares_CHT = torch.bmm(asked, rows_CTD.transpose(1, 2)).softmax(dim=-1)
            outputs.append(torch.bmm(shares_CHT, rows_CTD))
        picked_HBD = torch.cat(outputs).transpose(0, 1)
        attended_BD = torch.bmm(picked_HBD, self._value_HDK).transpose(0, 1).flatten(1)
        count = len(first_BD)
        padded = count + -count % _step(count)
        attended_BD = _fill([attended_BD + self._value_bias_D], padded)
        return self._tail(attended_BD, _fill([first_BD], padded))[:count]
