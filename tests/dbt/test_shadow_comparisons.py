"""churn_shadow_comparisons and churn_shadow_movers against scipy and numpy, ties and all."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

MARTS = "churn_shadow_comparisons churn_shadow_movers"
TESTS = "assert_shadow_movers_add_up_to_comparisons"
CUTOFF = datetime.date(2024, 3, 1)
OLDER = datetime.date(2024, 2, 1)
CHAMPION = "champion"


def cases():
    """Shadow to (N,) probabilities of shadow and champion."""
    generator = np.random.default_rng(3)
    found = {}
    for number in range(20):
        size = int(generator.integers(2, 300))
        base = generator.beta(1.0, 3.0, size)
        other = np.clip(base + generator.normal(0, generator.choice([0.0, 0.05, 0.5]), size), 0, 1)
        levels = generator.choice([0, 3, 20])
        if levels:
            base, other = np.round(base * levels) / levels, np.round(other * levels) / levels
        found[f"random {number}"] = (other, base)
    found["one user"] = (np.array([0.2]), np.array([0.7]))
    found["two users"] = (np.array([0.2, 0.3]), np.array([0.7, 0.1]))
    found["one value"] = (np.full(20, 0.3), generator.random(20))
    found["both one value"] = (np.full(20, 0.3), np.full(20, 0.4))
    ranks = np.arange(1000) / 1000
    found["the same order"] = (ranks**3, ranks)
    found["backwards"] = (1 - ranks, ranks)
    found["100,000 users, ties"] = (
        np.round(generator.random(100_000), 3),
        np.round(generator.random(100_000), 2),
    )
    return found


def tier(probabilities):
    return np.where(probabilities >= 0.5, "high", "low")


def scores_of(name: str, number: int, probabilities, cutoff=CUTOFF) -> pa.Table:
    """Rows of churn_scores; each case has users of its own."""
    size = probabilities.size
    users = [f"{number}-{user}" for user in range(size)]
    return pa.table(
        {
            "user_id": users,
            "bundle_id": pa.repeat(name, size),
            "input_hash": users,
            "risk_tier": tier(probabilities),
            "churn_probability": probabilities,
            "is_flagged": probabilities >= 0.8,
            "cutoff_date": pa.repeat(pa.scalar(cutoff), size),
        }
    )


@pytest.fixture(scope="module")
def project(module_dbt_project):
    """The marts over all cases at once: their champions score at one cutoff, each its users."""
    project = module_dbt_project
    tables = []
    for number, (name, (shadow, champion)) in enumerate(cases().items()):
        tables += [scores_of(name, number, shadow), scores_of(CHAMPION, number, champion)]
    lone = np.array([0.1, 0.9])
    tables.append(scores_of("older", 0, lone, OLDER))
    tables.append(scores_of(CHAMPION, 0, lone[::-1], OLDER))
    restated = scores_of("older", 1, lone, OLDER)
    tables.append(restated)
    changed = pa.array(["x", "y"])
    tables.append(scores_of(CHAMPION, 1, lone, OLDER).set_column(2, "input_hash", changed))
    tables.append(scores_of("not a shadow", 0, lone))
    table = pa.concat_tables(tables)
    project.load("churn_scores", table.take(np.random.default_rng(1).permutation(table.num_rows)))
    shadows = [(name, CUTOFF) for name in cases()] + [("older", OLDER)]
    project.load(
        "int_shadows_noted",
        pa.table(
            {
                "cutoff_date": [cutoff for _, cutoff in shadows],
                "bundle_id": [name for name, _ in shadows],
                "champion_bundle_id": [CHAMPION] * len(shadows),
            }
        ),
    )
    champions = {"cutoff_date": [OLDER, CUTOFF], "bundle_id": [CHAMPION, CHAMPION]}
    project.load("churn_champions", pa.table(champions))
    project.vars = {"churn__events_path": "none.parquet"}
    project.run(select=MARTS)
    return project


def test_every_number_is_scipys_and_numpys(project):
    rows = project.table("select * from churn_shadow_comparisons").to_pylist()
    rows = {row["bundle_id"]: row for row in rows if row["cutoff_date"] == CUTOFF}
    assert rows.keys() == cases().keys()
    for name, (shadow, champion) in cases().items():
        row = rows[name]
        expected = None
        if np.unique(shadow).size > 1 and np.unique(champion).size > 1:
            expected = pytest.approx(stats.spearmanr(shadow, champion)[0], abs=1e-9)
        assert row["rank_correlation"] == expected, name
        flips = int((tier(shadow) != tier(champion)).sum())
        assert row["tier_flip_count"] == flips, name
        assert row["tier_flip_share"] == flips / shadow.size
        assert row["flag_flip_count"] == ((shadow >= 0.8) != (champion >= 0.8)).sum()
        assert row["user_count"] == shadow.size
        assert row["mean_probability"] == pytest.approx(shadow.mean(), abs=1e-12)
        assert row["champion_mean_probability"] == pytest.approx(champion.mean(), abs=1e-12)
        change = pytest.approx(np.abs(shadow - champion).mean(), abs=1e-12)
        assert row["mean_absolute_change"] == change
    assert rows["the same order"]["rank_correlation"] == 1.0
    assert rows["backwards"]["rank_correlation"] == -1.0


def test_users_are_ranked_by_change_at_the_newest_cutoff(project):
    rows = project.table("select * from churn_shadow_movers order by change_rank").to_pylist()
    assert {row["bundle_id"] for row in rows} == cases().keys()
    for name, (shadow, champion) in cases().items():
        movers = [row for row in rows if row["bundle_id"] == name]
        assert [row["change_rank"] for row in movers] == [*range(1, shadow.size + 1)]
        changes = [abs(row["probability_change"]) for row in movers]
        assert changes == sorted(np.abs(shadow - champion), reverse=True)
        ties = [(-change, row["user_id"]) for change, row in zip(changes, movers, strict=True)]
        assert ties == sorted(ties)


def test_other_inputs_are_not_compared_and_older_cutoffs_stay(project):
    rows = project.query(
        "select bundle_id, user_count, rank_correlation from churn_shadow_comparisons "
        f"where cutoff_date = '{OLDER}'"
    )
    assert rows == [("older", 2, -1.0)]


def test_movers_add_up_to_comparisons_and_another_order_changes_no_digit(project):
    project.test(select=TESTS)
    before = [project.query(f"select * from {table} order by all") for table in MARTS.split()]
    project.execute("create or replace table churn_scores as from churn_scores order by all desc")
    project.run(select=MARTS)
    after = [project.query(f"select * from {table} order by all") for table in MARTS.split()]
    assert after == before
