"""Batches that do not fit into a device's memory: smaller ones, and in the end the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from churn_udf.batching import plan_batches

IntArray = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


def run_within_memory(
    lengths: IntArray,
    token_budget: int,
    run: Callable[[IntArray], None],
    *,
    free: Callable[[], None],
    move_to_cpu: Callable[[], int],
) -> int:
    """Run all texts in batches; where memory runs out, plan the rest in batches of half the size.

    Args:
        lengths: (B,) tokens of each text.
        token_budget: Largest sum of tokens in a batch to begin with.
        run: Runs the texts at some indices; called again with fewer of them where it raised
            ``torch.OutOfMemoryError``.
        free: Gives back what the device holds in reserve.
        move_to_cpu: Called when a text alone does not fit; what follows runs on the CPU. Returns
            the token budget there.

    Returns:
        The token budget that fits: to begin with next time.

    Raises:
        torch.OutOfMemoryError: A text does not fit on the CPU either.
    """
    is_moved = False
    waiting = plan_batches(lengths, token_budget)[::-1]
    while waiting:
        try:
            run(waiting[-1])
            waiting.pop()
            continue
        except torch.OutOfMemoryError:
            if is_moved:
                raise
        # Outside the handler: its traceback would hold the tensors of the failed batch.
        free()
        too_large = waiting[-1]
        if len(too_large) == 1:
            _log.warning("the device has no memory for one text alone; scoring goes on on the CPU")
            token_budget, is_moved = move_to_cpu(), True
        else:
            token_budget = int(lengths[too_large].sum()) // 2
            _log.warning(
                "the device has no memory for %d texts at once; scoring goes on with batches of "
                "at most %d tokens",
                len(too_large),
                token_budget,
            )
        left = np.concatenate(waiting[::-1])
        waiting = [left[indices] for indices in plan_batches(lengths[left], token_budget)][::-1]
    return token_budget
