"""Models at a URL score through every door as they do from a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from factories import input_batch, tiny_bundle
from score_example import FEATURES, examples, write
from scoring_world import scoring_context

from churn_udf.bundle_store import Bundle, open_champion
from churn_udf.cli import main
from churn_udf.cli.service import CurrentScorer, warmed
from churn_udf.registry import CHAMPION, move
from churn_udf.scoring import Scorer
from churn_udf.warehouse import (
    CONTEXT_VARIABLE,
    DEVICE_VARIABLE,
    MODELS_DIR_VARIABLE,
    champion_scorers,
    dbt_model,
)
from churn_udf.warehouse.champion_scorers import champion_scorer, forget_scorers
from churn_udf.warehouse.duckdb_plugin import Plugin
from churn_udf.warehouse.registry_models import models_registered, session_models_dir

URL = "memory://url-test/models"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bundle]:
    """A champion in memory."""
    monkeypatch.setenv("CHURN_CACHE_DIR", str(tmp_path / "cache"))
    forget_scorers()
    found = tiny_bundle(URL, FEATURES)  # type: ignore[arg-type]
    move(URL, found.bundle_id, CHAMPION, reason="test")
    yield found
    forget_scorers()
    fsspec.filesystem("memory").rm("/url-test", recursive=True)


def test_the_plugin_scores_with_the_champion_at_a_url(bundle: Bundle) -> None:
    plugin = Plugin("churn", {"models_dir": URL, "device": "cpu"})
    assert plugin.models_dir == URL
    inputs = pa.Table.from_batches([input_batch(20, FEATURES)])
    with duckdb.connect() as connection:
        plugin.configure_connection(connection)
        plugin.configure_cursor(connection)
        assert session_models_dir(connection) == URL
        assert models_registered(None, connection).column("stage").to_pylist() == ["champion"]
        connection.register("inputs", inputs)
        features = ", ".join(FEATURES)
        scores = connection.execute(
            f"select churn_score(behavior_text, review_text_recent, [{features}]) from inputs"
        ).fetchnumpy()
    expected = Scorer.load(bundle, device="cpu").score_batch(inputs.to_batches()[0])
    assert np.allclose(next(iter(scores.values())), expected.column("churn_probability"), atol=1e-6)


def test_a_folder_of_the_plugin_is_absolute_and_a_file_url_is_a_folder(tmp_path: Path) -> None:
    assert Plugin("churn", {"models_dir": "models"}).models_dir == Path("models").absolute()
    url = f"file://{tmp_path}/models"
    assert Plugin("churn", {"models_dir": url}).models_dir == tmp_path / "models"


def test_a_loaded_champion_is_kept_until_another_is_promoted(bundle: Bundle) -> None:
    loaded = champion_scorer(URL, device="cpu")
    assert champion_scorer(URL, device="cpu") is loaded
    other = tiny_bundle(URL, FEATURES, seed=1)  # type: ignore[arg-type]
    move(URL, other.bundle_id, CHAMPION, reason="test")
    assert champion_scorer(URL, device="cpu").bundle.bundle_id == other.bundle_id
    assert list(champion_scorers._scorers) == [(URL, "cpu")]


def test_churn_score_batch_takes_a_url_by_option_and_by_variable(
    bundle: Bundle, tmp_path: Path
) -> None:
    source = write(examples(50), tmp_path / "examples.parquet")
    for name, options, variables in (
        ("a.parquet", ["--models-dir", URL], {}),
        ("b.parquet", [], {"CHURN_MODELS_DIR": URL}),
        ("c.parquet", ["--models-dir", URL, "--bundle", bundle.bundle_id], {}),
    ):
        arguments = ["batch", "-i", str(source), "-o", str(tmp_path / name), *options]
        done = CliRunner().invoke(main, arguments, env=variables, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert set(pq.read_table(tmp_path / name).column("bundle_id").to_pylist()) == {
            bundle.bundle_id
        }


@pytest.mark.parametrize("option", ["--models-dir=", "--models-dir=FILE"])
def test_what_is_no_place_is_wrong_usage(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    argument = option.replace("FILE", str(tmp_path / "file"))
    done = CliRunner().invoke(main, ["batch", argument, "-i", "x", "-o", "y.parquet"])
    assert done.exit_code == 2
    assert "allowed: a folder, or a URL" in done.stderr


def test_a_place_that_cannot_be_opened_is_an_expected_failure() -> None:
    done = CliRunner().invoke(
        main, ["batch", "--models-dir", "nothing://x/y", "-i", "x", "-o", "y.parquet"]
    )
    assert done.exit_code == 1
    assert done.stderr.startswith("error: models_dir nothing://x/y: ")


def test_a_service_follows_the_champion_at_a_url(bundle: Bundle) -> None:
    logged: list[str] = []
    scorer = warmed(Scorer.load(open_champion(URL)))
    current = CurrentScorer(scorer, URL, Scorer.load, logged.append)
    current.refresh(URL)
    assert current.scorer is scorer
    other = tiny_bundle(URL, FEATURES, seed=1)  # type: ignore[arg-type]
    move(URL, other.bundle_id, CHAMPION, reason="test")
    current.refresh(URL)
    assert current.scorer.bundle.bundle_id == other.bundle_id
    assert logged == [f"champion {other.bundle_id} replaces {bundle.bundle_id}"]


def test_the_python_model_scores_with_the_champion_at_a_url(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(dbt_model, "dbt_logger", lambda: logged.append)
    with duckdb.connect(str(tmp_path / "test.duckdb")) as session:
        session.register("inputs", pa.Table.from_batches([input_batch(10, FEATURES)]))
        day = "date '2024-03-01'"
        session.execute(
            f"create table examples as select input_hash as user_id, {day} as cutoff_date, "
            "true as is_score_cutoff, * from inputs"
        )
        session.execute(
            f"create table cutoffs as select {day} as cutoff_date, true as is_score_cutoff, "
            "'h' as settings_hash"
        )
        context = scoring_context()
        variables = {
            MODELS_DIR_VARIABLE: URL,
            DEVICE_VARIABLE: "cpu",
            CONTEXT_VARIABLE: json.dumps(context),
        }
        for name, value in variables.items():
            session.execute(f"set variable {name} = ?", [value])
        scored: Any = dbt_model.model(None, session).read_all()
    assert scored.num_rows == 10
    assert set(scored.column("bundle_id").to_pylist()) == {bundle.bundle_id}
