"""Settings of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from churn_udf.model.config import FUSED, MODALITIES, NUMERIC
from trainer.errors import ConfigError

COMPACT = "compact"
NONE, OVER, UNDER = "none", "over", "under"
SAMPLINGS = (NONE, OVER, UNDER)
FINE_TUNE = "fine-tune"
"""Name of the last stage, whose best validation loss is that of the model kept."""
NO_REWEIGHTING = "none"
NO_START, FROM_CHAMPION = "none", "champion"
EQUAL_SIZE, KAMIRAN_CALDERS = "equal_size", "kamiran_calders"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AdapterSettings:
    """Size of an adapter and how fast it learns; None where a kind has no such thing."""

    rank: int | None = None
    """Rank, width of a bottleneck, or tokens of a prefix."""
    alpha: float | None = None
    """LoRA's change of a weight is scaled by alpha / rank."""
    dropout: float | None = None
    """Dropout inside the adapter."""
    learning_rate: float
    """Peak learning rate."""


ADAPTERS: Mapping[str, AdapterSettings] = {
    "lora": AdapterSettings(rank=8, alpha=16.0, dropout=0.05, learning_rate=5e-4),
    "adalora": AdapterSettings(rank=8, alpha=16.0, dropout=0.05, learning_rate=1e-3),
    "ia3": AdapterSettings(learning_rate=5e-3),
    "bottleneck": AdapterSettings(rank=32, dropout=0.05, learning_rate=1e-3),
    "prefix": AdapterSettings(rank=16, learning_rate=5e-3),
}
"""Defaults of each ``fit.adapter`` but none."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How a model is built and trained. Counts are in examples unless said otherwise."""

    encoder: str = COMPACT
    """``compact``, or a local path or hub id that transformers can load."""
    modality: str = FUSED
    """``fused``; ``text``: the numbers are always shown as their mean; ``numeric``: the text is,
    and no text is read, in training or scoring. For ablations."""
    adapter: str = "none"
    """How a pretrained encoder is fine-tuned: ``none`` trains all of it; ``lora``, ``adalora``,
    ``ia3``, ``bottleneck`` and ``prefix`` train few new weights and freeze the rest."""
    adapter_rank: int | None = None
    """Rank of LoRA and (on average, at the end) of AdaLoRA, width of a bottleneck, tokens of a
    prefix; null: 8, 8, 32, 16."""
    adapter_alpha: float | None = None
    """LoRA's and AdaLoRA's change of a weight is scaled by alpha / rank; null: 16."""
    adapter_dropout: float | None = None
    """Dropout inside LoRA, AdaLoRA and bottlenecks; null: 0.05."""
    seed: int = 0
    """Seed of weights, order, masking and dropout."""
    device: str = "auto"
    """``auto`` takes a GPU when there is one; or ``cpu``, ``cuda``, ``cuda:1``."""
    precision: str = "auto"
    """``fp32``, ``bf16`` (mixed), or ``auto``: bf16 on a GPU that has it and on CPUs with bf16
    units for encoders of width 128 and up (256 if not BERT, RoBERTa or ELECTRA), else fp32."""
    hidden_size: int = 128
    """Width of the compact encoder."""
    num_layers: int = 2
    """Layers of the compact encoder."""
    num_heads: int = 2
    """Attention heads of the compact encoder."""
    max_tokens: int = 128
    """Longest input in tokens."""
    max_review_tokens: int = 40
    """Tokens of an input that reviews may keep when the behaviour wants the rest."""
    max_vocabulary: int = 8_000
    """Words of the compact vocabulary, most frequent first."""
    min_word_count: int = 20
    """Occurrences that a word needs to enter the compact vocabulary."""
    pretrain_epochs: int = 2
    """Passes of masked-word training of the compact encoder; 0 leaves it out."""
    max_pretrain_examples: int = 12_000
    """Texts a masked-word pass reads, drawn anew each pass."""
    pretrain_learning_rate: float = 1e-3
    """Peak learning rate of masked-word training."""
    mask_share: float = 0.2
    """Share of tokens hidden in masked-word training."""
    contrastive_epochs: int = 0
    """Passes of contrastive training of the encoder after the masked words; 0 leaves it out."""
    max_contrastive_pairs: int = 6_000
    """Pairs of slices of one user's history that a contrastive pass reads, drawn anew each pass."""
    contrastive_learning_rate: float = 5e-4
    """Peak learning rate of contrastive training."""
    contrastive_temperature: float = 0.1
    """Divides the cosines of slices; low ones look at the hardest negatives."""
    contrastive_crop: float = 0.3
    """Share of a text that is cut from each slice."""
    numeric_epochs: int = 12
    """Passes that train the numeric branch alone, before the text joins; 0 leaves it out."""
    max_numeric_examples: int = 150_000
    """Labelled examples a numeric pass reads, drawn anew each pass."""
    numeric_learning_rate: float = 5e-4
    """Peak learning rate of the numeric passes."""
    epochs: int = 2
    """Passes of joint fine-tuning; more on small data, see ``min_examples``."""
    max_epoch_examples: int = 12_000
    """Labelled examples a fine-tuning pass reads, drawn anew each pass."""
    min_examples: int = 24_000
    """Examples that masked-word training and fine-tuning see at least, in up to ten times the
    passes: a small data set needs as many steps as a large one."""
    batch_tokens: int = 4_096
    """Tokens of a batch; texts of like length stand together."""
    learning_rate: float = 1e-3
    """Peak learning rate of the layers that fuse text and numbers."""
    numeric_tuning_rate: float = 1e-5
    """Peak learning rate of the numeric branch in fine-tuning, where it is trained already."""
    encoder_learning_rate: float | None = None
    """Peak learning rate of the encoder; null: 5e-4 compact, 5e-5 pretrained; of an adapter 5e-4
    lora, 1e-3 adalora and bottleneck, 5e-3 ia3 and prefix."""
    weight_decay: float = 0.02
    """AdamW's decoupled decay of matrices."""
    warmup_share: float = 0.1
    """Share of the steps in which the learning rate rises."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    pseudo_labels: bool = False
    """Whether a first model labels rows without label for a second one, which is kept when its
    validation loss is not worse."""
    pseudo_label_confidence: float = 0.7
    """Least calibrated probability of the class that a pseudo-label says."""
    pseudo_label_ratio: float = 3.0
    """Most pseudo-labelled rows for every labelled one."""
    pseudo_label_weight: float = 0.3
    """Weight of a pseudo-labelled row in the loss; a labelled one weighs 1."""
    class_weights: str = "none"
    """``none``, or ``balanced``: both classes weigh the same in the loss. The base rate that this,
    ``positive_weight`` and ``sampling`` teach is corrected afterwards, in the model's bias."""
    positive_weight: float | None = None
    """Weight of a churned example where a stayed one weighs 1; null leaves it to
    ``class_weights``."""
    focal_gamma: float = 0.0
    """Focal loss (Lin et al. 2017): power by which examples that are told well count less; 0 is
    off. It bends probabilities, which calibration straightens."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over both outcomes; 0 is off."""
    sampling: str = "none"
    """``none``; ``over`` repeats examples of the outcome that is short of ``sampling_share``;
    ``under`` leaves out examples of the other one."""
    sampling_share: float = 0.5
    """Share of churned examples that ``sampling`` makes."""
    recency_half_life_days: float | None = None
    """An example counts half in the loss when its cutoff is so many days older than the newest
    of training; null: all count the same."""
    group_reweighting: str = NO_REWEIGHTING
    """``none``, or a slice (as in ``evaluate.slices``) whose groups are to count alike."""
    group_reweighting_rule: str = KAMIRAN_CALDERS
    """``kamiran_calders``: group and label are made independent; ``equal_size``: every group has
    the same total weight (which quantile bands nearly have by themselves)."""
    num_bins: int = 12
    """Bins of the piecewise-linear code of a feature."""
    dropout: float = 0.2
    """Dropout of the fusion layers."""
    text_dropout: float = 0.05
    """Chance that a fine-tuning example shows its text as the mean."""
    numeric_dropout: float = 0.3
    """Chance that a fine-tuning example shows its numbers as the mean, so that the text learns."""
    average_decay: float = 0.99
    """Decay of the moving average of the weights, which is what is kept; 0 keeps the last."""
    evaluations_per_epoch: int = 2
    """How often the validation split is looked at in a fine-tuning pass."""
    max_valid_examples: int = 4_000
    """Validation examples that such a look reads, the same ones each time."""
    refit: str = "all"
    """What learns once everything is chosen: ``test`` fits again on every label known at the test
    cutoff, ``all`` does so too and once more, for scoring, on every label known at the score
    cutoff; ``none`` ships the model that learned from the training rows alone."""
    warm_start: str = NO_START
    """``none``; ``champion``: fits of the compact encoder start from the champion's words and
    weights, without masked-word training, where none of the rows that judge them was known to it;
    or a bundle id. Trees are always trained anew."""
    patience: int = 3
    """Evaluations without a better validation loss before fine-tuning stops."""
    checkpoint_seconds: float = 30.0
    """Least time between two checkpoints."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        choices = {
            "precision": ("auto", "fp32", "bf16"),
            "class_weights": ("none", "balanced"),
            "refit": ("all", "test", "none"),
            "group_reweighting_rule": (EQUAL_SIZE, KAMIRAN_CALDERS),
            "sampling": SAMPLINGS,
            "modality": MODALITIES,
            "adapter": ("none", *ADAPTERS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"fit.{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                )
        for name in (
            "hidden_size",
            "num_layers",
            "num_heads",
            "max_review_tokens",
            "max_vocabulary",
            "min_word_count",
            "max_pretrain_examples",
            "epochs",
            "max_epoch_examples",
            "num_bins",
            "evaluations_per_epoch",
            "max_numeric_examples",
            "max_valid_examples",
            "patience",
            "max_contrastive_pairs",
        ):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in (
            "pretrain_epochs",
            "contrastive_epochs",
            "numeric_epochs",
            "min_examples",
            "weight_decay",
            "checkpoint_seconds",
            "focal_gamma",
        ):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in (
            "learning_rate",
            "numeric_tuning_rate",
            "pretrain_learning_rate",
            "numeric_learning_rate",
            "contrastive_learning_rate",
        ):
            self._require(name, 0 < getattr(self, name) < 1, "above 0 and below 1")
        for name in (
            "warmup_share",
            "dropout",
            "text_dropout",
            "numeric_dropout",
            "average_decay",
            "contrastive_crop",
            "label_smoothing",
        ):
            self._require(name, 0 <= getattr(self, name) < 1, "0 or more and below 1")
        for name in ("positive_weight", "recency_half_life_days"):
            value = getattr(self, name)
            self._require(name, value is None or 0 < value < float("inf"), "null or above 0")
        self._require("sampling_share", 0 < self.sampling_share < 1, "above 0 and below 1")
        self._check_pairs()
        self._require("mask_share", 0 < self.mask_share < 1, "above 0 and below 1")
        for name in ("max_gradient_norm", "contrastive_temperature", "pseudo_label_ratio"):
            self._require(name, getattr(self, name) > 0, "above 0")
        confident = 0.5 <= self.pseudo_label_confidence < 1
        self._require("pseudo_label_confidence", confident, "0.5 or more and below 1")
        self._require("pseudo_label_weight", 0 < self.pseudo_label_weight <= 1, "above 0, up to 1")
        self._require("max_tokens", 16 <= self.max_tokens <= 8_192, "16 to 8192")
        self._require("batch_tokens", self.batch_tokens >= self.max_tokens, "max_tokens or more")
        fits = self.max_review_tokens <= self.max_tokens - 8
        self._require("max_review_tokens", fits, "at most fit.max_tokens - 8")
        even = self.hidden_size % self.num_heads == 0
        self._require("hidden_size", even, "a multiple of fit.num_heads")
        self._check_adapter()

    @property
    def adapter_settings(self) -> AdapterSettings:
        """The settings of ``fit.adapter`` with its defaults; there must be one."""
        defaults = ADAPTERS[self.adapter]
        given = {
            "rank": self.adapter_rank,
            "alpha": self.adapter_alpha,
            "dropout": self.adapter_dropout,
            "learning_rate": self.encoder_learning_rate,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(defaults, **changes)  # type: ignore[arg-type]

    @property
    def peak_encoder_rate(self) -> float:
        """Peak learning rate of what is trained of the encoder."""
        if self.adapter != "none":
            return self.adapter_settings.learning_rate
        return self.encoder_learning_rate or (5e-4 if self.encoder == COMPACT else 5e-5)

    def _check_adapter(self) -> None:
        """Check that the adapter's settings fit it and the encoder."""
        if self.adapter != "none" and self.encoder == COMPACT:
            raise ConfigError(
                f"fit.adapter is {self.adapter!r} with fit.encoder {COMPACT!r}, which has no "
                "pretrained weights to keep; allowed: none, or a pretrained fit.encoder"
            )
        for name in ("rank", "alpha", "dropout"):
            value = getattr(self, f"adapter_{name}")
            if value is None:
                continue
            users = [kind for kind, item in ADAPTERS.items() if getattr(item, name) is not None]
            if self.adapter not in users:
                raise ConfigError(
                    f"fit.adapter_{name} is {value} with fit.adapter {self.adapter!r}, which has "
                    f"none; allowed: null, or fit.adapter {', '.join(users)}"
                )
            if name == "dropout":
                self._require("adapter_dropout", 0 <= value < 1, "0 or more and below 1")
            else:
                self._require(f"adapter_{name}", value > 0, "above 0")

    def _check_pairs(self) -> None:
        """Refuse settings that another one would silence."""
        is_single = self.positive_weight is None or self.class_weights == "none"
        self._require("positive_weight", is_single, "null beside fit.class_weights: balanced")
        is_used = self.sampling_share == 0.5 or self.sampling != NONE
        self._require("sampling_share", is_used, "0.5 (left alone) beside fit.sampling: none")
        learns = self.modality != NUMERIC or self.numeric_epochs > 0
        self._require("numeric_epochs", learns, "1 or more beside fit.modality: numeric")

    def _require(self, name: str, is_allowed: bool, allowed: str) -> None:
        """Raise with the value seen unless it is allowed."""
        if not is_allowed:
            raise ConfigError(f"fit.{name} is {getattr(self, name)!r}; allowed: {allowed}")
