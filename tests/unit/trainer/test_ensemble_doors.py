"""A stack through every door: offline, DuckDB's function, dbt's Python model and parity."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from training_example import Trained, tiny_config

from churn_udf.bundle_store import open_champion
from churn_udf.model.ensemble import read_ensemble
from churn_udf.scoring import Scorer
from churn_udf.warehouse import (
    CONTEXT_VARIABLE,
    DEVICE_VARIABLE,
    MODELS_DIR_VARIABLE,
    dbt_model,
)
from churn_udf.warehouse.champion_scorers import forget_scorers
from churn_udf.warehouse.udf import make_churn_score
from trainer.data.warehouse import ChurnContext, Warehouse
from trainer.pipeline import train_snapshot
from trainer.release.parity import compare_with_warehouse

NUM_ROWS = 60


class StandIn:
    """What parity needs of a warehouse, over one connection."""

    def __init__(self, trained: Trained, connection: Any) -> None:
        self.connection = connection
        self.context = ChurnContext(
            settings=dict(trained.snapshot.settings),
            relations={"churn_examples": "examples", "churn_scores": "churn_scores"},
            features=trained.snapshot.features,
            settings_hash="",
            document={},
        )

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        yield self.connection.cursor()

    stream = Warehouse.stream


@pytest.fixture(params=["stack", "gbm"])
def champion(request: pytest.FixtureRequest, trained: Trained) -> Trained:
    """The session's run judged again with another kind, and promoted."""
    config = tiny_config(
        ensemble__kinds=request.param, ensemble__members="bert,gbm,logistic,bg_nbd"
    )
    outcome = train_snapshot(trained.snapshot, config, trained.workspace)
    assert outcome.is_champion
    assert outcome.metrics["model"] == request.param
    return Trained(trained.root, trained.workspace, outcome)


@pytest.fixture
def session(champion: Trained, tmp_path: Path) -> Iterator[Any]:
    """A database with examples at one cutoff and what plugin and hook leave in a session."""
    forget_scorers()
    snapshot, models_dir = champion.snapshot, champion.workspace.models_dir
    table = snapshot.table.slice(0, NUM_ROWS)
    cutoff = table.column("cutoff_date")[0].as_py()
    with duckdb.connect(str(tmp_path / "doors.duckdb")) as connection:
        connection.register("rows", table)
        connection.execute("create table examples as select *, true as is_score_cutoff from rows")
        connection.execute(
            f"create table cutoffs as select date '{cutoff}' as cutoff_date, "
            "true as is_score_cutoff, 'h' as settings_hash"
        )
        context = {
            "settings": snapshot.model_settings.to_dict(),
            "settings_hash": "h",
            "feature_names": snapshot.feature_names,
            "examples_relation": "examples",
            "cutoffs_relation": "cutoffs",
            "cache_relation": "churn_score_cache",
            "unscorable_relation": "churn_unscorable_inputs",
            "unscorable_rows": "fail",
            "is_full_refresh": False,
        }
        for name, value in {
            MODELS_DIR_VARIABLE: str(models_dir),
            DEVICE_VARIABLE: "cpu",
            CONTEXT_VARIABLE: json.dumps(context),
        }.items():
            connection.execute(f"set variable {name} = ?", [value])
        scorer = Scorer.load(open_champion(models_dir), device="cpu")
        connection.create_function(
            "churn_score",
            make_churn_score(lambda: scorer),
            ["VARCHAR", "VARCHAR", "DOUBLE[]"],
            "DOUBLE",
            type="arrow",
            null_handling="special",
        )
        yield connection
        connection.remove_function("churn_score")


def test_every_door_gives_the_scores_that_were_shipped(
    champion: Trained, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbt_model, "dbt_logger", lambda: lambda line: None)
    bundle = open_champion(champion.workspace.models_dir)
    snapshot = champion.snapshot
    batch = snapshot.table.slice(0, NUM_ROWS).combine_chunks().to_batches()[0]
    offline = Scorer.load(bundle, device="cpu").score_batch(batch)
    expected = dict(
        zip(
            offline.column("input_hash").to_pylist(),
            offline.column("churn_probability").to_pylist(),
            strict=True,
        )
    )
    modelled = dbt_model.model(None, session).read_all()
    found = dict(
        zip(
            modelled.column("input_hash").to_pylist(),
            modelled.column("churn_probability").to_pylist(),
            strict=True,
        )
    )
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(found) == NUM_ROWS
    features = ", ".join(snapshot.feature_names)
    called = session.execute(
        f"select input_hash, churn_score(behavior_text, review_text_recent, [{features}]) "
        "from examples"
    ).fetchall()
    assert dict(called) == pytest.approx(expected, abs=1e-6)
    assert np.ptp(list(expected.values())) > 0.1

    scores = pa.table({"input_hash": list(found), "churn_probability": list(found.values())})
    session.register("scores", scores)
    session.execute(
        "create table churn_scores as select user_id, cutoff_date, input_hash, "
        f"churn_probability, '{bundle.bundle_id}' as bundle_id "
        "from examples inner join scores using (input_hash)"
    )
    stand_in = cast(Warehouse, StandIn(champion, session))
    report = compare_with_warehouse(stand_in, champion.workspace.models_dir, device="cpu")
    assert report.num_rows == NUM_ROWS
    assert max(report.table_difference, report.function_difference) <= 1e-6


def test_the_bundle_says_which_members_score(champion: Trained) -> None:
    bundle = open_champion(champion.workspace.models_dir)
    ensemble = read_ensemble(bundle.directory)
    training = bundle.manifest.training
    assert training["ensemble"] == ensemble.kind == champion.outcome.metrics["model"]
    assert training["weights"] == dict(ensemble.weights)
    assert {"ensemble.json", "gbm.txt", "logistic.json"} <= set(bundle.manifest.files)
