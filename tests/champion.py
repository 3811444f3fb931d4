"""A tiny champion for whatever dbt project a test has built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from factories import tiny_bundle

from churn_udf.bundle_store import Bundle, set_champion
from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.contracts.settings import ModelSettings
from churn_udf.registry_entries import REGISTRY_DIR


def promote_tiny(project: Any, seed: int = 0) -> Bundle:
    """Make a tiny bundle for a project's own settings and features its champion.

    Args:
        project: A ``DbtProject`` of ``tests/dbt/conftest.py``.
        seed: Another seed gives another bundle.
    """
    inline = "{{ churn_scoring.churn_context() }}"
    result = project.succeed(["compile", "--inline", inline])
    context = json.loads(result.results[0].node.compiled_code)
    features = [FeatureSpec(name=each["name"], group=each["group"]) for each in context["features"]]
    settings = ModelSettings.from_mapping(context["settings"])
    bundle = tiny_bundle(project.models_dir, features, settings, seed=seed)
    set_champion(project.models_dir, bundle.bundle_id, reason="test")
    return bundle


def forget_champion(models_dir: Path) -> None:
    """Take the registry away: the bundles stay, as candidates."""
    shutil.rmtree(models_dir / REGISTRY_DIR)


def newest_entry(models_dir: Path) -> Path:
    """Return the file of the newest move in a registry."""
    return max((models_dir / REGISTRY_DIR).glob("*.json"))
