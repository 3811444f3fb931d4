"""Adapters that cannot be merged into an encoder's weights, so that the scorer applies them.

Bottlenecks (Houlsby et al. 2019) bend the output of a dense layer; a prefix (Li and Liang 2021)
is attended to by every token of a text. LoRA and its like are merged when training ends and
never get here.

Shape suffixes: B texts, T tokens of a text, D hidden, H heads, K head width, P prefix tokens.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn import functional

from churn_udf.model.families import EncoderFamily

BOTTLENECK, PREFIX = "bottleneck", "prefix"
PREFIX_STD = 0.02


class Bottleneck(nn.Module):
    """A dense layer and a narrow residual correction of what it gives; starts as no change.

    Args:
        base: The dense layer.
        size: Width of the bottleneck.
        dropout: Share of the bottleneck hidden in training, in [0, 1).
    """

    def __init__(self, base: nn.Module, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        width = output_width(base)
        self.base = base
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the corrected output of the dense layer."""
        given: torch.Tensor = self.base(values)
        correction: torch.Tensor = self.up(self.dropout(functional.gelu(self.down(given))))
        return given + correction


class KeyValuePrefix(nn.Module):
    """Learned keys and values of one layer; they have no positions.

    Args:
        num_tokens: Prefix tokens.
        num_heads: Heads of keys and values.
        width: Width of a head.
    """

    def __init__(self, num_tokens: int, num_heads: int, width: int) -> None:
        super().__init__()
        values = torch.empty(2, num_heads, num_tokens, width).normal_(0.0, PREFIX_STD)
        self.keys_values_2HPK = nn.Parameter(values)

    def before(self, rows_BHTK: torch.Tensor, index: int) -> torch.Tensor:
        """Return (B, H, P + T, K): the prefix's keys (0) or values (1), then those of the text."""
        return torch.cat([self.expanded(len(rows_BHTK), index).to(rows_BHTK), rows_BHTK], dim=2)

    def expanded(self, count: int, index: int) -> torch.Tensor:
        """Return (count, H, P, K): the keys (0) or values (1), the same for every text."""
        return self.keys_values_2HPK[index].expand(count, -1, -1, -1)


def attach_bottlenecks(
    encoder: nn.Module, family: EncoderFamily, size: int, dropout: float = 0.0
) -> None:
    """Put a bottleneck behind the attention and the feed-forward part of every layer."""
    ends = re.compile(rf"(.*\.)?({family.attention_outputs}|{family.feed_forward_outputs})")
    for name in [name for name, _ in encoder.named_modules() if ends.fullmatch(name)]:
        parent, _, child = name.rpartition(".")
        base = encoder.get_submodule(name)
        setattr(encoder.get_submodule(parent), child, Bottleneck(base, size, dropout))


def output_width(dense: nn.Module) -> int:
    """Return the output width of a linear layer or of GPT-2's transposed one."""
    is_linear = isinstance(dense, nn.Linear)
    return int(dense.weight.shape[0 if is_linear else 1])  # type: ignore[index]
