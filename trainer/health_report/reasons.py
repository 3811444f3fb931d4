"""What a rule of the verdict finds, and the bounds of all rules."""

from __future__ import annotations

import dataclasses

FINE, LOOK, ACT, UNKNOWN = "fine", "look", "act", "unknown"
NUM_NAMED = 3
"""Of a list, in a sentence."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Up to a limit is still the kinder level."""

    act_data_days: int = 7
    """Age of the newest event; half of it is to be looked at. ``churn__max_data_age_days`` wins."""
    look_auroc_drop: float = 0.02
    """Below the test at packaging; noise of two standard errors is allowed on top."""
    act_auroc_drop: float = 0.05
    look_rate_gap: float = 0.03
    """Between what was said and what happened on average, beyond two standard errors."""
    act_rate_gap: float = 0.08
    act_unscorable_share: float = 0.05
    """Of the users at the score cutoff."""
    look_changed_share: float = 0.01
    """Labels of a cutoff that changed after they had matured."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """What one rule found."""

    name: str
    level: str
    """``fine``, ``look``, ``act`` or ``unknown``."""
    text: str
    short: str = ""
    """A clause for the headline; of ``look`` and ``act`` alone."""
    anchor: str = "models"
    """Id of the section that shows it."""
