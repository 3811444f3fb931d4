"""The trainer's settings: one tree of frozen dataclasses, read from YAML, environment and flags.

Later sources win: defaults, ``--config FILE``, ``CHURN_TRAIN_<SECTION>_<FIELD>`` variables,
command-line flags. Every key must exist; a typing error never becomes a default silently.
Windows and other settings of the data are dbt vars and live in the warehouse project alone.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from churn_udf.contracts.bundle import MEMBER_FILES
from churn_udf.model.ensemble import KINDS, STACK
from churn_udf.model.precision import PRECISIONS
from trainer.config_values import from_mapping, nearest, plain, read_yaml
from trainer.data.snapshot import SnapshotConfig
from trainer.data.splits import SplitConfig
from trainer.errors import ConfigError
from trainer.evaluate import BASELINE_TITLES, RfmColumns
from trainer.evaluate.base_rates import BASE_RATE_KINDS
from trainer.evaluate.calibration import CALIBRATION_KINDS
from trainer.evaluate.group_thresholds import EQUAL_RECALL, GROUP_RULES
from trainer.evaluate.thresholds import STRATEGY_DEFAULTS
from trainer.fit.config import FitConfig
from trainer.retraining.config import RetrainingConfig
from trainer.tracking.config import TrackingConfig

ENV_PREFIX = "CHURN_TRAIN_"
OPTION_VARIABLES = frozenset(
    f"{ENV_PREFIX}{name}" for name in ("CONFIG", "RUNS_DIR", "SNAPSHOTS_DIR", "STUDIES_DIR")
)
"""Variables of the prefix that stand for a command-line option, not for a setting."""
_RFM = RfmColumns()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """How a model is judged."""

    num_bootstrap: int = 1_000
    """Bootstrap samples behind every interval."""
    confidence: float = 0.95
    """Width of the intervals."""
    calibration: tuple[str, ...] = CALIBRATION_KINDS
    """Calibrators to choose from, by log loss on validation rows."""
    baselines: tuple[str, ...] = tuple(BASELINE_TITLES)
    """Baselines to fit on the same rows."""
    recency_feature: str = _RFM.recency
    """Feature that the recency rule ranks by."""
    frequency_feature: str = _RFM.frequency
    """Feature that counts activity for the RFM baseline."""
    monetary_feature: str = _RFM.monetary
    """Feature that sums amounts for the RFM baseline."""
    base_rate: str = "shrunk"
    """What base rate a calibrator expects: ``newest`` (of the newest labelled rows), ``shrunk``
    (halfway from there to all known labels), or ``em`` (from the unlabelled scores)."""
    slices: tuple[str, ...] = ("tenure", "value", "frequency", "profile")
    """Segments to measure: ``tenure``, ``value``, ``frequency``, ``recency``, a feature (in bands
    of its training quantiles), ``profile.<column>``, or ``profile`` for every profile column that
    divides the customers into groups; an empty list measures none."""
    min_slice_users: int = 100
    """Users that a segment needs to be measured; 20 churners and 20 stayers are needed, too."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.num_bootstrap < 1:
            raise ConfigError(f"evaluate.num_bootstrap is {self.num_bootstrap}; allowed: 1 or more")
        if not 0.0 < self.confidence < 1.0:
            raise ConfigError(
                f"evaluate.confidence is {self.confidence}; allowed: above 0 and below 1"
            )
        if self.min_slice_users < 1:
            raise ConfigError(
                f"evaluate.min_slice_users is {self.min_slice_users}; allowed: 1 or more"
            )
        _require_subset("evaluate.calibration", self.calibration, CALIBRATION_KINDS)
        _require_subset("evaluate.baselines", self.baselines, tuple(BASELINE_TITLES))
        _require_subset("evaluate.base_rate", (self.base_rate,), BASE_RATE_KINDS)

    @property
    def rfm(self) -> RfmColumns:
        """The three features that the simple baselines read."""
        return RfmColumns(
            recency=self.recency_feature,
            frequency=self.frequency_feature,
            monetary=self.monetary_feature,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleConfig:
    """Which models may score, alone or together; chosen on validation rows."""

    kinds: tuple[str, ...] = KINDS
    """``bert``, ``gbm``, ``stack``: which may be chosen; name one to have it."""
    members: tuple[str, ...] = tuple(MEMBER_FILES)
    """Models that a stack may weigh."""
    shrinkage: float = 100.0
    """Pull of the stack's weights towards equal shares, as many validation rows' worth."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        _require_subset("ensemble.kinds", self.kinds, KINDS)
        _require_subset("ensemble.members", self.members, tuple(MEMBER_FILES))
        if not 1.0 <= self.shrinkage < float("inf"):
            raise ConfigError(
                f"ensemble.shrinkage is {self.shrinkage}; allowed: 1 or more, finite: rows in all, "
                "no longer a share of each row"
            )
        if self.kinds == (STACK,) and len(set(self.members)) < 2:
            raise ConfigError(
                f"ensemble.kinds is stack, but ensemble.members names only {self.members[0]}; "
                f"name two or more of {', '.join(MEMBER_FILES)}"
            )
        for kind in self.kinds:
            if kind in MEMBER_FILES and kind not in self.members:
                raise ConfigError(
                    f"ensemble.kinds names {kind!r}, which is not among ensemble.members "
                    f"({', '.join(self.members)}); add it there or drop the kind"
                )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdConfig:
    """From which probability a customer is flagged; chosen on validation rows."""

    strategy: str = "f_beta"
    """f_beta, precision_floor, recall_floor, capacity (a share of the users), top_k (a number of
    users per cutoff) or cost."""
    parameter: float | None = None
    """Beta, floor, share or number of the strategy; null takes its default."""
    costs: Mapping[str, float] | None = None
    """For cost: true_positive, false_positive, false_negative, true_negative per customer."""
    per_group: str | None = None
    """Slice made of a feature (as in ``evaluate.slices``) whose groups get a threshold each."""
    group_rule: str = EQUAL_RECALL
    """equal_recall: the same share of churners is flagged in each group; same_strategy: the
    strategy in each group by itself."""

    def __post_init__(self) -> None:
        """Check the names; numbers are checked when a threshold is chosen."""
        for name, allowed in (("strategy", tuple(STRATEGY_DEFAULTS)), ("group_rule", GROUP_RULES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"thresholds.{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """What a candidate must show to become the champion; see ``docs/decisions/adr-0014-gate.md``.

    Every bound is compared with the kind end of an interval: a small test cannot tell small
    differences, so only what is shown to be worse is refused.
    """

    min_auroc: float = 0.55
    """Lowest allowed upper end of the AUROC interval: below it the model ranks like chance."""
    max_recency_deficit: float = 0.02
    """AUROC that the model may lie below the recency rule, at the kind end of the paired
    interval."""
    max_brier_excess: float = 0.02
    """Brier score that the model may lie above the base rate for everyone, likewise."""
    max_baseline_deficit: float = 0.02
    """AUROC that the model may lie below any other baseline, likewise."""
    max_baseline_log_loss_excess: float = 0.02
    """Log loss that the model may lie above any baseline, likewise."""
    max_champion_deficit: float = 0.02
    """AUROC that the model may lie below the champion, likewise."""
    max_champion_log_loss_excess: float = 0.02
    """Log loss that the model may lie above the champion, likewise."""
    max_calibration_gap: float = 0.1
    """By how much the mean probability may miss the churn rate, likewise."""
    max_calibration_error: float = 0.1
    """Expected calibration error beyond what chance gives a calibrated model on as many rows."""
    max_claim_deficit: float = 0.05
    """AUROC that the shipped bundle may lie below what its ``metrics.json`` says, likewise."""
    min_slice_auroc: float | None = 0.5
    """Lowest allowed upper end of any segment's AUROC interval; null asks for nothing."""
    max_slice_calibration_gap: float | None = 0.1
    """By how much more than for everybody a segment's mean probability may miss its churn rate, at
    the kind end of the paired interval; null asks for nothing."""
    max_slice_auroc_deficit: float | None = None
    """AUROC that a segment may lie below everybody, likewise. Off: inside a segment made of what
    predicts churn, any model ranks less well, which is no fault."""
    min_class_rows: int = 10
    """Churners, and stayers, that the newest matured cutoff needs to judge by."""
    max_label_changes: float = 0.02
    """Share of the snapshot's newest labels that the warehouse may tell otherwise by now."""
    max_snapshot_age_days: int = 35
    """Days by which the warehouse's newest matured cutoff may be newer than the snapshot's."""
    max_rows: int = 20_000
    """Users of the newest matured cutoff to score, drawn by hash; both models get the same."""
    parity_rows: int = 500
    """Rows to score in the warehouse and offline."""
    unchecked: str = "refuse"
    """What a check counts as that cannot be made, for want of a warehouse, snapshot or cutoff:
    ``refuse`` or ``allow``."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name in ("min_class_rows", "max_rows", "parity_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"gate.{name} is {getattr(self, name)}; allowed: 1 or more")
        if self.unchecked not in ("refuse", "allow"):
            raise ConfigError(f"gate.unchecked is {self.unchecked!r}; allowed: refuse, allow")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionConfig:
    """How far scores may move for speed: the bounds of a mode faster than fp32.

    Packaging tries each mode on validation rows; the fastest within all bounds scores.
    """

    modes: tuple[str, ...] = PRECISIONS
    """``fp32``, ``bf16``, ``int8``: which may be chosen; fp32 alone keeps scores exact."""
    max_probability_change: float = 0.01
    """Largest change of any row's probability."""
    max_auroc_change: float = 0.001
    """Largest change of AUROC, up or down."""
    max_tier_flips: float = 0.005
    """Largest share of rows whose risk tier changes."""
    max_rows: int = 4_000
    """Validation rows to try the modes on, the newest."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        _require_subset("precision.modes", self.modes, PRECISIONS)
        for name in ("max_probability_change", "max_auroc_change", "max_tier_flips"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"precision.{name} is {getattr(self, name)}; allowed: between 0 and 1"
                )
        if self.max_rows < 1:
            raise ConfigError(f"precision.max_rows is {self.max_rows}; allowed: 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Every setting of ``churn-train``."""

    snapshot: SnapshotConfig = dataclasses.field(default_factory=SnapshotConfig)
    """How a snapshot is written."""
    splits: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    """Which cutoffs train, validate and test."""
    fit: FitConfig = dataclasses.field(default_factory=FitConfig)
    """Model and training; ``fit.seed`` is the seed of everything random."""
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
    """How a model is judged."""
    ensemble: EnsembleConfig = dataclasses.field(default_factory=EnsembleConfig)
    """Which models may score, alone or together."""
    thresholds: ThresholdConfig = dataclasses.field(default_factory=ThresholdConfig)
    """From which probability a customer is flagged."""
    gate: GateConfig = dataclasses.field(default_factory=GateConfig)
    """What a model must show to be promoted by ``run``."""
    precision: PrecisionConfig = dataclasses.field(default_factory=PrecisionConfig)
    """How far scores may move for speed."""
    retraining: RetrainingConfig = dataclasses.field(default_factory=RetrainingConfig)
    """When ``run --if-due`` trains."""
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    """Where runs are logged besides their own folder."""


def load_config(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Resolve the settings from file, environment and flags.

    Args:
        file: YAML file with the sections of ``TrainConfig``, or None.
        environment: Variables; those with the prefix ``CHURN_TRAIN_`` are settings.
        overrides: ``{"section.field": value}`` of flags; values that are text are parsed.

    Raises:
        ConfigError: An unknown key, a value of a wrong type or out of range, or a bad file.
    """
    tree: dict[str, Any] = read_yaml(file) if file else {}
    for section, content in tree.items():
        if content is not None and not isinstance(content, Mapping):
            raise ConfigError(f"{file}: {section} is {content!r}; allowed: a mapping of settings")
    tree = {section: dict(content or {}) for section, content in tree.items()}
    for key, value in _environment_settings(environment or {}).items():
        section, _, field = key.partition(".")
        tree.setdefault(section, {})[field] = value
    for key, value in (overrides or {}).items():
        section, _, field = key.partition(".")
        if not field:
            raise ConfigError(f"setting {key!r}; allowed: section.name=value, such as fit.epochs=2")
        tree.setdefault(section, {})[field] = value
    return from_mapping(TrainConfig, tree)


def to_mapping(config: TrainConfig) -> dict[str, Any]:
    """Return nested plain mappings, the inverse of ``from_mapping``."""
    tree: dict[str, Any] = plain(dataclasses.asdict(config))
    return tree


def to_yaml(config: TrainConfig) -> str:
    """Return the YAML that ``load_config`` reads back to the same settings."""
    import yaml

    text: str = yaml.safe_dump(to_mapping(config), sort_keys=False)
    return text


def _environment_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return ``{"section.field": value}`` of the variables with our prefix."""
    names = {
        f"{ENV_PREFIX}{section.name}_{field.name}".upper(): f"{section.name}.{field.name}"
        for section in dataclasses.fields(TrainConfig)
        for field in dataclasses.fields(typing.get_type_hints(TrainConfig)[section.name])
    }
    settings: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENV_PREFIX) or variable in OPTION_VARIABLES:
            continue
        if variable not in names:
            raise ConfigError(
                f"unknown environment variable {variable}{nearest(variable, list(names))}"
            )
        settings[names[variable]] = text
    return settings


def _require_subset(name: str, values: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """Check a list against what it may hold."""
    if not values or not set(values) <= set(allowed):
        raise ConfigError(f"{name} is {list(values)}; allowed: one or more of {', '.join(allowed)}")
