"""Errors of the trainer; every one is a ``ChurnError`` whose message says what to do."""

from __future__ import annotations

from churn_udf.errors import ChurnError


class ConfigError(ChurnError, ValueError):
    """A setting that is unknown, of a wrong type or out of range."""


class SnapshotNotFoundError(ChurnError):
    """There is no snapshot at the place looked at."""


class SnapshotIntegrityError(ChurnError):
    """A file of a snapshot is missing, damaged or changed."""


class SplitError(ChurnError):
    """The history is too short, or its labels too uniform, to train and test on."""


class TrainingDivergedError(ChurnError):
    """The loss is not a finite number any more."""


class RegistryError(ChurnError):
    """A bundle cannot be listed or promoted."""


class RunError(ChurnError):
    """A run directory is missing, or lacks what an earlier step should have written."""


class ParityError(ChurnError):
    """Scores of the warehouse and scores computed offline differ."""


class WarehouseError(ChurnError):
    """The warehouse, or dbt, cannot deliver what was asked."""


class ReportError(ChurnError):
    """A report cannot be written."""


class QualityGateError(ChurnError):
    """The model is not good enough to be promoted.

    Attributes:
        facts: The compared numbers by name.
    """

    def __init__(self, message: str, *, facts: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.facts = facts or {}
