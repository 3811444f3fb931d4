"""What the report reads: from tables that may be missing, empty or of another release."""

import datetime
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.health_example import (
    CHAMPION,
    CUTOFFS,
    OLD,
    RELATIONS,
    SETTINGS,
    SHADOW,
    health_tables,
    make_warehouse,
)
from tests.health_schemas import SCHEMAS
from trainer.health_report import health_facts, read_health
from trainer.health_report.charts import wilson
from trainer.health_report.outcomes import auroc_error
from trainer.health_report.queries import TABLES
from trainer.health_report.tables import as_of
from trainer.runs import to_json

SECTIONS = {
    "churn_model_performance": "outcomes",
    "churn_base_rate_changes": "base_rates",
    "churn_score_drift": "drift",
    "churn_event_volumes": "volumes",
    "churn_score_movers": "movers",
    "churn_shadow_comparisons": "shadows",
    "churn_models": "models",
    "churn_scores_current": "scores",
}


@pytest.fixture(scope="module")
def warehouse():
    return make_warehouse()


@pytest.fixture(scope="module")
def facts(warehouse):
    return health_facts(health_tables(warehouse))


def test_every_table_of_the_example_is_one_that_the_report_knows():
    assert set(TABLES) == set(SCHEMAS)
    for table, (required, optional) in TABLES.items():
        columns = {part.split()[0] for part in SCHEMAS[table].split(", ")}
        assert {*required, *optional} <= columns | {"stage_since", "created_at"}, table


def test_each_cutoff_is_judged_by_who_was_in_service_then(facts):
    rows = facts["outcomes"]["rows"]
    assert [row["cutoff_date"] for row in rows] == CUTOFFS[:10]
    assert [row["bundle_id"] for row in rows] == [OLD] * 7 + [CHAMPION] * 3
    assert facts["outcomes"]["champion_changes"] == [
        {"cutoff_date": CUTOFFS[7], "bundle_id": CHAMPION}
    ]


def test_the_bins_are_those_of_the_newest_cutoff(facts):
    newest = facts["outcomes"]["newest"]
    assert {row["cutoff_date"] for row in facts["outcomes"]["bins"]} == {newest["cutoff_date"]}
    assert [row["bin_number"] for row in facts["outcomes"]["bins"]] == list(range(1, 11))


def test_late_labels_are_counted(facts):
    (late,) = facts["outcomes"]["late_labels"]
    assert (late["changed_count"], late["other_count"], late["user_count"]) == (5, 5, 40)


def test_tier_matrix_counts_everybody_who_moved(facts, warehouse):
    matrix = facts["movers"]["tiers"]
    assert matrix["names"] == ["high", "medium", "low"]
    assert sum(map(sum, matrix["rows"])) == facts["movers"]["user_count"]
    apart = matrix["up_count"] + matrix["down_count"]
    assert apart == sum(map(sum, matrix["rows"])) - sum(matrix["rows"][i][i] for i in range(3))
    (riskier,) = warehouse.execute(
        "select count(*) from churn_scores as n inner join churn_scores as o using (user_id, "
        f"bundle_id) where bundle_id = '{CHAMPION}' and n.cutoff_date > o.cutoff_date "
        "and (o.risk_tier, n.risk_tier) in (('low', 'medium'), ('low', 'high'), ('medium', 'high'))"
    ).fetchone()
    assert matrix["up_count"] == riskier


def test_causes_add_up(facts):
    movers = facts["movers"]
    assert sum(row["user_count"] for row in movers["causes"]) == movers["user_count"]
    assert movers["up_count"] + movers["down_count"] == movers["user_count"]
    assert [row["change_rank"] for row in movers["movers"]] == list(range(1, 21))


def test_no_user_is_read_when_none_is_wanted(warehouse):
    tables = health_tables(warehouse, users=0)
    facts = health_facts(tables)
    assert facts["movers"]["movers"] == []
    assert not facts["movers"]["are_users_told"]
    assert facts["movers"]["user_count"] > 0
    assert "customer-" not in json.dumps(facts, default=str)
    assert "customer-" not in str(tables)


def test_scores_are_those_of_now_and_of_the_cutoff_before(facts):
    scores = facts["scores"]
    assert sum(one["user_count"] for one in scores["bins"]) == scores["user_count"] == 400
    assert sum(one["share"] for one in scores["previous_bins"]) == pytest.approx(1.0, abs=1e-12)
    assert scores["previous_cutoff_date"] == CUTOFFS[-2]
    assert [row["risk_tier"] for row in scores["tiers"]] == ["high", "medium", "low"]


def test_shadows_are_told_at_their_newest_cutoff(facts):
    (row,) = facts["shadows"]["rows"]
    assert (row["bundle_id"], row["cutoff_count"]) == (SHADOW, 3)
    assert row["performance"]["cutoff_date"] == CUTOFFS[9]


def test_facts_are_json(facts):
    assert json.loads(to_json(facts))["verdict"]["level"] == "healthy"


@pytest.mark.parametrize(("table", "section"), SECTIONS.items())
@pytest.mark.parametrize("how", ["dropped", "emptied", "old", "unknown"])
def test_any_table_may_be_missing(table, section, how):
    connection, relations = make_warehouse(), dict(RELATIONS)
    if how == "dropped":
        connection.execute(f"drop table {table}")
    elif how == "emptied":
        connection.execute(f"delete from {table}")
    elif how == "old":
        column = TABLES[table][0][-1]
        connection.execute(f'alter table {table} drop column "{column}"')
    else:
        del relations[table]
    facts = health_facts(health_tables(connection, relations=relations))
    told = facts[section]["absence"]
    assert told["text"]
    named = {"dropped": "not been built", "old": "another release", "unknown": "another release"}
    assert named.get(how, "") in told["text"]
    if how != "emptied":
        assert table in told["text"]
        assert told["run"] == "dbt build"


@pytest.mark.parametrize("table", TABLES)
def test_columns_that_are_not_needed_may_be_missing(table):
    connection = make_warehouse()
    for column in TABLES[table][1]:
        connection.execute(f'alter table {table} drop column if exists "{column}"')
    facts = health_facts(health_tables(connection))
    assert facts["tables"][table] == "read"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("2026-03-31 06:00:00", datetime.datetime(2026, 3, 31, 6, tzinfo=datetime.timezone.utc)),
        ("2026-03-31T06:00:00Z", datetime.datetime(2026, 3, 31, 6, tzinfo=datetime.timezone.utc)),
    ],
)
def test_the_clock_is_that_of_the_vars(stated, expected):
    assert as_of(stated) == expected


@pytest.mark.parametrize("stated", [None, "now"])
def test_the_clock_is_now_where_nothing_else_is_said(stated):
    apart = datetime.datetime.now(datetime.timezone.utc) - as_of(stated)
    assert abs(apart) < datetime.timedelta(minutes=1)


def test_the_error_of_an_auroc_is_that_of_samples():
    rng = np.random.default_rng(1)
    labels = np.repeat([1, 0], [100, 300])
    samples = [
        roc_auc_score(labels, rng.exponential(np.where(labels == 1, 3.0, 1.0))) for _ in range(600)
    ]  # exponential scores are what the formula assumes
    assert auroc_error(0.75, 100, 300) == pytest.approx(np.std(samples), rel=0.1)


def test_wilson_interval_is_that_of_scipy():
    from scipy.stats import binomtest

    for hits, total in ((0, 9), (3, 10), (50, 50)):
        interval = binomtest(hits, total).proportion_ci(0.95, method="wilson")
        assert wilson(hits / total, total) == pytest.approx(tuple(interval), abs=1e-12)


class OneWarehouse:
    """Stands in for a warehouse: one connection, counted."""

    def __init__(self, connection):
        self.connection, self.opened = connection, 0
        features = [type("Feature", (), {"name": "amount_30d", "description": "Money."})]
        document = {"project": "shop", "target": {"name": "dev"}, "secret": 1}
        fields = {"relations": RELATIONS, "settings": SETTINGS, "features": features,
                  "document": document}  # fmt: skip
        self.context = type("Context", (), fields)

    def cursor(self):
        import contextlib

        self.opened += 1
        return contextlib.nullcontext(self.connection)


def test_the_warehouse_is_opened_once_and_not_changed(tmp_path):
    path = tmp_path / "w.duckdb"
    connection = make_warehouse(path)
    connection.execute("checkpoint")
    before = path.read_bytes()
    stand_in = OneWarehouse(connection)
    tables = read_health(stand_in, tmp_path / "models")
    connection.close()
    assert stand_in.opened == 1
    assert path.read_bytes() == before
    assert tables.registry_champion_id is None
    assert tables.registry_problem is None
    assert tables.source == {"project": "shop", "target": {"name": "dev"}}
    assert tables.descriptions == {"amount_30d": "Money."}
