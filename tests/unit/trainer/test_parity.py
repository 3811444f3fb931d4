"""The three doors compared on a DuckDB table that stands in for the warehouse."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest
from champion import forget_champion
from training_example import Trained

from churn_udf.bundle_store import open_champion
from churn_udf.errors import BundleMismatchError, BundleNotFoundError
from churn_udf.scoring import Scorer
from churn_udf.warehouse.udf import make_churn_score
from trainer.data.warehouse import ChurnContext, Warehouse
from trainer.errors import ParityError
from trainer.release.parity import compare_with_warehouse


class StandIn:
    """What parity needs of a warehouse, over one connection."""

    def __init__(self, trained: Trained, connection: Any, **settings: object) -> None:
        snapshot = trained.snapshot
        self.connection = connection
        self.context = ChurnContext(
            settings={**snapshot.settings, **settings},
            relations={"churn_examples": "churn_examples", "churn_scores": "churn_scores"},
            features=snapshot.features,
            settings_hash="",
            document={},
        )

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        yield self.connection.cursor()

    stream = Warehouse.stream


@pytest.fixture
def connection(trained: Trained) -> Iterator[Any]:
    bundle = open_champion(trained.workspace.models_dir)
    scorer = Scorer.load(bundle, device="cpu")
    snapshot = trained.snapshot
    table = snapshot.table.slice(0, 50)
    scored = pa.Table.from_batches(list(scorer.score_batches(table.combine_chunks().to_batches())))
    with duckdb.connect() as session:
        session.register("rows", table)
        session.register("scored", scored)
        session.execute("create table churn_examples as from rows")
        session.execute(
            "create table churn_scores as select user_id, cutoff_date, input_hash, "
            f"churn_probability, '{bundle.bundle_id}' as bundle_id "
            "from rows inner join scored using (input_hash)"
        )
        session.create_function(
            "churn_score",
            make_churn_score(lambda: scorer),
            ["VARCHAR", "VARCHAR", "DOUBLE[]"],
            "DOUBLE",
            type="arrow",
            null_handling="special",
        )
        yield session
        session.remove_function("churn_score")


def compare(trained: Trained, connection: Any, **settings: object) -> Any:
    stand_in = cast(Warehouse, StandIn(trained, connection, **settings))
    return compare_with_warehouse(stand_in, trained.workspace.models_dir, device="cpu")


def test_three_doors_agree(trained: Trained, connection: Any) -> None:
    report = compare(trained, connection)
    assert report.num_rows == 50
    assert report.table_difference <= 1e-6
    assert report.function_difference <= 1e-6


@pytest.mark.parametrize("change", ["0.00002", "-0.00002"])
def test_one_row_that_differs_is_found(trained: Trained, connection: Any, change: str) -> None:
    connection.execute(
        f"update churn_scores set churn_probability = churn_probability + {change} "
        "where user_id = 'user_000007'"
    )
    with pytest.raises(ParityError, match=r"churn_scores 2\.00e-05"):
        compare(trained, connection)


def test_missing_score_counts_as_a_difference(trained: Trained, connection: Any) -> None:
    connection.execute("update churn_scores set churn_probability = null")
    with pytest.raises(ParityError, match="inf"):
        compare(trained, connection)


def test_table_without_the_champion_is_refused(trained: Trained, connection: Any) -> None:
    connection.execute("update churn_scores set bundle_id = 'other'")
    with pytest.raises(ParityError, match="run `dbt build` to score"):
        compare(trained, connection)


def test_other_windows_are_refused(trained: Trained, connection: Any) -> None:
    with pytest.raises(BundleMismatchError, match="horizon_days"):
        compare(trained, connection, horizon_days=7)


def test_no_champion_is_refused(trained: Trained, connection: Any) -> None:
    forget_champion(trained.workspace.models_dir)
    with pytest.raises(BundleNotFoundError, match="churn-train run"):
        compare(trained, connection)
