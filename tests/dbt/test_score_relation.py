"""The macro score_relation: each needed row is scored once, in full batches."""

from __future__ import annotations

import dataclasses

import duckdb
import numpy as np
import pytest
from factories import GROUPS, model_settings, tiny_bundle

from churn_udf.scoring import Scorer
from churn_udf.warehouse.duckdb_plugin import Plugin

ROWS = 130_000
"""More than a row group (122,880), the unit that DuckDB's threads share out."""
VECTOR = 2_048
NULL_EVERY = 1_000


@dataclasses.dataclass
class FakeOutput:
    logits: np.ndarray
    group_effects: np.ndarray


class CountingRunner:
    """Logit = first feature; remembers how many rows each call had, and which."""

    feature_groups = GROUPS

    def __init__(self, feature_names: tuple[str, ...]) -> None:
        self.feature_names = feature_names
        self.sizes: list[int] = []
        self.row_ids: list[float] = []

    def run(self, behavior_texts, review_texts, features, *, with_effects=True, tokens=None):
        self.sizes.append(len(features))
        self.row_ids.extend(features[:, 1])
        return FakeOutput(
            features[:, 0].copy(), np.zeros((len(features), len(GROUPS) * with_effects))
        )


@pytest.fixture(scope="module")
def score_relation(module_dbt_project):
    """A function that renders the macro as dbt does for a query of one's own."""
    project = module_dbt_project
    project.vars = {"churn__events_path": project.events_parquet([])}

    def render(arguments: str) -> str:
        inline = f"{{{{ churn_scoring.score_relation({arguments}) }}}}"
        result = project.succeed(["compile", "--inline", inline])
        return result.results[0].node.compiled_code

    return render


@pytest.fixture(scope="module")
def warehouse(module_dbt_project, tmp_path_factory):
    """A connection with the plugin's functions over a fake model, and rows to score."""
    names = module_dbt_project.succeed(
        ["compile", "--inline", "{{ churn_scoring.feature_columns() | join(',') }}"],
        vars={"churn__events_path": module_dbt_project.events_parquet([])},
    )
    features = tuple(names.results[0].node.compiled_code.split(","))
    bundle = tiny_bundle(tmp_path_factory.mktemp("models"), features, model_settings())
    with duckdb.connect() as connection:
        first, second, *others = features
        connection.execute(
            f"""
            create table rows as
            select
                range as row_id,
                range % 500 as kind,
                case when range % {NULL_EVERY} = 7 then null
                else repeat('visit ', (range % 5)::int + 1) end as behavior_text,
                null::varchar as review_text_recent,
                (range % 7) - 3.0 as {first},
                range::double as {second},
                {", ".join(f"null::double as {name}" for name in others)}
            from range({ROWS})
            """
        )
        connection.execute("create table few as select range * 1000 as row_id from range(130)")
        runner = CountingRunner(features)
        scorer = Scorer(bundle, runner)
        plugin = Plugin("churn", {"models_dir": str(bundle.directory.parent.parent)})
        plugin._scorer = lambda: scorer
        plugin.configure_connection(connection)
        yield connection, runner


@pytest.fixture(params=[1, 4], ids=["one thread", "four threads"])
def scored(request, warehouse):
    """A connection of so many threads, and the model behind it, which has seen no row yet."""
    connection, runner = warehouse
    runner.sizes.clear()
    runner.row_ids.clear()
    connection.execute(f"set threads = {request.param}")
    return connection, runner


def expected_score(row_id: int) -> float | None:
    if row_id % NULL_EVERY == 7:
        return None
    return pytest.approx(1 / (1 + np.exp(-((row_id % 7) - 3) / 1.5)))


def assert_scored_once(runner: CountingRunner, row_ids, *, spare_calls: int = 4) -> None:
    """Check that exactly these rows reached the model, in about as few calls as can be."""
    wanted = [row_id for row_id in row_ids if row_id % NULL_EVERY != 7]
    assert sorted(runner.row_ids) == sorted(wanted)
    assert len(runner.sizes) <= -(-len(wanted) // VECTOR) + spare_calls


def test_a_filter_below_gives_full_batches(scored, score_relation):
    cursor, runner = scored
    macro = score_relation("'rows', where='kind % 100 = 3', columns=['row_id']")
    rows = cursor.execute(f"select * from {macro} as scored order by row_id").fetchall()
    wanted = range(3, ROWS, 100)
    assert rows == [(row_id, expected_score(row_id)) for row_id in wanted]
    assert_scored_once(runner, wanted)


def test_a_filter_on_another_column_goes_below(scored, score_relation):
    cursor, runner = scored
    query = f"select row_id, churn_probability from {score_relation(repr('rows'))} as scored"
    rows = cursor.execute(f"{query} where kind = 3").fetchall()
    assert len(rows) == ROWS // 500
    assert_scored_once(runner, range(3, ROWS, 500))


def test_a_filter_on_the_score_and_further_uses_score_once(scored, score_relation):
    cursor, runner = scored
    macro = score_relation("'rows', columns=['row_id', 'kind']")
    rows = cursor.execute(
        f"""
        select kind, count(*), avg(churn_probability), max(churn_probability * 2)
        from {macro} as scored
        where churn_probability > 0.5 and churn_probability < 0.99
        group by kind
        having max(churn_probability) > 0.5
        order by kind
        """
    ).fetchall()
    above = [n for n in range(ROWS) if n % 7 > 3 and n % NULL_EVERY != 7]
    assert sum(row[1] for row in rows) == len(above)
    assert_scored_once(runner, range(ROWS))


def test_a_score_that_nobody_uses_is_not_computed(scored, score_relation):
    cursor, runner = scored
    macro = score_relation("'rows'")
    assert cursor.execute(f"select count(*) from {macro} as scored").fetchall() == [(ROWS,)]
    cursor.execute(f"select max(kind) from {macro} as scored where kind > 7").fetchall()
    assert runner.sizes == []


def test_joins_on_top_and_below(scored, score_relation):
    cursor, runner = scored
    below = score_relation("'(select rows.* from rows semi join few using (row_id))'")
    query = "select row_id, churn_probability from {} as scored join few using (row_id)"
    rows = cursor.execute(query.format(below) + " where churn_probability > 0.5").fetchall()
    assert sorted(rows) == [(n, expected_score(n)) for n in range(0, ROWS, 1000) if n % 7 > 3]
    assert_scored_once(runner, range(0, ROWS, 1000))
    on_top = score_relation("'rows', where='row_id < 50000'")
    runner.row_ids.clear()
    rows = cursor.execute(query.format(on_top)).fetchall()
    assert sorted(rows) == [(n, expected_score(n)) for n in range(0, 50_000, 1000)]
    assert_scored_once(runner, range(50_000), spare_calls=8)


def test_a_scored_relation_used_twice_is_scored_once_when_materialized(scored, score_relation):
    cursor, runner = scored
    macro = score_relation("'rows', where='kind < 50', columns=['row_id', 'kind']")
    rows = cursor.execute(
        f"""
        with scored as materialized (select * from {macro} as s)
        select count(*) from scored
        join scored as other on scored.row_id = other.row_id
            and scored.churn_probability = other.churn_probability
        where scored.churn_probability > 0.5
        """
    ).fetchall()
    wanted = [n for n in range(ROWS) if n % 500 < 50]
    assert rows == [(sum(n % 7 > 3 and n % NULL_EVERY != 7 for n in wanted),)]
    assert_scored_once(runner, wanted)


def test_null_text_is_a_null_score_and_no_rows_are_no_rows(scored, score_relation):
    cursor, runner = scored
    macro = score_relation("'rows', where='behavior_text is null', score_column='p'")
    rows = cursor.execute(f"select distinct p from {macro} as scored").fetchall()
    assert rows == [(None,)]
    macro = score_relation("'rows', where='false'")
    assert cursor.execute(f"select churn_probability from {macro} as scored").fetchall() == []
    assert runner.sizes == []


def test_a_row_that_cannot_be_scored_is_an_error_that_names_it(scored, score_relation):
    cursor, runner = scored
    name = runner.feature_names[2]
    macro = score_relation(f"\"(select * replace ('inf'::double as {name}) from rows limit 9)\"")
    with pytest.raises(duckdb.Error, match=name):
        cursor.execute(f"select sum(churn_probability) from {macro} as scored").fetchall()


@pytest.mark.parametrize("columns", ["[]", "'row_id'", "3"], ids=["empty", "text", "number"])
def test_wrong_columns_are_refused(module_dbt_project, columns, capsys):
    project = module_dbt_project
    inline = "{{ churn_scoring.score_relation('rows', columns=" + columns + ") }}"
    outcome = project.invoke(["compile", "--inline", inline])
    assert not outcome.success
    assert "allowed: a list of column names" in capsys.readouterr().out
