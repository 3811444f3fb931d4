"""Masked-word training of the compact encoder on texts without labels (Devlin et al. 2019)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from churn_udf.model.bert import PackedBert
from churn_udf.model.mixed import Dense, dense
from churn_udf.tokenization import SPECIAL_WORDS, TokenBatch

IntArray = npt.NDArray[np.int64]


class MaskedWordModel(nn.Module):
    """An encoder with a head that guesses hidden words; the output matrix is the input's."""

    def __init__(self, encoder: PackedBert) -> None:
        super().__init__()
        width = encoder.hidden_size
        self.encoder = encoder
        self.transform = nn.Sequential(Dense(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(encoder.embeddings.word_embeddings.num_embeddings))

    def loss(
        self, ids_N: torch.Tensor, segments_N: torch.Tensor, lengths: IntArray, hidden: MaskedWords
    ) -> torch.Tensor:
        """Return the mean cross entropy over the hidden words."""
        states_ND = self.encoder(ids_N, segments_N, lengths.tolist(), all_tokens=True)
        places_M = torch.from_numpy(hidden.places).to(ids_N.device)
        answers_M = torch.from_numpy(hidden.answers).to(ids_N.device)
        guesses_MD = self.transform(states_ND[places_M])
        logits_MV = dense(guesses_MD, self.encoder.embeddings.word_embeddings.weight, self.bias)
        return functional.cross_entropy(logits_MV.float(), answers_M)


class MaskedWords:
    """A batch with some words hidden: 80 % masked, 10 % another word, 10 % left as they are.

    Args:
        tokens: Packed texts.
        mask_id: Id of the mask token.
        vocabulary_size: Number of ids.
        share: Share of ordinary tokens to hide.
        generator: Source of the choice.
    """

    def __init__(
        self,
        tokens: TokenBatch,
        *,
        mask_id: int,
        vocabulary_size: int,
        share: float,
        generator: np.random.Generator,
    ) -> None:
        ordinary = np.flatnonzero(tokens.ids >= len(SPECIAL_WORDS))
        count = max(1, round(share * len(ordinary))) if len(ordinary) else 0
        self.places: IntArray = np.sort(generator.permutation(ordinary)[:count])
        self.answers: IntArray = tokens.ids[self.places]
        self.ids: IntArray = tokens.ids.copy()
        fate = generator.random(count)
        self.ids[self.places[fate < 0.8]] = mask_id
        others = self.places[(fate >= 0.8) & (fate < 0.9)]
        self.ids[others] = generator.integers(len(SPECIAL_WORDS), vocabulary_size, len(others))
