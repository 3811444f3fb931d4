"""BG/NBD: likelihood and expectation against independent sums, recovery, score, fallbacks."""

import dataclasses

import numpy as np
import pytest
from scipy import integrate, stats

from churn_udf.model.bg_nbd import (
    SCORES,
    BgNbdModel,
    BgNbdParameters,
    alive_chances,
    expected_purchases,
    purchase_chances,
)
from trainer.errors import ConfigError
from trainer.evaluate import BaselineRows, fit_baselines
from trainer.evaluate.bg_nbd import fit_bg_nbd, fit_parameters, log_likelihood

# Published estimates for CDNOW (weeks); Fader, Hardie and Lee 2005, table 2.
CDNOW = BgNbdParameters(r=0.243, alpha=4.414, a=0.793, b=2.426)
TRUE = BgNbdParameters(r=0.8, alpha=20.0, a=0.7, b=3.0)
NAMES = ("days_since_active", "active_day_count_365d", "gap_mean_days")


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def integrated(function, parameters: BgNbdParameters) -> float:
    """Integrate over the customers' purchase rates and chances of leaving."""
    rates = stats.gamma(parameters.r, scale=1.0 / parameters.alpha)
    leaving = stats.beta(parameters.a, parameters.b)
    nodes, weights = np.polynomial.legendre.leggauss(300)
    shares, weights = 0.5 * (nodes + 1.0), 0.5 * weights
    grid_l, grid_p = np.meshgrid(rates.ppf(shares), leaving.ppf(shares))
    return float(np.sum(function(grid_l, grid_p) * weights[:, None] * weights[None, :]))


def alive_after(parameters: BgNbdParameters, x: float, age: float) -> BgNbdParameters:
    """Return rates and chances of leaving of who is alive after x repeat purchases in some days."""
    r, alpha, b = parameters.r + x, parameters.alpha + age, parameters.b + x
    return dataclasses.replace(parameters, r=r, alpha=alpha, b=b)


def simulate(parameters: BgNbdParameters, num_customers: int, seed: int, days: float = 300.0):
    """Return x, t_x, T up to the cutoff and, of each, the days of purchases 28 days after it."""
    generator = np.random.default_rng(seed)
    rates = generator.gamma(parameters.r, 1.0 / parameters.alpha, num_customers)
    leaving = generator.beta(parameters.a, parameters.b, num_customers)
    ages = generator.uniform(50.0, days, num_customers)
    x, last = np.zeros(num_customers), np.zeros(num_customers)
    later: list[np.ndarray] = []
    for customer in range(num_customers):
        time, after = 0.0, []
        while True:
            time += generator.exponential(1.0 / max(rates[customer], 1e-12))
            if time > ages[customer] + 28.0:
                break
            if time <= ages[customer]:
                x[customer], last[customer] = x[customer] + 1, time
            else:
                after.append(time - ages[customer])
            if generator.random() < leaving[customer]:
                break
        later.append(np.array(after))
    return x, last, ages, later


def features_of(x, t_x, ages) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        gaps = np.where(x > 0, t_x / x, np.nan)
    return np.column_stack([ages - t_x, x + 1.0, gaps])


@pytest.mark.parametrize(
    ("x", "t_x", "age"), [(0, 0.0, 30.0), (1, 5.0, 30.0), (2, 30.43, 38.86), (12, 29.0, 30.0)]
)
def test_likelihood_is_the_integral_over_rates_and_chances_of_leaving(x, t_x, age):
    def of_one(rate, leaving):
        alive = (1 - leaving) ** x * rate**x * np.exp(-rate * age)
        if x == 0:
            return alive
        return alive + leaving * (1 - leaving) ** (x - 1) * rate**x * np.exp(-rate * t_x)

    parameters = BgNbdParameters(r=1.4, alpha=8.0, a=1.6, b=2.6)
    value = log_likelihood(parameters, column(x), column(t_x), column(age))[0]
    assert value == pytest.approx(np.log(integrated(of_one, parameters)), abs=2e-3)


def test_likelihood_sums_to_one_over_all_histories():
    """The chance of x = 0, plus x = 1 over all days of it, plus ... is 1."""
    total = float(np.exp(log_likelihood(CDNOW, column(0), column(0), column(10.0)))[0])
    for x in range(1, 60):
        density = integrate.quad(
            lambda t_x, x=x: (
                float(np.exp(log_likelihood(CDNOW, column(x), column(t_x), column(10.0)))[0])
                * t_x ** (x - 1)
                / max(1.0, float(np.prod(np.arange(1.0, x))))
            ),
            0.0,
            10.0,
        )[0]
        total += density
    assert total == pytest.approx(1.0, abs=5e-3)


def test_likelihood_of_busy_customers_stays_finite():
    values = log_likelihood(CDNOW, column(5_000), column(364.0), column(365.0))
    assert np.isfinite(values).all()


def test_expectation_is_the_published_one_of_cdnow_customer_1():
    """Fader and Hardie's spreadsheet: x = 2, t_x = 30.43, T = 38.86, 39 weeks ahead: 1.226."""
    value = expected_purchases(CDNOW, column(2), column(30.43), column(38.86), 39.0)[0]
    assert value == pytest.approx(1.226, abs=1e-3)


@pytest.mark.parametrize("a", [0.3, 0.999999, 1.0, 1.000001, 1.2, 6.0])
def test_expectation_is_the_integral_of_the_alive_customers_rate(a):
    """E = P(alive) * E[(1 - exp(-rate p h)) / p | alive], by quadrature."""
    parameters = BgNbdParameters(r=1.4, alpha=8.0, a=a, b=2.6)
    x, t_x, age, horizon = 3, 20.0, 26.0, 14.0
    if_alive = integrated(
        lambda rate, chance: -np.expm1(-rate * chance * horizon) / chance,
        alive_after(parameters, x, age),
    )
    odds = a / (2.6 + x - 1) * ((8.0 + age) / (8.0 + t_x)) ** (1.4 + x)
    value = expected_purchases(parameters, column(x), column(t_x), column(age), horizon)[0]
    assert value == pytest.approx(if_alive / (1.0 + odds), rel=2e-3)


@pytest.mark.parametrize(("x", "t_x", "age"), [(0, 0.0, 40.0), (3, 20.0, 26.0), (60, 50.0, 55.0)])
def test_chance_is_the_integral_over_the_alive_customers_rates(x, t_x, age):
    if_alive = integrated(lambda rate, _: -np.expm1(-rate * 14.0), alive_after(TRUE, x, age))
    odds = TRUE.a / max(TRUE.b + x - 1, 1.0)
    odds *= ((TRUE.alpha + age) / (TRUE.alpha + t_x)) ** (TRUE.r + x)
    alive = 1.0 / (1.0 + odds) if x else 1.0
    value = purchase_chances(TRUE, column(x), column(t_x), column(age), 14.0)[0]
    assert value == pytest.approx(alive * if_alive, rel=1e-3)


@pytest.mark.parametrize(
    ("horizon", "gap"), [(28.0, 0.0), (7.0, 0.0), (7.0, 21.0), (14.0, 14.0), (2.0, 26.0)]
)
def test_chance_is_the_share_of_simulated_customers_who_buy(horizon, gap):
    x, t_x, ages, purchases = simulate(TRUE, 6_000, seed=8)
    bought = np.array([((days > gap) & (days <= gap + horizon)).any() for days in purchases])
    chances = purchase_chances(TRUE, x, t_x, ages, horizon, gap)
    for part in np.array_split(np.argsort(chances), 4):
        error = np.sqrt(chances[part].mean() * (1 - chances[part].mean()) / part.size)
        assert abs(chances[part].mean() - bought[part].mean()) < 4 * error


@pytest.mark.parametrize(
    ("parameters", "x", "age", "horizon", "gap", "expected"),
    [
        ((0.975, 4.5, 0.27, 105.0), 6, 31.0, 90.0, 90.0, 0.957),
        ((0.20, 11.1, 4.9, 95.0), 20, 23.0, 30.0, 90.0, 0.147),
        ((0.27, 1.2, 2.3, 39.8), 5, 28.0, 28.0, 90.0, 0.469),
    ],
)
def test_chance_after_a_long_gap_is_the_mean_over_rates_and_leaving(
    parameters, x, age, horizon, gap, expected
):
    r, alpha, a, b = parameters
    model = BgNbdParameters(r=r, alpha=alpha, a=a, b=b)
    if_alive = integrated(
        lambda rate, leave: np.exp(-rate * leave * gap) * -np.expm1(-rate * horizon),
        alive_after(model, x, age),
    )
    assert if_alive == pytest.approx(expected, abs=0.05)  # alive, nearly for sure
    history = column(x), column(age), column(age)
    alive = alive_chances(model, *history)[0]
    value = purchase_chances(model, *history, horizon, gap)[0]
    assert value == pytest.approx(alive * if_alive, rel=1e-3)


def test_expectation_grows_with_the_horizon_and_from_nothing():
    history = column(0, 3, 300), column(0.0, 40.0, 364.0), column(30.0, 50.0, 365.0)
    values = [expected_purchases(TRUE, *history, horizon) for horizon in (0.0, 1.0, 30.0, 365.0)]
    np.testing.assert_allclose(values[0], 0.0, atol=1e-9)
    assert (np.diff(values, axis=0) > 0).all()
    assert np.isfinite(values).all()


def test_fit_finds_the_parameters_of_simulated_customers():
    x, t_x, ages, _ = simulate(TRUE, 6_000, seed=1)
    found = fit_parameters(x, t_x, ages)
    assert found.r == pytest.approx(TRUE.r, rel=0.15)
    assert found.alpha == pytest.approx(TRUE.alpha, rel=0.2)
    assert found.a / (found.a + found.b) == pytest.approx(TRUE.a / (TRUE.a + TRUE.b), rel=0.15)
    at_truth = log_likelihood(TRUE, x, t_x, ages).mean()
    assert log_likelihood(found, x, t_x, ages).mean() >= at_truth - 1e-4


def test_score_expects_what_simulated_customers_buy_and_ranks_them():
    from sklearn.metrics import roc_auc_score

    train, test = simulate(TRUE, 4_000, seed=2), simulate(TRUE, 4_000, seed=3)
    users = np.arange(4_000)
    fit = fit_bg_nbd(features_of(*train[:3]), users, NAMES, horizon_days=28.0)
    logits = fit.logits_of(features_of(*test[:3]))
    assert fit.facts["converged"]
    assert np.exp(-logits).mean() == pytest.approx(
        np.mean([len(days) for days in test[3]]), rel=0.1
    )
    churned = np.array([len(days) == 0 for days in test[3]])
    assert roc_auc_score(churned, logits) > roc_auc_score(churned, test[2] - test[1]) + 0.02


def test_gap_days_are_left_out_of_the_horizon():
    x, t_x, ages, _ = simulate(TRUE, 1_000, seed=4)
    features, users = features_of(x, t_x, ages), np.arange(1_000)
    near, both, late = (
        np.exp(-fit_bg_nbd(features, users, NAMES, **days).logits_of(features))
        for days in (
            {"horizon_days": 7.0},
            {"horizon_days": 28.0},
            {"horizon_days": 21.0, "gap_days": 7.0},
        )
    )
    np.testing.assert_allclose(near + late, both, rtol=1e-6)


def test_only_the_newest_row_of_a_user_is_learned_from():
    x, t_x, ages, _ = simulate(TRUE, 500, seed=5)
    features, users = features_of(x, t_x, ages), np.arange(500)
    older = np.column_stack([np.full(500, 3.0), np.full(500, 90.0), np.full(500, 1.0)])
    twice = fit_bg_nbd(
        np.concatenate([older, features]), np.tile(users, 2), NAMES, horizon_days=28.0
    )
    assert twice.facts["num_customers"] == 500
    assert (
        twice.model.parameters
        == fit_bg_nbd(features, users, NAMES, horizon_days=28.0).model.parameters
    )


def test_tenure_stands_in_for_the_mean_gap():
    names = ("days_since_active", "active_day_count_365d", "tenure_days")
    x, t_x, ages, _ = simulate(TRUE, 500, seed=6)
    by_gap = features_of(x, t_x, ages)
    tenure = np.where(x > 0, ages, ages - t_x)
    by_tenure = np.column_stack([by_gap[:, 0], by_gap[:, 1], tenure])
    users = np.arange(500)
    first = fit_bg_nbd(by_gap, users, NAMES, horizon_days=28.0)
    second = fit_bg_nbd(by_tenure, users, names, horizon_days=28.0)
    assert second.facts["columns"] == [names[1], names[0], names[2]]
    np.testing.assert_allclose(
        second.logits_of(by_tenure), first.logits_of(by_gap), rtol=1e-3, atol=1e-3
    )


ODD = {
    "nobody came back": np.column_stack([np.arange(1.0, 51.0), np.ones(50), np.full(50, np.nan)]),
    "all the same": np.tile([5.0, 4.0, 10.0], (50, 1)),
    "one customer": np.array([[5.0, 4.0, 10.0]]),
    "all unknown": np.full((50, 3), np.nan),
    "infinite": np.full((50, 3), np.inf),
    "every day": np.tile([1.0, 365.0, 1.0], (50, 1)),
    "last row alone came back": np.vstack(
        [np.tile([9.0, 1.0, np.nan], (49, 1)), [2.0, 300.0, 1.2]]
    ),
}


@pytest.mark.parametrize("features", ODD.values(), ids=ODD)
def test_odd_data_gives_finite_scores_and_says_how(features):
    fit = fit_bg_nbd(features, np.arange(len(features)), NAMES, horizon_days=14.0)
    other = np.array([[1.0, 200.0, 1.5], [300.0, 1.0, np.nan], [np.nan] * 3, [np.inf] * 3])
    assert np.isfinite(fit.logits_of(np.concatenate([features, other]))).all()
    assert fit.facts["converged"] is (fit.model.parameters is not None)
    assert ("fallback" in fit.facts) is (fit.model.parameters is None)


def test_nobody_came_back_falls_back_to_the_shrunken_rate():
    features = ODD["nobody came back"]
    fit = fit_bg_nbd(features, np.arange(50), NAMES, horizon_days=14.0)
    assert "no customer has a repeat purchase" in fit.facts["fallback"]
    ages = features[:, 0]
    np.testing.assert_allclose(fit.logits_of(features), -np.log(14.0 / (ages + ages.mean())))


def test_failed_search_falls_back_and_says_why(monkeypatch):
    from scipy import optimize

    def fail(*args, **kwargs):
        return optimize.OptimizeResult(success=False, fun=np.nan, message="ABNORMAL")

    monkeypatch.setattr(optimize, "minimize", fail)
    x, t_x, ages, _ = simulate(TRUE, 100, seed=7)
    fit = fit_bg_nbd(features_of(x, t_x, ages), np.arange(100), NAMES, horizon_days=14.0)
    assert fit.model.parameters is None
    assert "ABNORMAL" in fit.facts["fallback"]
    assert np.isfinite(fit.logits_of(features_of(x, t_x, ages))).all()


def test_missing_column_and_bad_horizon_are_named():
    with pytest.raises(ConfigError, match="active_day_count_365d"):
        fit_bg_nbd(np.ones((3, 1)), np.arange(3), NAMES[:1], horizon_days=14.0)
    with pytest.raises(ConfigError, match="horizon_days is 0"):
        fit_bg_nbd(np.ones((3, 3)), np.arange(3), NAMES, horizon_days=0.0)


@pytest.mark.parametrize("score", SCORES)
def test_the_score_is_the_one_that_validation_labels_follow(score):
    """Draw the labels by one of the two; the model that a bundle stores is that one."""
    names = (*NAMES, "amount_365d")
    rows = [
        np.column_stack([features_of(*simulate(TRUE, 2_000, seed=seed)[:3]), np.ones(2_000)])
        for seed in (9, 10, 11)
    ]
    users, any_labels = np.arange(2_000), np.arange(2_000) % 2
    fit = fit_bg_nbd(rows[0], users, names, horizon_days=300.0).by(score)
    logits = fit.logits_of(rows[1])
    logits = 2.0 * (logits - np.median(logits)) / logits.std()
    labels = np.random.default_rng(12).random(2_000) < 1.0 / (1.0 + np.exp(-logits))
    splits = [
        BaselineRows(features_NF=one, labels_N=known, user_ids_N=users)
        for one, known in zip(rows, (any_labels, labels, any_labels), strict=True)
    ]
    options = {"names": ["bg_nbd"], "horizon_days": 300.0}
    found = fit_baselines(*splits, names, **options)["bg_nbd"]
    assert found.facts["score"] == score
    stored = BgNbdModel.from_json(found.model_text, file="bg_nbd.json")
    assert stored == fit.model
    np.testing.assert_array_equal(stored.logits(rows[2], names), found.test_logits)
