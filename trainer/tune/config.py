"""Settings of a search; importing this costs nothing."""

from __future__ import annotations

import dataclasses

from trainer.errors import ConfigError

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "halving", "none")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """How to search, and for how long."""

    sampler: str = "tpe"
    """``tpe``, ``random`` or ``grid``."""
    pruner: str = "median"
    """``median``, ``halving`` or ``none``: which trials are given up at a validation look."""
    num_trials: int = 30
    """Trials of the study in all, those of earlier and parallel processes included."""
    max_minutes: float | None = None
    """Minutes after which this process stops; null: no limit."""
    num_seeds: int = 1
    """Seeds that a trial trains with, ``fit.seed`` and the ones after it; their mean counts."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                )
        for name in ("num_trials", "num_seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ConfigError(f"max_minutes is {self.max_minutes}; allowed: above 0, or null")
