"""Contrastive training of the encoder: two slices of one customer's history attract (InfoNCE).

A pair is two rows of one user at different cutoffs, or the same row twice where there is no other;
a stretch of words is cut from each, so that neighbouring cutoffs are not told by a copied text.
Other users of the batch are the negatives; further rows of the same user never are.

Shape suffixes: P pairs, R rows, D projected width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from churn_udf.model.bert import PackedBert
from churn_udf.model.encoder import PaddedEncoder
from churn_udf.tokenization import TokenBatch, Tokenizer
from trainer.data.snapshot import Snapshot
from trainer.fit.config import FitConfig
from trainer.fit.data import TokenReader
from trainer.fit.sampling import draw_rows
from trainer.fit.stages import Stage

IntArray = npt.NDArray[np.int64]
PAIRS_PER_BATCH = 64
PROJECTED_WIDTH = 64


class ContrastiveModel(nn.Module):
    """An encoder with a projection in which two slices of one user lie close together.

    Args:
        encoder: Encodes packed texts.
        temperature: Divides the cosines, > 0; low ones look at the hardest negatives.
    """

    def __init__(self, encoder: PackedBert | PaddedEncoder, temperature: float) -> None:
        super().__init__()
        width = encoder.hidden_size
        self.encoder = encoder
        self.temperature = temperature
        self.head = nn.Sequential(
            # First tokens of a young encoder are all but equal: without this nothing is learned.
            nn.BatchNorm1d(width, eps=1e-8, affine=False, track_running_stats=False),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, PROJECTED_WIDTH),
        )

    def loss(self, views: TokenBatch, users_P: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of finding the other slice, both ways.

        Args:
            views: 2 P texts: the first slice of every pair, then the second ones.
            users_P: (P,) int64 user of each pair.
        """
        device = users_P.device
        order = np.argsort(views.lengths, kind="stable")
        sorted_views = views.take(order)
        states = self.encoder(
            torch.from_numpy(sorted_views.ids).to(device),
            torch.from_numpy(sorted_views.segments).to(device),
            sorted_views.lengths.tolist(),
        )
        places = torch.from_numpy(np.argsort(order, kind="stable")).to(device)
        projected = functional.normalize(self.head(states[places].float()), dim=-1)
        first_PD, second_PD = projected.chunk(2)
        cosines_PP = first_PD @ second_PD.T / self.temperature
        return info_nce(cosines_PP, users_P)


def info_nce(logits_PP: torch.Tensor, users_P: torch.Tensor) -> torch.Tensor:
    """Return the symmetric InfoNCE loss; the diagonal is right, rows of one user do not compete.

    Args:
        logits_PP: (P, P) similarity of every first slice with every second one.
        users_P: (P,) user of each pair.
    """
    is_same = users_P[:, None] == users_P[None, :]
    is_same.fill_diagonal_(False)
    masked = logits_PP.masked_fill(is_same, -torch.inf)
    answers = torch.arange(len(users_P), device=logits_PP.device)
    there, back = (functional.cross_entropy(side, answers) for side in (masked, masked.T))
    return 0.5 * (there + back)


def draw_pairs(
    rows_R: IntArray, users_R: IntArray, count: int, generator: np.random.Generator
) -> IntArray:
    """Draw pairs of different rows of one user.

    Args:
        rows_R: Row indices to draw from.
        users_R: User code of each.
        count: Most pairs to draw; no row is first in two of them.
        generator: Source of the choice.

    Returns:
        (P, 2) row indices; both are the same row where its user has no other.
    """
    order = np.argsort(users_R, kind="stable")
    _, starts, sizes = np.unique(users_R[order], return_index=True, return_counts=True)
    anchors = draw_rows(np.arange(len(order)), count, generator)
    groups = np.searchsorted(starts, anchors, side="right") - 1
    start, size = starts[groups], sizes[groups]
    steps = 1 + np.floor(generator.random(len(anchors)) * np.maximum(size - 1, 1)).astype(np.int64)
    partners = start + (anchors - start + steps) % size
    return np.stack([rows_R[order[anchors]], rows_R[order[partners]]], axis=1)


def crop(
    tokens: TokenBatch, share: float, kept_ids: tuple[int, ...], generator: np.random.Generator
) -> TokenBatch:
    """Cut one stretch of words out of every text.

    Args:
        tokens: Packed texts.
        share: Share of each text that the stretch takes, [0, 1).
        kept_ids: Token ids that are never cut: opening and separators.
        generator: Source of where it lies.
    """
    lengths = tokens.lengths
    spans = np.floor(share * lengths).astype(np.int64)
    begins = np.floor(generator.random(len(lengths)) * (lengths - spans + 1)).astype(np.int64)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(tokens.ids)) - (np.cumsum(lengths) - lengths)[owners]
    inside = (places >= begins[owners]) & (places < (begins + spans)[owners])
    stays = ~inside | np.isin(tokens.ids, kept_ids)
    kept_lengths = np.bincount(owners[stays], minlength=len(lengths)).astype(np.int64)
    return TokenBatch(tokens.ids[stays], tokens.segments[stays], kept_lengths, tokens.is_truncated)


def contrastive_stage(
    encoder: PackedBert | PaddedEncoder,
    snapshot: Snapshot,
    rows: IntArray,
    tokenizer: Tokenizer,
    config: FitConfig,
    *,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[None]],
) -> Stage:
    """Return contrastive training of the encoder.

    Args:
        encoder: What is trained, in place.
        snapshot: Texts and users.
        rows: Rows whose text may be read; no label is.
        tokenizer: Encodes the texts.
        config: Passes, pairs, temperature, crop and learning rate.
        device: Where the encoder is.
        precision: Makes the context that the encoder runs in.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 2)
        module = ContrastiveModel(encoder, config.contrastive_temperature).to(device)
    users_R = _user_codes(snapshot)[rows]
    users_by_row = dict(zip(rows.tolist(), users_R.tolist(), strict=True))
    reader = TokenReader(snapshot, tokenizer)
    kept_ids = (tokenizer.first_id, tokenizer.separator_id)
    drawn: list[tuple[TokenBatch, TokenBatch, IntArray]] = []

    def plan(epoch: int) -> list[IntArray]:
        generator = np.random.default_rng([config.seed, 9, epoch])
        pairs = draw_pairs(rows, users_R, config.max_contrastive_pairs, generator)
        users = np.array([users_by_row[row] for row in pairs[:, 0].tolist()], dtype=np.int64)
        drawn[:] = [(reader.read(pairs[:, 0]), reader.read(pairs[:, 1]), users)]
        return np.array_split(np.arange(len(pairs)), max(1, len(pairs) // PAIRS_PER_BATCH))

    def loss(batch: IntArray, epoch: int, step: int) -> torch.Tensor:
        generator = np.random.default_rng([config.seed, 10, epoch, step])
        first, second, users = drawn[0]
        views = [
            crop(side.take(batch), config.contrastive_crop, kept_ids, generator)
            for side in (first, second)
        ]
        with precision():
            return module.loss(_joined(*views), torch.from_numpy(users[batch]).to(device))

    return Stage(
        name="contrast",
        module=module,
        parameter_groups=[
            {"params": list(module.parameters()), "lr": config.contrastive_learning_rate}
        ],
        epochs=config.contrastive_epochs,
        plan=plan,
        loss=loss,
    )


def _joined(first: TokenBatch, second: TokenBatch) -> TokenBatch:
    """Return the texts of both, one after the other."""
    pairs = zip(
        (first.ids, first.segments, first.lengths, first.is_truncated),
        (second.ids, second.segments, second.lengths, second.is_truncated),
        strict=True,
    )
    return TokenBatch(*(np.concatenate(pair) for pair in pairs))


def _user_codes(snapshot: Snapshot) -> IntArray:
    """Return (N,) a number for the user of each row."""
    encoded = snapshot.table.column("user_id").combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
