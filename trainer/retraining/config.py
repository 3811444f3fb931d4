"""Settings of when a new model is due."""

from __future__ import annotations

import dataclasses

from trainer.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RetrainingConfig:
    """When ``run --if-due`` trains; days are those of the data, null turns a check off."""

    max_age_days: int | None = 60
    """From this age on the champion is due: days between the score cutoff that it was trained for
    and the present one."""
    min_new_labels: int | None = None
    """So many labels that have matured since the champion was trained make a new model due."""
    min_new_label_share: float | None = 0.5
    """The same as a share of the rows that the champion was fitted on."""
    max_drifted_features: int | None = 0
    """Features whose drift may be an error in ``churn_score_drift``; more make a model due."""
    max_drifted_tokens: int | None = 0
    """Tokens of the text, likewise."""
    max_drifted_scores: int | None = 0
    """0: an error in the drift of the score makes a model due."""
    max_auroc_decay: float | None = 0.03
    """AUROC that the champion's newest matured scores may lie below its own test. Here and below
    a loss counts only if it is larger than chance makes it, too."""
    max_log_loss_decay: float | None = 0.03
    """What it may lose of its gain: by how much its log loss is below that of always saying the
    base rate of the same users."""
    max_calibration_decay: float | None = 0.05
    """By how much its calibration error may grow."""
    confidence: float = 0.99
    """How sure it must be that a decay is no chance; high, as it is asked every night."""
    min_outcome_users: int = 100
    """Users that a cutoff needs for its outcomes to count; 20 churners and 20 stayers, too."""
    min_days_between: int = 7
    """Days that must lie between two trainings, so that a model which the gate refused, or which
    did not end the drift, is not trained again every night. Not asked where nobody can score."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name in (
            "max_age_days",
            "max_drifted_features",
            "max_drifted_tokens",
            "max_drifted_scores",
            "min_days_between",
        ):
            self._require(name, "0 or more", is_allowed=_or_null(getattr(self, name), least=0))
        for name in ("min_new_labels", "min_outcome_users"):
            self._require(name, "1 or more", is_allowed=_or_null(getattr(self, name), least=1))
        share = self.min_new_label_share
        is_share = share is None or 0.0 < share < float("inf")
        self._require("min_new_label_share", "above 0", is_allowed=is_share)
        for name in ("max_auroc_decay", "max_log_loss_decay", "max_calibration_decay"):
            value = getattr(self, name)
            is_decay = value is None or 0.0 <= value < float("inf")
            self._require(name, "0 or more", is_allowed=is_decay)
        is_sure = 0.5 <= self.confidence < 1.0
        self._require("confidence", "0.5 or more and below 1", is_allowed=is_sure)

    def _require(self, name: str, allowed: str, *, is_allowed: bool) -> None:
        """Raise with the value seen unless it is allowed."""
        if not is_allowed:
            raise ConfigError(
                f"retraining.{name} is {getattr(self, name)!r}; allowed: {allowed}"
                + ("" if name in _NEVER_NULL else ", or null for off")
            )


_NEVER_NULL = ("confidence", "min_outcome_users", "min_days_between")


def _or_null(value: int | None, *, least: int) -> bool:
    """Return whether a number is off or large enough."""
    return value is None or value >= least
