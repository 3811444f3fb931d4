"""Fixtures of the Python models: see ``scoring_world``."""

import shutil

import duckdb
import pytest
from factories import tiny_bundle
from scoring_world import FEATURES, World

from churn_udf.bundle_store import set_champion
from churn_udf.warehouse import dbt_model
from churn_udf.warehouse.champion_scorers import forget_scorers


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """A champion and two candidates."""
    directory = tmp_path_factory.mktemp("models")
    bundles = [tiny_bundle(directory, FEATURES, seed=seed).bundle_id for seed in range(3)]
    set_champion(directory, bundles[0], reason="test")
    return directory, bundles


@pytest.fixture
def world(tmp_path, packaged):
    forget_scorers()
    directory, bundles = packaged
    models_dir = tmp_path / "models"
    shutil.copytree(directory, models_dir)
    with duckdb.connect(str(tmp_path / "test.duckdb")) as session:
        yield World(session, models_dir, bundles)


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(dbt_model, "dbt_logger", lambda: lines.append)
    return lines


@pytest.fixture
def warned(monkeypatch, logged) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(dbt_model, "warn", lines.append)
    return lines
