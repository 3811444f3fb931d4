"""Choosing among kinds and weighing members, on logits whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest

from churn_udf.calibration import sigmoid
from trainer.errors import ConfigError
from trainer.evaluate.base_rates import shifted_log_loss
from trainer.evaluate.stacking import MIN_WEIGHT, choose_ensemble, fit_weights

NUM_ROWS = 6_000
USERS = np.arange(NUM_ROWS) // 3


def members(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two halves of the truth (bert, gbm), and labels that follow both."""
    generator = np.random.default_rng(seed)
    halves = generator.normal(size=(2, NUM_ROWS))
    labels = (generator.random(NUM_ROWS) < sigmoid(halves.sum(axis=0) - 0.5)).astype(float)
    return {"bert": halves[0], "gbm": halves[1]}, labels


def one_knows(name: str, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One member has the truth, the others a noisy copy of it."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 1.5, NUM_ROWS)
    labels = (generator.random(NUM_ROWS) < sigmoid(truth)).astype(float)
    copies = {
        member: truth if member == name else truth + generator.normal(0, 2.0, NUM_ROWS)
        for member in ("bert", "gbm", "logistic")
    }
    return copies, labels


@pytest.mark.parametrize("best", ["bert", "gbm", "logistic"])
def test_the_member_that_knows_gets_the_weight(best: str) -> None:
    logits, labels = one_knows(best)
    weights = fit_weights(logits, labels, shrinkage=0.0)
    assert weights[best] == pytest.approx(1.0, abs=0.1)
    assert sum(value for name, value in weights.items() if name != best) < 0.1


def test_parts_of_the_truth_are_added_up() -> None:
    logits, labels = members()
    assert fit_weights(logits, labels, 0.0) == pytest.approx({"bert": 1.0, "gbm": 1.0}, abs=0.1)


def test_noise_is_left_out_and_nothing_is_negative() -> None:
    logits, labels = members()
    noise = np.random.default_rng(9).normal(0, 3.0, NUM_ROWS)
    weights = fit_weights({**logits, "logistic": noise}, labels, 0.0)
    assert set(weights) == {"bert", "gbm"}
    against = fit_weights({**logits, "logistic": -logits["gbm"] + noise}, labels, 0.0)
    assert min(against.values()) >= MIN_WEIGHT
    assert "logistic" not in against
    # what is left out leaves no trace in the others' weights
    assert weights == pytest.approx(fit_weights(logits, labels, 0.0), abs=1e-12)


def test_huge_shrinkage_gives_the_prior_shares() -> None:
    logits, labels = one_knows("gbm")
    equal = fit_weights(logits, labels, 1e9)
    assert equal == pytest.approx(dict.fromkeys(logits, 1 / 3), abs=1e-4)
    four = fit_weights({**logits, "rfm_logistic": logits["logistic"]}, labels, 1e9)
    assert four["rfm_logistic"] == pytest.approx(four["gbm"] / 4, abs=1e-4)


def test_few_rows_stay_near_equal_shares_and_many_say_what_they_know() -> None:
    logits, labels = one_knows("gbm")
    few = fit_weights({name: values[:40] for name, values in logits.items()}, labels[:40], 100.0)
    assert few == pytest.approx(dict.fromkeys(logits, 1 / 3), abs=0.12)
    many = fit_weights(logits, labels, 100.0)
    assert many["gbm"] > 0.8 > 0.2 > max(many.get("bert", 0.0), many.get("logistic", 0.0))


def test_logits_that_are_all_wrong_still_give_weights() -> None:
    logits, labels = members()
    wrong = {name: -20.0 * values for name, values in logits.items()}
    assert fit_weights(wrong, labels, 0.0) == {"bert": 0.5, "gbm": 0.5}


def test_the_stack_is_chosen_where_members_complete_each_other() -> None:
    logits, labels = members()
    found = choose_ensemble(logits, labels, USERS)
    assert found.ensemble.kind == found.table["chosen"] == "stack"
    assert set(found.by_kind) == {"bert", "gbm", "stack"}
    losses = found.table["valid_log_loss"]
    assert losses["stack"] < min(losses["bert"], losses["gbm"]) - 0.02
    assert losses["gbm"] == pytest.approx(shifted_log_loss(logits["gbm"], labels))


def test_another_intercept_changes_nothing() -> None:
    logits, labels = members()
    moved = {"bert": logits["bert"] + 2.0, "gbm": logits["gbm"] - 1.0}
    plain, found = (choose_ensemble(item, labels, USERS) for item in (logits, moved))
    assert found.ensemble.weights == pytest.approx(dict(plain.ensemble.weights), abs=1e-6)


@pytest.mark.parametrize(
    ("kinds", "best", "chosen"),
    [
        (("gbm",), "bert", "gbm"),
        (("bert",), "gbm", "bert"),
        (("stack",), "gbm", "stack"),
        (("bert", "gbm"), "gbm", "gbm"),
        (("bert", "gbm"), "bert", "bert"),
    ],
)
def test_only_the_kinds_asked_for_are_chosen(
    kinds: tuple[str, ...], best: str, chosen: str
) -> None:
    logits, labels = one_knows(best)
    found = choose_ensemble(logits, labels, USERS, kinds=kinds)
    assert found.ensemble.kind == chosen
    assert (found.table["reason"] == "the only kind asked for") == (len(kinds) == 1)


def test_the_stack_is_not_flattered_by_the_rows_that_set_its_weights() -> None:
    generator = np.random.default_rng(3)
    labels = (generator.random(60) < 0.5).astype(float)
    logits = {name: generator.normal(size=60) for name in ("bert", "gbm", "logistic")}
    found = choose_ensemble(logits, labels, np.arange(60), shrinkage=0.0)
    own = found.by_kind["stack"].combine(logits)
    assert found.table["valid_log_loss"]["stack"] > shifted_log_loss(own, labels)


def test_users_are_never_on_both_sides() -> None:
    """Rows that repeat a user's row many times must not make the stack look better."""
    gains = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        labels = np.arange(20) % 2.0
        names = ("bert", "gbm", "logistic", "rfm_logistic")
        logits = {name: generator.normal(labels - 0.5, 1.0) for name in names}
        repeated = {name: np.repeat(values, 20) for name, values in logits.items()}
        by_user, by_row = (
            choose_ensemble(repeated, np.repeat(labels, 20), users, shrinkage=0.0)
            for users in (np.repeat(np.arange(20), 20), np.arange(400))
        )
        losses = [found.table["valid_log_loss"]["stack"] for found in (by_user, by_row)]
        gains.append(losses[0] - losses[1])
    assert np.mean(gains) > 0.02


def test_same_seed_same_choice_and_few_users_are_fine() -> None:
    logits, labels = members()
    first, second = (choose_ensemble(logits, labels, USERS, seed=4) for _ in range(2))
    assert first == second
    few = {name: values[:40] for name, values in logits.items()}
    for num_users in (1, 2, 3):
        found = choose_ensemble(few, labels[:40], np.arange(40) % num_users)
        assert np.isfinite(list(found.table["valid_log_loss"].values())).all()


def test_one_member_needs_no_stack() -> None:
    logits, labels = members()
    found = choose_ensemble({"gbm": logits["gbm"]}, labels, USERS)
    assert found.ensemble.kind == "gbm"
    assert set(found.by_kind) == {"gbm"}


@pytest.mark.parametrize(
    ("kinds", "message"),
    [(("bert",), "members are gbm"), (("magic",), "allowed: one or more"), ((), "allowed")],
)
def test_impossible_kinds_are_refused(kinds: tuple[str, ...], message: str) -> None:
    logits, labels = members()
    with pytest.raises(ConfigError, match=message):
        choose_ensemble({"gbm": logits["gbm"]}, labels, USERS, kinds=kinds)
