"""Settings of experiment trackers."""

from __future__ import annotations

import dataclasses

from trainer.errors import ConfigError

TRACKERS = ("tensorboard", "wandb", "mlflow")
WANDB_MODES = ("offline", "online")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrackingConfig:
    """Where runs are logged besides their own folder; changes neither run id nor model."""

    trackers: tuple[str, ...] = ()
    """Any of ``tensorboard``, ``wandb`` and ``mlflow``; each needs the extra of its name."""
    directory: str = "tracking"
    """Folder in which each tracker gets one of its own."""
    project: str = "churn"
    """Project of W&B, experiment of MLflow."""
    wandb_mode: str = "offline"
    """``offline`` writes files that ``wandb sync`` can upload later; ``online`` sends at once."""
    mlflow_uri: str | None = None
    """MLflow tracking server or database; null: a file store in the folder."""

    def __post_init__(self) -> None:
        """Check the names."""
        unknown = [name for name in self.trackers if name not in TRACKERS]
        if unknown or len(set(self.trackers)) < len(self.trackers):
            raise ConfigError(
                f"tracking.trackers is {list(self.trackers)}; allowed: each at most once of "
                f"{', '.join(TRACKERS)}"
            )
        if self.wandb_mode not in WANDB_MODES:
            raise ConfigError(
                f"tracking.wandb_mode is {self.wandb_mode!r}; allowed: {', '.join(WANDB_MODES)}"
            )
        for name in ("directory", "project"):
            if not getattr(self, name).strip():
                raise ConfigError(f"tracking.{name} is empty; allowed: a name")
