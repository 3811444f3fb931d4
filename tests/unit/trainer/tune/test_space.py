"""The search space: the default, the file, the grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.fit.config import FitConfig
from trainer.tune.space import (
    Dimension,
    default_space,
    grid_points,
    names_outside,
    present_values,
    read_space,
    settings_of,
)

FIT = FitConfig()


def read(tmp_path: Path, text: str) -> tuple[Dimension, ...]:
    file = tmp_path / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return read_space(file, FIT)


def test_file_becomes_dimensions(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        """
        space:
          fit.learning_rate: {low: 1e-4, high: 1e-2, log: true, points: 5}
          fit.num_layers: {low: 1, high: 4}
          fit.encoder_learning_rate: {low: 1e-5, high: 1e-3}
          fit.class_weights: {choices: [none, balanced]}
          fit.hidden_size: {choices: [64, 128]}
        """,
    )
    assert space == (
        Dimension(name="fit.learning_rate", low=1e-4, high=1e-2, is_log=True, points=5),
        Dimension(name="fit.num_layers", low=1, high=4, is_whole=True),
        Dimension(name="fit.encoder_learning_rate", low=1e-5, high=1e-3),
        Dimension(name="fit.class_weights", choices=("none", "balanced")),
        Dimension(name="fit.hidden_size", choices=(64, 128)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spaces: {}", "did you mean 'space'"),
        ("space: [1]", "allowed: a mapping of settings to search"),
        ("space: {fit.drpout: {choices: [0]}}", r"did you mean 'fit\.dropout'"),
        ("space: {dropout: {choices: [0]}}", r"did you mean 'fit\.dropout'"),
        ("space: {fit.seed: {choices: [0]}}", "cannot be searched"),
        ("space: {splits.test_cutoffs: {choices: [1]}}", "cannot be searched"),
        ("space: {fit.dropout: 3}", r"fit\.dropout is 3"),
        ("space: {fit.dropout: {lo: 0, high: 1}}", "did you mean 'low'"),
        ("space: {fit.dropout: {low: 0}}", "lacks high"),
        ("space: {fit.dropout: {low: 0.3, high: 0.1}}", "low below high"),
        ("space: {fit.dropout: {low: 0, high: 1}}", r"fit\.dropout is 1\.0; allowed: 0 or more"),
        ("space: {fit.dropout: {low: 0, high: 0.5, log: true}}", "a low above 0 only"),
        ("space: {fit.dropout: {low: 0, high: 0.5, points: 1}}", "2 or more"),
        ("space: {fit.dropout: {choices: []}}", "different values, not none"),
        ("space: {fit.dropout: {choices: [0, 0.0]}}", "different values"),
        ("space: {fit.dropout: {choices: [0.1], low: 0}}", "choices alone"),
        ("space: {fit.dropout: {choices: [many]}}", "allowed: a number"),
        ("space: {fit.epochs: {low: 1, high: 2.5}}", "allowed: a whole number"),
        ("space: {fit.precision: {low: 1, high: 2}}", "allowed: choices, as it is no number"),
        ("space: {fit.hidden_size: {choices: [65]}}", r"a multiple of fit\.num_heads"),
    ],
)
def test_bad_file_says_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("encoder", ["compact", "some/encoder"])
def test_default_space_holds_the_defaults_and_only_allowed_values(encoder: str) -> None:
    fit = dataclasses.replace(FIT, encoder=encoder)
    space = default_space(fit)
    names = {dimension.name for dimension in space}
    assert ("fit.hidden_size" in names) == (encoder == "compact")
    present = present_values(space, fit)
    assert names_outside(space, fit) == []
    assert dataclasses.replace(settings_of(fit, present), encoder_learning_rate=None) == fit
    for dimension in space:
        for value in dimension.grid():
            settings_of(fit, {dimension.name: value})


def test_present_values_outside_the_space_are_named() -> None:
    space = (
        Dimension(name="fit.dropout", low=0.3, high=0.5),
        Dimension(name="fit.num_bins", choices=(4, 8)),
        Dimension(name="fit.epochs", choices=(1, 2)),
    )
    assert names_outside(space, FIT) == ["fit.dropout", "fit.num_bins"]


def test_grid_is_every_combination_in_a_seeded_order() -> None:
    space = (
        Dimension(name="fit.num_layers", low=1, high=2, is_whole=True),
        Dimension(name="fit.learning_rate", low=1e-4, high=1e-2, is_log=True),
    )
    points = grid_points(space, 0)
    assert len(points) == 6, "whole numbers between 1 and 2 are two"
    assert {point["fit.num_layers"] for point in points} == {1, 2}
    rates = sorted({point["fit.learning_rate"] for point in points})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2])
    assert rates[0] >= 1e-4
    assert rates[-1] <= 1e-2
    assert grid_points(space, 0) == points
    assert grid_points(space, 1) != points


def test_grid_of_the_default_space_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"allowed: at most 1,000.*--space"):
        grid_points(default_space(FIT), 0)
