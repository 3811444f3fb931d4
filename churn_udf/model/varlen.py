"""Attention over texts of any length in one call, on GPUs whose torch has a kernel for it.

The kernel is FlashAttention's variable-length one (Dao 2023), reached through
``torch.nn.attention.varlen``. It takes half precision only; everything else goes through SDPA.

Shape suffixes: N tokens of all texts, Q queries of all texts, B texts, H heads, K head width.
"""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple

import torch
from torch.nn import functional

HALF_TYPES = (torch.bfloat16, torch.float16)
MAX_TRIAL_DIFFERENCE = 0.05
"""What a trial in half precision may differ from SDPA on standard normal inputs."""

_log = logging.getLogger(__name__)


class TextBounds(NamedTuple):
    """Where the texts of a packed matrix begin and end.

    Attributes:
        offsets: (B + 1,) int32, text i is rows ``offsets[i]`` to ``offsets[i + 1]``.
        longest: Rows of the longest text.
    """

    offsets: torch.Tensor
    longest: int


def is_usable(queries_QHK: torch.Tensor) -> bool:
    """Return whether the kernel takes such queries: tried once for each device and shape."""
    device, dtype = queries_QHK.device, queries_QHK.dtype
    if device.type != "cuda" or dtype not in HALF_TYPES:
        return False
    return _passes_trial(device, dtype, *queries_QHK.shape[1:])


def attend(
    queries_QHK: torch.Tensor,
    keys_NHK: torch.Tensor,
    values_NHK: torch.Tensor,
    query_bounds: TextBounds,
    key_bounds: TextBounds,
) -> torch.Tensor:
    """Attend within each text.

    Returns:
        (Q, H, K), in the queries' type.
    """
    from torch.nn.attention.varlen import varlen_attn

    attended = varlen_attn(
        queries_QHK,
        keys_NHK,
        values_NHK,
        query_bounds.offsets,
        key_bounds.offsets,
        query_bounds.longest,
        key_bounds.longest,
    )
    assert isinstance(attended, torch.Tensor)  # a pair only where auxiliaries are asked for
    return attended


@functools.cache
def _passes_trial(
    device: torch.device, dtype: torch.dtype, num_heads: int, head_width: int
) -> bool:
    """Attend within two short texts, and compare with SDPA.

    Which GPUs, torch builds and head widths have the kernel is not for us to list: a kernel that
    is missing raises, and then SDPA serves.
    """
    rows = torch.randn(7, num_heads, head_width, device=device, dtype=dtype)
    bounds = TextBounds(torch.tensor([0, 3, 7], dtype=torch.int32, device=device), 4)
    try:
        found = attend(rows, rows, rows, bounds, bounds)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError, ValueError) as error:
        _log.warning(
            "no variable-length attention on %s for heads of width %d (%s); texts of equal length "
            "are attended to together instead, which is slower",
            device,
            head_width,
            error,
        )
        return False
    texts = [part.transpose(0, 1) for part in (rows[:3], rows[3:])]
    expected = torch.cat(
        [
            functional.scaled_dot_product_attention(text, text, text).transpose(0, 1)
            for text in texts
        ]
    )
    return bool((found - expected).abs().max() <= MAX_TRIAL_DIFFERENCE)
