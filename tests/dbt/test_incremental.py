"""A build recomputes exactly the cutoffs whose inputs changed, and no other row."""

from __future__ import annotations

import pytest

EXAMPLES = "+churn_examples"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
TABLES = [
    "int_users_joined_to_cutoffs",
    "int_activity_windowed_to_cutoffs",
    "int_gaps_windowed_to_cutoffs",
    "int_variety_windowed_to_cutoffs",
    "int_reviews_windowed_to_cutoffs",
    "int_features_windowed_to_cutoffs",
    "int_standings_serialized_to_text",
    "int_visits_serialized_to_text",
    "int_inputs_hashed",
]
CUTOFFS = ["2024-01-20", "2024-02-10"]
SCORE_CUTOFF = "2024-03-01"


def _events():
    rows = [
        {
            "user_id": user,
            "event_type": "purchase",
            "event_ts": f"2024-{month:02d}-{day:02d} 10:00:00",
            "amount": 10.0 * day,
            "item_id": f"i{day}",
            "category": "all",
            "review_text": "fine" if day == 2 else None,
        }
        for user in ("u1", "u2")
        for month in (1, 2)
        for day in (2, 5, 15, 25)
    ]
    return [*rows, {**rows[0], "user_id": "u3", "event_ts": "2024-03-01 10:00:00"}]


@pytest.fixture
def built_project(dbt_project):
    """A project whose stored rows carry a mark that recomputed rows do not have."""
    dbt_project.vars = {
        "churn__events_path": dbt_project.events_parquet(_events()),
        "churn__observation_days": 60,
        "churn__eligibility_days": 60,
        "churn__horizon_days": 10,
        "churn__training_cutoffs": CUTOFFS,
    }
    dbt_project.build(select=EXAMPLES, args=NO_TESTS)
    dbt_project.execute(
        *(f"update {table} set user_id = user_id || ' kept'" for table in TABLES),
    )
    return dbt_project


def _kept_cutoffs(project):
    """Per table: the cutoffs with marked rows, and those with new rows."""
    found = {}
    for table in TABLES:
        rows = project.query(
            f"select distinct cast(cutoff_date as varchar), user_id like '% kept' from {table}"
        )
        kept = sorted(cutoff for cutoff, is_kept in rows if is_kept)
        found[table] = (kept, sorted(cutoff for cutoff, is_kept in rows if not is_kept))
    return found


def _rebuild(project, rows=None, **settings):
    if rows is not None:
        project.vars["churn__events_path"] = project.events_parquet(rows)
    project.vars |= {f"churn__{name}": value for name, value in settings.items()}
    project.build(select=EXAMPLES, args=NO_TESTS)


def test_nothing_changed_rewrites_nothing(built_project):
    _rebuild(built_project)
    expected = ([*CUTOFFS, SCORE_CUTOFF], [])
    assert _kept_cutoffs(built_project) == dict.fromkeys(TABLES, expected)


@pytest.mark.parametrize(
    ("event_ts", "recomputed"),
    [
        ("2024-02-09 23:59:59", ["2024-02-10", SCORE_CUTOFF]),
        ("2024-02-10 00:00:00", [SCORE_CUTOFF]),
        ("2024-02-10 00:00:01", [SCORE_CUTOFF]),
    ],
)
def test_a_late_event_recomputes_the_cutoffs_that_see_it(built_project, event_ts, recomputed):
    late = {"user_id": "u1", "event_type": "purchase", "event_ts": event_ts, "amount": 1.0}
    _rebuild(built_project, [*_events(), late])
    kept = [cutoff for cutoff in [*CUTOFFS, SCORE_CUTOFF] if cutoff not in recomputed]
    assert _kept_cutoffs(built_project) == dict.fromkeys(TABLES, (kept, recomputed))


def test_a_deleted_event_recomputes_the_cutoffs_that_saw_it(built_project):
    rows = [row for row in _events() if row["event_ts"] != "2024-01-25 10:00:00"]
    _rebuild(built_project, rows)
    expected = ([CUTOFFS[0]], [CUTOFFS[1], SCORE_CUTOFF])
    assert _kept_cutoffs(built_project) == dict.fromkeys(TABLES, expected)


def test_cutoffs_that_left_the_spine_are_deleted(built_project):
    _rebuild(built_project, training_cutoffs=CUTOFFS[1:])
    expected = ([CUTOFFS[1], SCORE_CUTOFF], [])
    assert _kept_cutoffs(built_project) == dict.fromkeys(TABLES, expected)


def test_another_setting_recomputes_everything(built_project):
    _rebuild(built_project, observation_days=70)
    expected = ([], [*CUTOFFS, SCORE_CUTOFF])
    assert _kept_cutoffs(built_project) == dict.fromkeys(TABLES, expected)
