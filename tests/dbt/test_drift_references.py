"""int_drift_references, built by dbt from bundles with and without a reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drift_example import make_reference
from factories import tiny_bundle

from churn_udf.bundle_store import Bundle, write_bundle
from churn_udf.contracts.bundle import MANIFEST_FILE, REFERENCE_FILE
from churn_udf.contracts.reference import TokenCounts
from churn_udf.registry import move

FEATURES = ("recency_days", "order_count", "amount_sum")
EVENT = {"user_id": "u", "event_type": "purchase", "event_ts": "2024-03-01 09:00:00"}


def with_file(models_dir: Path, bundle: Bundle, text: str) -> str:
    """Package a copy of a bundle with a reference; return its id."""
    files = {
        path.relative_to(bundle.directory).as_posix(): path
        for path in bundle.directory.rglob("*")
        if path.is_file() and path.name != MANIFEST_FILE
    }
    manifest = bundle.manifest
    return write_bundle(
        models_dir,
        files={**files, REFERENCE_FILE: text},
        settings=manifest.settings,
        features=manifest.features,
        training=manifest.training,
        versions=manifest.versions,
    ).bundle_id


@pytest.fixture(scope="module")
def project(module_dbt_project):
    project = module_dbt_project
    project.vars = {"churn__events_path": project.events_parquet([EVENT])}
    return project


def test_references_of_champion_and_shadows_become_rows(project, capsys):
    models_dir = project.models_dir
    parts = "select bundle_id, part, count(*) from int_drift_references group by all order by all"
    project.run(select="int_drift_references")
    assert project.query(parts) == []

    plain = [tiny_bundle(models_dir, FEATURES, seed=seed) for seed in range(3)]
    tokens = TokenCounts(
        row_count=9, user_count=4, words=("milk", "known"), counts=(9, 3), other_count=1
    )
    values = {"order_count": np.array([1.0, 2.0, 2.0, np.nan])}
    text = make_reference(values, tokens=tokens, score=np.array([0.25, 0.75])).to_json()
    champion, shadow, candidate = (with_file(models_dir, bundle, text) for bundle in plain)
    move(models_dir, champion, "champion", reason="test")
    move(models_dir, shadow, "shadow", reason="test")
    move(models_dir, plain[0].bundle_id, "shadow", reason="it has no reference")
    project.run(select="int_drift_references")
    assert {row[0] for row in project.query(parts)} == {champion, shadow}
    counts = {row[1]: row[2] for row in project.query(parts) if row[0] == champion}
    assert counts == {"bundle": 1, "subject": 5, "bin": 4, "point": 4}
    assert project.query(
        "select row_count, known_count, mean from int_drift_references "
        f"where bundle_id = '{champion}' and part = 'subject' and subject = 'order_count'"
    ) == [(4, 3, pytest.approx(5 / 3))]
    shares = "select subject, mean from int_drift_references where subject_type = 'token'"
    assert dict(project.query(f"{shares} and bundle_id = '{champion}'")) == {
        "milk": 1.0,
        "known": pytest.approx(1 / 3),
        "[other]": pytest.approx(1 / 9),
    }

    (models_dir / "bundles" / shadow / REFERENCE_FILE).write_text("{}", encoding="utf-8")
    project.run(select="int_drift_references")
    assert {row[0] for row in project.query(parts)} == {champion}, "a shadow does no harm"

    move(models_dir, candidate, "champion", reason="test")
    damaged = models_dir / "bundles" / candidate / REFERENCE_FILE
    for broken in ({}, {"reference_version": 2}, {**json.loads(text), "first_cutoff": "soon"}):
        damaged.write_text(json.dumps(broken), encoding="utf-8")
        project.run(select="int_drift_references")
        assert project.query(parts) == []
        said = capsys.readouterr().out
        assert f"no drift of {candidate}" in said, "drift alone is missing: scores are published"
