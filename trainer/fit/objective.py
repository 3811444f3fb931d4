"""What training minimises: weighted, focused and smoothed cross entropy, and how to undo its bias.

Class weights and sampling teach the model another base rate than that of the rows. For the
log loss both move the learned logit by a known constant, so that ``logit_offset`` moves it back
exactly (King and Zeng 2001, "Logistic Regression in Rare Events Data", prior correction; Elkan
2001, "The Foundations of Cost-Sensitive Learning", theorem 2). Focal loss and label smoothing
bend the probabilities by an amount that depends on the row: no constant undoes them, the
calibrator does.

Shape suffix: B rows.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch.nn import functional

from trainer.fit.config import FitConfig
from trainer.fit.sampling import RowSampler


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """The loss of labelled rows."""

    stayed_weight: float = 1.0
    """Weight of a customer who stayed."""
    churned_weight: float = 1.0
    """Weight of a customer who churned."""
    focal_gamma: float = 0.0
    """Power of one minus the probability of the true class; 0: plain cross entropy."""
    label_smoothing: float = 0.0
    """Share of a label that is spread over both classes, in [0, 1)."""

    def loss(
        self, logits_B: torch.Tensor, labels_B: torch.Tensor, weights_B: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted mean loss.

        Args:
            logits_B: (B,) logits.
            labels_B: (B,) float, 0 or 1.
            weights_B: (B,) weights of the rows beside those of their classes, above 0.
        """
        targets_B = labels_B * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        losses_B = functional.binary_cross_entropy_with_logits(
            logits_B, targets_B, reduction="none"
        )
        if self.focal_gamma > 0:
            log_missed_B = functional.logsigmoid((1.0 - 2.0 * labels_B) * logits_B)
            losses_B = losses_B * torch.exp(self.focal_gamma * log_missed_B)
        class_B = torch.where(labels_B > 0.5, self.churned_weight, self.stayed_weight)
        weights_B = weights_B * class_B
        return (weights_B * losses_B).sum() / weights_B.sum()


def make_objective(config: FitConfig, sampler: RowSampler) -> Objective:
    """Return the loss that the settings ask for.

    Args:
        config: Settings of training.
        sampler: Tells the share of churned rows in a pass.
    """
    stayed, churned = 1.0, config.positive_weight or 1.0
    if config.class_weights == "balanced":
        share = sampler.drawn_share
        stayed, churned = 0.5 / (1.0 - share), 0.5 / share
    return Objective(
        stayed_weight=stayed,
        churned_weight=churned,
        focal_gamma=config.focal_gamma,
        label_smoothing=config.label_smoothing,
    )


def logit_offset(objective: Objective, sampler: RowSampler) -> float:
    """Return what to add to every logit so that it speaks of the rows' own base rate.

    Under weights w1 and w0 of churned and stayed and a share s of churned rows in a pass, where
    the rows themselves have the base rate p, the learned odds are the true ones times
    ``(w1 / w0) * (s / (1 - s)) / (p / (1 - p))``.
    """
    learned = math.log(objective.churned_weight / objective.stayed_weight)
    if sampler.drawn_share != sampler.base_rate:
        learned += _log_odds(sampler.drawn_share) - _log_odds(sampler.base_rate)
    return 0.0 - learned  # and not -0.0


def _log_odds(share: float) -> float:
    """Return the logit of a share in (0, 1)."""
    return math.log(share) - math.log1p(-share)
