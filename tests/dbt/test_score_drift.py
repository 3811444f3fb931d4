"""churn_score_drift and churn_base_rate_changes against scipy, numpy and pandas."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pyarrow as pa
import pytest
from drift_example import (
    CUTOFF,
    MARTS,
    DriftTables,
    feature_names,
    make_reference,
    points_of,
    psi_of,
)

from churn_udf.contracts.reference import OTHER_TOKEN, TokenCounts, stratum_of
from trainer.release.reference import base_rates_of, row_words

CHAMPION, SHADOW, SILENT = "champion", "shadow", "without reference"
NUM_USERS = 300


def kinds_of_values(generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of reference and current values, with everything that can go wrong."""
    normal = generator.normal
    nothing = np.full(NUM_USERS, np.nan)
    some = np.where(generator.random(NUM_USERS) < 0.4, np.nan, normal(size=NUM_USERS))
    infinite = normal(size=NUM_USERS)
    infinite[:7] = [np.inf, -np.inf, np.nan, np.inf, 0.0, -0.0, 1e300]
    return [
        (normal(size=1_000), normal(size=NUM_USERS)),
        (normal(size=5_000), normal(0.7, 2.0, NUM_USERS)),
        (generator.poisson(1.0, 900) * 1.0, generator.poisson(1.5, NUM_USERS) * 1.0),
        (np.maximum(normal(size=3_000), 0.0), np.maximum(normal(size=NUM_USERS), 0.0)),
        (normal(size=500), some),
        (normal(size=500), nothing),
        (np.full(500, np.nan), normal(size=NUM_USERS)),
        (np.full(500, np.nan), nothing),
        (np.full(500, 3.0), np.full(NUM_USERS, 3.0)),
        (np.full(500, 3.0), np.full(NUM_USERS, 4.0)),
        (normal(size=500), infinite),
        (generator.lognormal(0, 3, 4_000) * 1e6, generator.lognormal(0, 3, NUM_USERS) * 1e6),
        (np.where(generator.random(700) < 0.95, 0.0, 1.0), nothing * 0.0 + 0.0),
        (normal(size=3), normal(size=NUM_USERS)),
    ]


@pytest.fixture(scope="module")
def cases(module_dbt_project):
    """Feature to (reference, current) for two bundles, in one build."""
    names = feature_names(module_dbt_project)
    generator = np.random.default_rng(3)
    found = {}
    for name in names:
        kinds = kinds_of_values(generator)
        found[name] = kinds[len(found) % len(kinds)]
    return found


WORDS = ("known", "milk", "caf\u00e9", "45", "\u05dc\u05d7\u05dd", "never")
TEXTS = [
    ("known 45 milk milk", "great! would buy \u2014 AGAIN"),
    ("known 240 caf\u00e9 4.5", None),
    ("\u05dc\u05d7\u05dd known  milk", "milk\u2615bread, \u0130stanbul"),
    ("", None),
]


@pytest.fixture(scope="module")
def tables(module_dbt_project, cases):
    tables = DriftTables(module_dbt_project, list(cases))
    generator = np.random.default_rng(4)
    reference = {name: pair[0] for name, pair in cases.items()}
    current = {name: pair[1] for name, pair in cases.items()}
    tokens = TokenCounts(
        row_count=900, user_count=300, words=WORDS, counts=(900, 400, 3, 90, 1, 300), other_count=7
    )
    score = generator.beta(2, 5, 800)
    tables.references = {
        CHAMPION: make_reference(reference, score=score, tokens=tokens),
        SHADOW: make_reference(dict(zip(reference, reversed(reference.values()), strict=True))),
    }
    drawn = {name: generator.beta(2, 4, NUM_USERS) for name in (CHAMPION, SHADOW, SILENT)}
    texts = [TEXTS[number % len(TEXTS)] for number in range(NUM_USERS)]
    tables.add_users(current, drawn, texts)
    tables.drawn = drawn
    tables.run()
    return tables


def near(value, relative: float = 1e-9):
    return None if value is None else pytest.approx(value, abs=1e-9, rel=relative)


def test_measures_of_features_and_scores_are_those_of_scipy(tables, cases):
    from scipy import stats

    found = tables.drift()
    compared = 0
    for bundle, reference in tables.references.items():
        current = {("feature", name): pair[1] for name, pair in cases.items()}
        current["score", "churn_probability"] = tables.drawn[bundle]
        for (kind, name), values in current.items():
            row = found[bundle, kind, name]
            points = points_of(reference, name)
            known = values[np.isfinite(values)]
            assert row["population_stability_index"] == near(psi_of(points, values)), name
            assert row["current_count"] == NUM_USERS
            assert row["current_known_count"] == known.size
            assert row["reference_count"] == points.row_count
            assert row["current_mean"] == near(known.mean() if known.size else None)
            assert row["reference_mean"] == near(points.mean)
            if not known.size or not points.known_count:
                assert row["kolmogorov_smirnov"] is None
                assert row["wasserstein_distance"] is None
                continue
            repeated = np.repeat(points.point_values, points.point_counts)
            distance = stats.ks_2samp(known, repeated, method="asymp").statistic
            assert row["kolmogorov_smirnov"] == near(distance), name
            area = stats.wasserstein_distance(
                known, points.point_values, v_weights=points.point_counts
            )
            assert row["wasserstein_distance"] == near(area), name
            compared += 1
    assert compared > 100


def test_a_bundle_without_a_reference_has_no_drift(tables):
    assert {bundle for bundle, _, _ in tables.drift()} == {CHAMPION, SHADOW}


def test_words_are_counted_as_the_trainer_counts_them(tables):
    found = {key[2]: row for key, row in tables.drift().items() if key[:2] == (CHAMPION, "token")}
    assert set(found) == {*WORDS, OTHER_TOKEN}
    behavior = pa.array([TEXTS[number % 4][0] for number in range(NUM_USERS)])
    review = pa.array([TEXTS[number % 4][1] or "" for number in range(NUM_USERS)])
    rows, words = row_words(behavior, review)
    pairs = set(zip(rows.tolist(), words.to_pylist(), strict=True))
    listed = tables.references[CHAMPION].tokens
    counts = dict(zip(listed.words, listed.counts, strict=True)) | {OTHER_TOKEN: 7}
    for word, before in counts.items():
        now = (
            sum(1 for _, one in pairs if one == word)
            if word != OTHER_TOKEN
            else len({row for row, one in pairs if one not in WORDS})
        )
        row = found[word]
        assert row["current_mean"] == near(now / NUM_USERS), word
        assert row["reference_mean"] == near(before / 900)
        difference = near(abs(now / NUM_USERS - before / 900))
        assert row["kolmogorov_smirnov"] == difference
        assert row["wasserstein_distance"] == difference
        shares = [((n + 0.5) / (NUM_USERS + 1), (b + 0.5) / 901)
                  for n, b in ((now, before), (NUM_USERS - now, 900 - before))]  # fmt: skip
        expected = math.fsum((p - q) * math.log(p / q) for p, q in shares)
        assert row["population_stability_index"] == near(expected)


def stored(project):
    return [project.query(f"select * from {mart} order by all") for mart in MARTS]


@pytest.fixture
def own_tables(dbt_project):
    """One cutoff whose users are those that a small reference was made of."""
    names = feature_names(dbt_project)
    tables = DriftTables(dbt_project, names)
    generator = np.random.default_rng(5)
    amounts = generator.gamma(2, 20, 2_000)
    tables.references = {CHAMPION: make_reference({"amount_30d": amounts})}
    tables.add_users(
        {"amount_30d": generator.gamma(2, 20, NUM_USERS)}, {CHAMPION: np.full(NUM_USERS, 0.5)}
    )
    return tables


def test_history_stays_and_only_what_changed_is_measured_again(own_tables):
    tables, project = own_tables, own_tables.project
    references, tables.references = tables.references, {}
    tables.run()
    assert stored(project) == [[], []], "no bundle, no drift"
    tables.references = references

    measured = "select rowid, * from churn_drift_measures order by all"
    tables.run()
    first, before = stored(project), project.query(measured)
    assert all(first)
    tables.run()
    assert stored(project) == first
    assert project.query(measured) == before, "an unchanged build rewrites nothing"

    tables.score_cutoffs = [CUTOFF + datetime.timedelta(days=7)]
    later = {"amount_30d": 4 * np.random.default_rng(6).gamma(2, 20, NUM_USERS)}
    tables.add_users(later, {CHAMPION: np.full(NUM_USERS, 0.25)}, cutoff=tables.score_cutoffs[0])
    tables.run()
    assert tables.drift()[CHAMPION, "feature", "amount_30d"]["severity"] == "error"
    old = f"select * from churn_score_drift where cutoff_date = '{CUTOFF}' order by all"
    assert project.query(old) == first[0]

    tables.scores = [row for row in tables.scores if row["user_id"] != "u00000"]
    tables.run()
    newest = tables.drift()[CHAMPION, "score", "churn_probability"]
    assert newest["current_count"] == NUM_USERS - 1
    assert project.query(old) == first[0], "of a cutoff that is no longer scored"

    kept = stored(project)
    tables.references = {}
    tables.run(args=["--full-refresh"])
    assert stored(project) == kept, "what was measured outlives the bundle and a full refresh"
    number = project.query("select count(*) from churn_drift_measures")
    tables.run(args=["--empty"])
    assert project.query("select count(*) from churn_drift_measures") == number


def test_severity_needs_size_certainty_and_full_windows(own_tables):
    tables = own_tables
    base, moved = np.linspace(0, 1, 2_000), np.linspace(0, 1, NUM_USERS) + 0.2
    tables.references = {
        "same": make_reference({"amount_90d": base + 0.2}, num_users=2_000),
        "moved": make_reference({"amount_90d": base}, num_users=2_000),
        "few users": make_reference({"amount_90d": base}, num_users=12),
        "day 89": make_reference({"amount_90d": base}, first_cutoff="2020-03-30"),
        "day 90": make_reference({"amount_90d": base}, first_cutoff="2020-03-31"),
    }
    earlier = CUTOFF - datetime.timedelta(days=7)
    tables.score_cutoffs = [CUTOFF, earlier]
    tables.clear()
    half = {bundle: np.full(NUM_USERS, 0.5) for bundle in tables.references}
    tables.add_users({"amount_90d": moved}, half)
    tables.add_users({"amount_90d": moved[::25]}, {"moved": np.full(12, 0.5)}, cutoff=earlier)
    tables.run()
    rows = {key[0]: row for key, row in tables.drift().items() if key[2] == "amount_90d"}
    assert {bundle: row["severity"] for bundle, row in rows.items()} == {
        "same": "ok",
        "moved": "error",
        "few users": "ok",
        "day 89": "ok",
        "day 90": "error",
    }
    assert [bundle for bundle, row in rows.items() if row["is_window_filling"]] == ["day 89"]
    assert rows["moved"]["deciding_value"] > rows["moved"]["deciding_limit"] == 0.25
    small = tables.drift(earlier)["moved", "feature", "amount_90d"]
    assert small["severity"] == "ok", "twelve users differ that much by chance"
    assert small["deciding_limit"] > rows["moved"]["deciding_limit"]


def test_less_than_eight_users_with_a_known_value_are_no_alarm(own_tables):
    tables = own_tables
    learned = np.full(40_000, np.nan)
    learned[:1_000] = np.where(np.arange(1_000) < 200, 1.0, 5.0)
    counts = {"rating_last": 7, "gap_mean_days": 8}
    tables.references = {
        CHAMPION: make_reference(dict.fromkeys(counts, learned), num_users=len(learned))
    }
    tables.clear()
    values = {name: np.full(NUM_USERS, np.nan) for name in counts}
    for name, count in counts.items():
        values[name][:count] = 1.0
    tables.add_users(values, {CHAMPION: np.full(NUM_USERS, 0.5)})
    tables.run()
    found = {name: tables.drift()[CHAMPION, "feature", name] for name in counts}
    assert found["rating_last"]["severity"] == "ok", "seven of 300: chance can do that"
    assert found["rating_last"]["relative_wasserstein"] == pytest.approx(2.0)
    assert found["gap_mean_days"]["severity"] == "error"
    assert found["gap_mean_days"]["deciding_metric"] == "wasserstein_distance"


def test_thresholds_come_from_the_seed_and_the_most_specific_wins(own_tables):
    tables, project = own_tables, own_tables.project
    base, moved = np.linspace(0, 1, 2_000), np.linspace(0, 1, NUM_USERS) + 0.2
    names = ["order_count_90d", "amount_30d", "amount_90d", "view_count_30d", "view_count_90d"]
    tables.references = {CHAMPION: make_reference(dict.fromkeys(names, base), num_users=2_000)}
    tables.clear()
    tables.add_users(dict.fromkeys(names, moved), {CHAMPION: np.full(NUM_USERS, 0.5)})
    tables.run()
    drift = tables.drift()
    value = drift[CHAMPION, "feature", "amount_90d"]["kolmogorov_smirnov"]
    psi = drift[CHAMPION, "feature", "amount_90d"]["population_stability_index"]
    rows = [
        ("%", "kolmogorov_smirnov", 0.01, 0.02),
        ("%", "population_stability_index", 0.01, 0.02),
        ("amount%", "kolmogorov_smirnov", 90, 91),
        ("amount%", "population_stability_index", 90, 91),
        ("amount_90d", "kolmogorov_smirnov", value - 1e-9, value),
        ("view_count_30d", "kolmogorov_smirnov", value, value),
        ("view_count_30d", "population_stability_index", psi + 1e-9, psi + 1e-9),
        ("view_count_90d", "kolmogorov_smirnov", 0.01, None),
        ("view_count_90d", "population_stability_index", None, None),
    ]
    project.execute("delete from churn_drift_thresholds")
    for subject, metric, warn, error in rows:
        values = ", ".join("null" if one is None else str(one) for one in (warn, error))
        project.execute(
            "insert into churn_drift_thresholds values "
            f"('feature', '{subject}', '{metric}', {values})"
        )
    project.run(select="churn_score_drift")
    found = {key[2]: row for key, row in tables.drift().items()}
    assert {name: found[name]["severity"] for name in names} == {
        "order_count_90d": "error",
        "amount_30d": "ok",
        "amount_90d": "warn",
        "view_count_30d": "ok",
        "view_count_90d": "warn",
    }
    assert found["amount_90d"]["deciding_metric"] == "kolmogorov_smirnov"
    assert found["amount_90d"]["deciding_limit"] == pytest.approx(value, abs=1e-8)
    assert found["churn_probability"]["deciding_metric"] is None, "no row of the seed is for it"
    assert found["churn_probability"]["severity"] == "ok"


def test_a_change_of_the_base_rate_is_split_as_pandas_splits_it(own_tables):
    pandas = pytest.importorskip("pandas")
    tables = own_tables
    generator = np.random.default_rng(8)
    names = ["days_since_active", "active_day_count_90d", "tenure_days"]
    past = np.column_stack(
        [
            generator.geometric(0.1, 5_000),
            generator.poisson(4, 5_000),
            generator.uniform(1, 90, 5_000),
        ]
    ).astype(float)
    past[:200, 1] = np.nan
    labels = (generator.random(5_000) < past[:, 0] / 40).astype(float)
    rates = base_rates_of(names, past, labels)
    now = np.column_stack(
        [generator.geometric(0.2, NUM_USERS), generator.poisson(6, NUM_USERS),
         generator.uniform(1, 90, NUM_USERS)]
    ).astype(float)  # fmt: skip
    now[0, 2] = np.inf
    probabilities = generator.beta(2, 5, NUM_USERS)
    tables.clear()
    tables.references = {CHAMPION: make_reference({}, base_rates=rates)}
    tables.add_users(dict(zip(names, now.T, strict=True)), {CHAMPION: probabilities})
    tables.run()
    (row,) = tables.project.table("select * from churn_base_rate_changes").to_pylist()
    assert row["observed_base_rate"] is None
    assert row["unexplained_change"] is None

    def strata(values):
        frame = pandas.DataFrame(values, columns=names)
        bands = {
            name: [
                -1 if not np.isfinite(value) else sum(value > bound for bound in bounds)
                for value in frame[name]
            ]
            for name, bounds in zip(names, rates.band_bounds, strict=True)
        }
        return pandas.Series(map(stratum_of, zip(*bands.values(), strict=True)))

    by_stratum = pandas.Series(labels).groupby(strata(past)).mean()
    explained = strata(now).map(by_stratum).fillna(labels.mean()).mean() - labels.mean()
    assert row["user_count"] == NUM_USERS
    assert row["unfamiliar_user_count"] == strata(now).map(by_stratum).isna().sum() > 0
    assert row["reference_base_rate"] == near(labels.mean())
    assert row["expected_base_rate"] == near(probabilities.mean())
    assert row["explained_change"] == near(explained)
    assert abs(explained) > 0.05

    tables.performance = [{"bundle_id": CHAMPION, "cutoff_date": CUTOFF, "base_rate": 0.125}]
    tables.run()
    (row,) = tables.project.table("select * from churn_base_rate_changes").to_pylist()
    assert row["observed_base_rate"] == 0.125
    total = row["explained_change"] + row["unexplained_change"]
    assert total == near(0.125 - labels.mean())


def test_drift_warns_or_fails_as_the_team_chose(own_tables):
    tables, project = own_tables, own_tables.project
    tables.references[SHADOW] = make_reference({"amount_30d": np.linspace(900, 990, 500)})
    tables.scores += [{**row, "bundle_id": SHADOW} for row in tables.scores]
    tables.run()
    assert tables.drift()[SHADOW, "feature", "amount_30d"]["severity"] == "error"
    changes = project.table("select * from churn_base_rate_changes").to_pylist()
    assert {row["expected_base_rate"] for row in changes} == {0.5}
    assert {row["explained_change"] for row in changes} == {None}, "no strata are known"

    def statuses(champion, choice):
        champions = pa.table({"bundle_id": [champion], "is_champion": [True]})
        project.load("int_models_registered", champions)
        select = "assert_no_drift_warning assert_no_drift_error"
        outcome = project.invoke("test", select=select, vars={"churn__drift_failures": choice})
        return {
            result.node.name[16:]: str(result.status)
            for result in outcome.result
            if result.node.resource_type == "test"
        }

    assert statuses(CHAMPION, "error") == {"warning": "warn", "error": "fail"}
    assert statuses(SHADOW, "warn") == {"warning": "warn", "error": "pass"}
    assert statuses("nobody", "error") == {"warning": "pass", "error": "pass"}
