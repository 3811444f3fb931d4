"""What every way scores: encoders with random weights, and texts of realistic length.

Shape suffixes: B texts, D hidden.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.config import TEXT, ModelConfig
from churn_udf.tokenization import SPECIAL_WORDS, CompactTokenizer, TokenBatch

MAX_TOKENS = 128
POPULATION = 4_000
"""Texts of the job that a run stands for: what is sorted lies as densely as there."""
BLOCK_ROWS = 50
LOG_LENGTH_MEAN, LOG_LENGTH_DEVIATION, MIN_TOKENS = 3.8, 0.5, 8
LOGIT_DEVIATION = 1.0
SPREAD_DRAW = 2_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Sizes of a BERT."""

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_words: int
    """Words of its vocabulary, special ones left out."""

    @property
    def label(self) -> str:
        """Name and sizes."""
        return f"{self.name} {self.num_layers}x{self.hidden_size}"

    @property
    def config(self) -> dict[str, Any]:
        """Transformers configuration."""
        return {
            "model_type": "bert",
            "vocab_size": len(SPECIAL_WORDS) + self.num_words,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "intermediate_size": 4 * self.hidden_size,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": MAX_TOKENS,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
        }


ENCODERS = {
    shape.name: shape
    for shape in (
        EncoderShape(name="tiny", num_layers=2, hidden_size=128, num_heads=2, num_words=2_000),
        EncoderShape(name="mini", num_layers=4, hidden_size=256, num_heads=4, num_words=2_000),
        EncoderShape(name="minilm", num_layers=6, hidden_size=384, num_heads=12, num_words=30_517),
        EncoderShape(name="base", num_layers=12, hidden_size=768, num_heads=12, num_words=30_517),
    )
}
"""The compact default (tiny), BERT-mini, MiniLM and BERT-base."""


class FirstToken(nn.Module):
    """In place of BERT's pooler: the state of the first token as it is."""

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Return (B, D)."""
        return hidden_BTD[:, 0]


class Workload:
    """One encoder and the texts it scores.

    Args:
        shape: The encoder.
        rows: Texts, at most ``POPULATION``; fewer are a sample of blocks of like length.
        seed: Of weights and lengths.
    """

    def __init__(self, shape: EncoderShape, rows: int, seed: int = 0) -> None:
        self.shape, self.seed = shape, seed
        self.lengths = sample_lengths(rows, np.random.default_rng(seed))
        self.words = np.array([f"word{number}" for number in range(shape.num_words)])
        self.tokenizer = CompactTokenizer(
            self.words.tolist(), max_tokens=MAX_TOKENS, max_review_tokens=40
        )
        self.classifier = _classifier(shape, seed)
        self._spread_logits()

    def draw(self, number: int) -> TokenBatch:
        """Return texts of the workload's lengths and of words that each number draws anew."""
        generator = np.random.default_rng([self.seed, number])
        shares = 1.0 / np.arange(1, self.shape.num_words + 1)
        drawn = generator.choice(
            self.shape.num_words, int(self.lengths.sum()), p=shares / shares.sum()
        )
        ids = drawn.astype(np.int64) + len(SPECIAL_WORDS)
        ends = np.cumsum(self.lengths)
        ids[ends - self.lengths] = self.tokenizer.first_id
        ids[ends - 1] = self.tokenizer.separator_id
        is_truncated = np.zeros(len(self.lengths), dtype=np.bool_)
        return TokenBatch(ids, np.zeros_like(ids), self.lengths, is_truncated)

    def texts(self, tokens: TokenBatch) -> list[str]:
        """Return the texts that these tokens are of."""
        rows = np.split(tokens.ids - len(SPECIAL_WORDS), np.cumsum(tokens.lengths)[:-1])
        return [" ".join(self.words[row[1:-1]]) for row in rows]

    def reference(self, attention: str = "eager") -> nn.Module:
        """Return the same model as ``transformers`` has it: ids and mask in, logits (B, 1) out.

        Args:
            attention: ``eager`` or ``sdpa``.
        """
        from transformers import BertConfig, BertForSequenceClassification, BertModel

        config = BertConfig(**self.shape.config, num_labels=1, attn_implementation=attention)
        model = BertForSequenceClassification(config)
        model.bert = BertModel(config, add_pooling_layer=False)
        model.bert.load_state_dict(self.classifier.encoder.state_dict())
        model.bert.pooler = FirstToken()
        model.classifier = self.head
        return model.eval()

    @cached_property
    def head(self) -> nn.Sequential:
        """What the classifier makes of a text's state, (B, D) to (B, 1), constants merged."""
        model, config = self.classifier, self.classifier.config
        first, last = model.fusion[2], model.fusion[5]
        merged = nn.Linear(config.text_dim, config.fusion_dim)
        final = nn.Linear(config.fusion_dim, 1)
        with torch.no_grad():
            codes = model.mean_codes_FC.flatten()
            constant = nn.functional.gelu(model.numeric_projection(codes))
            merged.weight.copy_(first.weight[:, : config.text_dim])
            merged.bias.copy_(first.bias + first.weight[:, config.text_dim :] @ constant)
            final.weight.copy_(last.weight)
            final.bias.copy_(last.bias + model.wide(codes))
        return nn.Sequential(model.text_projection, nn.GELU(), merged, nn.GELU(), final).eval()

    def _spread_logits(self) -> None:
        """Scale the last layer so that probabilities differ between texts as real ones do."""
        tokens = self.draw(SPREAD_DRAW).take(np.arange(0, len(self.lengths), 4))
        model, last = self.classifier, self.classifier.fusion[5]
        features = torch.zeros(len(tokens), 1, dtype=torch.float64)
        with torch.inference_mode():
            ids, segments = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.segments)
            logits_B = model(ids, segments, tokens.lengths.tolist(), features)
        with torch.no_grad():
            wide = model.wide.bias.item()
            scale = LOGIT_DEVIATION / logits_B.std().item()
            center = logits_B.mean().item() - last.bias.item() - wide
            last.weight.mul_(scale)
            last.bias.fill_(-scale * center - wide)


def sample_lengths(rows: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return (B,) tokens of each text in random order: a mean near 50, at most ``MAX_TOKENS``.

    Fewer rows than ``POPULATION`` are blocks cut at even distances from the population sorted by
    length, so that batches of like length look as they do in the whole.

    Raises:
        ValueError: Not 1 to ``POPULATION`` rows.
    """
    if not 1 <= rows <= POPULATION:
        raise ValueError(f"{rows} rows; allowed: 1 to {POPULATION}")
    drawn = np.exp(generator.normal(LOG_LENGTH_MEAN, LOG_LENGTH_DEVIATION, POPULATION))
    ordered = np.sort(np.clip(drawn, MIN_TOKENS, MAX_TOKENS).astype(np.int64))
    blocks = ordered.reshape(-1, BLOCK_ROWS)
    num_blocks = -(-rows // BLOCK_ROWS)
    middles = (np.arange(num_blocks) + 0.5) * len(blocks) / num_blocks
    chosen = blocks[middles.astype(np.int64)].reshape(-1)
    kept = np.linspace(0, len(chosen) - 1, rows).round().astype(np.int64)
    return generator.permutation(chosen[kept])


def _classifier(shape: EncoderShape, seed: int) -> ChurnClassifier:
    """Return the product's model with random weights, reading the text alone.

    BERT's own start (deviation 0.02) leaves the first token's state the same for every text;
    dense layers that keep the size of what they read make it depend on the text, as training does.
    """
    features = (FeatureSpec(name="unread", group="unread"),)
    config = ModelConfig(
        encoder=shape.config, features=features, max_tokens=MAX_TOKENS, modality=TEXT
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ChurnClassifier(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.encoder.named_parameters():
            if weight.dim() == 2 and "embeddings" not in name:
                weight.normal_(0.0, shape.hidden_size**-0.5, generator=generator)
    model.coding.fit(np.random.default_rng(seed).normal(size=(100, 1)))
    return model.eval()
