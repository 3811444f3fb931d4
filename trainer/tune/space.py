"""What a search may change: settings of ``fit``, each with choices or a range."""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config_values import from_mapping, nearest, read_yaml
from trainer.errors import ConfigError
from trainer.fit.config import COMPACT, FitConfig

PREFIX = "fit."
RANGE_KEYS = ("low", "high", "log", "points")
MAX_GRID = 1_000
MEASURE = ("seed", "device", "evaluations_per_epoch", "max_valid_examples", "checkpoint_seconds")
"""Settings that decide how a trial is measured or where it runs: trials could not be compared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dimension:
    """One setting of the space: either choices, or a range."""

    name: str
    """Full name, such as ``fit.dropout``."""
    choices: tuple[Any, ...] = ()
    """Values to choose from; empty for a range."""
    low: float = 0.0
    """Least value of a range."""
    high: float = 0.0
    """Greatest value of a range, included."""
    is_log: bool = False
    """Whether a range is searched by its logarithm."""
    is_whole: bool = False
    """Whether a range holds whole numbers only."""
    points: int = 3
    """Values that a grid takes from a range, both ends among them."""

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in the space."""
        if self.choices:
            return value in self.choices
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def grid(self) -> list[Any]:
        """Return the values of a grid."""
        if self.choices:
            return list(self.choices)
        spaced = np.geomspace if self.is_log else np.linspace
        values = spaced(self.low, self.high, self.points).clip(self.low, self.high).tolist()
        return sorted({round(value) for value in values}) if self.is_whole else values


Space = tuple[Dimension, ...]


def default_space(fit: FitConfig) -> Space:
    """Return the space that is searched when none is given.

    Args:
        fit: Its encoder decides: the size of a pretrained one is fixed.
    """
    is_compact = fit.encoder == COMPACT
    rates = {
        "learning_rate": (3e-4, 3e-3),
        "encoder_learning_rate": (1e-4, 2e-3) if is_compact else (1e-5, 2e-4),
        "numeric_learning_rate": (5e-4, 1e-2),
        "numeric_tuning_rate": (1e-6, 1e-3),
        "weight_decay": (3e-3, 0.2),
    }
    shares = {"dropout": (0.0, 0.4), "numeric_dropout": (0.0, 0.6), "text_dropout": (0.0, 0.2)}
    choices: dict[str, tuple[Any, ...]] = {
        "epochs": (1, 2, 3),
        "numeric_epochs": (6, 12, 24),
        "num_bins": (8, 12, 20),
    }
    if is_compact:
        choices |= {"hidden_size": (64, 128, 192), "num_layers": (1, 2, 3)}
    return (
        *(
            Dimension(name=PREFIX + name, low=low, high=high, is_log=True)
            for name, (low, high) in rates.items()
        ),
        *(
            Dimension(name=PREFIX + name, low=low, high=high)
            for name, (low, high) in shares.items()
        ),
        *(Dimension(name=PREFIX + name, choices=values) for name, values in choices.items()),
    )


def read_space(file: Path, fit: FitConfig) -> Space:
    """Read a space from YAML.

    Args:
        file: ``space:`` with name -> ``{choices: [...]}``, or ``{low, high, log, points}``.
        fit: The other settings, beside which every value must be allowed.

    Raises:
        ConfigError: An unknown key, or a value of a wrong type or out of range.
    """
    tree = read_yaml(file)
    for key in tree:
        if key != "space":
            raise ConfigError(f"{file}: unknown key {key!r}{nearest(str(key), ['space'])}")
    space = tree.get("space")
    if not isinstance(space, Mapping) or not space:
        raise ConfigError(f"{file}: space is {space!r}; allowed: a mapping of settings to search")
    return tuple(_read_dimension(str(name), content, fit) for name, content in space.items())


def settings_of(fit: FitConfig, params: Mapping[str, Any]) -> FitConfig:
    """Return the settings with those of a trial put in.

    Raises:
        ConfigError: They do not go together.
    """
    changes = {name.removeprefix(PREFIX): value for name, value in params.items()}
    return from_mapping(FitConfig, {**dataclasses.asdict(fit), **changes}, path="fit")


def present_values(space: Space, fit: FitConfig) -> dict[str, Any]:
    """Return the values that the settings of the space have now."""
    return {dimension.name: _present_value(dimension.name, fit) for dimension in space}


def names_outside(space: Space, fit: FitConfig) -> list[str]:
    """Return the settings whose present values the space does not hold."""
    values = present_values(space, fit)
    return [dimension.name for dimension in space if not dimension.holds(values[dimension.name])]


def grid_points(space: Space, seed: int) -> list[dict[str, Any]]:
    """Return every combination in a seeded order, so that a part of the grid covers all of it.

    Raises:
        ConfigError: There are more than 1,000.
    """
    axes = [dimension.grid() for dimension in space]
    size = math.prod(len(axis) for axis in axes)
    if size > MAX_GRID:
        raise ConfigError(
            f"the grid has {size:,} points; allowed: at most {MAX_GRID:,}. Name fewer settings or "
            "values in the file of --space, or take --sampler tpe"
        )
    names = [dimension.name for dimension in space]
    points = [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]
    return [points[index] for index in np.random.default_rng([seed, 1]).permutation(size)]


def _present_value(name: str, fit: FitConfig) -> Any:
    """Return a setting's value, a default that depends on others resolved."""
    field = name.removeprefix(PREFIX)
    return fit.peak_encoder_rate if field == "encoder_learning_rate" else getattr(fit, field)


def _read_dimension(name: str, content: Any, fit: FitConfig) -> Dimension:
    """Check and return one setting of the file."""
    fields = [field.name for field in dataclasses.fields(FitConfig) if field.name not in MEASURE]
    field = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or field not in fields:
        known = [PREFIX + known for known in fields]
        raise ConfigError(f"space: {name!r} cannot be searched{nearest(name, known)}")
    if not isinstance(content, Mapping):
        raise ConfigError(f"space.{name} is {content!r}; allowed: {{choices}} or {{low, high}}")
    for key in content:
        if key not in ("choices", *RANGE_KEYS):
            hint = nearest(str(key), ["choices", *RANGE_KEYS])
            raise ConfigError(f"unknown key 'space.{name}.{key}'{hint}")
    if "choices" in content:
        return _read_choices(name, content, fit)
    return _read_range(name, content, fit)


def _read_choices(name: str, content: Mapping[str, Any], fit: FitConfig) -> Dimension:
    """Return a setting with choices, each of the setting's type and allowed."""
    values = content["choices"]
    if len(content) > 1 or not isinstance(values, Sequence) or isinstance(values, str):
        raise ConfigError(f"space.{name} is {dict(content)}; allowed: choices alone, a list")
    field = name.removeprefix(PREFIX)
    checked = [getattr(settings_of(fit, {name: value}), field) for value in values]
    if not checked or len(set(checked)) < len(checked):
        raise ConfigError(f"space.{name}.choices is {values}; allowed: different values, not none")
    return Dimension(name=name, choices=tuple(checked))


def _read_range(name: str, content: Mapping[str, Any], fit: FitConfig) -> Dimension:
    """Return a setting with a range whose ends are allowed."""
    field = name.removeprefix(PREFIX)
    hint = typing.get_type_hints(FitConfig)[field]
    kinds = typing.get_args(hint) or (hint,)
    if int not in kinds and float not in kinds:
        raise ConfigError(f"space.{name} is {dict(content)}; allowed: choices, as it is no number")
    missing = [key for key in ("low", "high") if key not in content]
    if missing:
        raise ConfigError(f"space.{name} lacks {missing[0]}; allowed: {{low, high, log, points}}")
    low, high = (getattr(settings_of(fit, {name: content[key]}), field) for key in ("low", "high"))
    is_log, points = content.get("log", False), content.get("points", 3)
    if low is None or high is None or not low < high:
        raise ConfigError(f"space.{name} goes from {low} to {high}; allowed: low below high")
    if not isinstance(is_log, bool) or (is_log and low <= 0):
        raise ConfigError(
            f"space.{name}.log is {is_log!r} with low {low}; allowed: true or false, and true "
            "with a low above 0 only"
        )
    if not isinstance(points, int) or isinstance(points, bool) or points < 2:
        raise ConfigError(f"space.{name}.points is {points!r}; allowed: 2 or more")
    return Dimension(
        name=name, low=low, high=high, is_log=is_log, is_whole=int in kinds, points=points
    )
