"""Trees read from LightGBM's text: the same numbers, and damaged texts never end the process."""

import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from churn_udf.errors import BundleIntegrityError
from churn_udf.model.trees import TreeModel

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def booster():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(300, len(NAMES)))
    rows[generator.random(rows.shape) < 0.1] = np.nan
    labels = (np.nan_to_num(rows[:, 0]) + generator.normal(size=300) > 0).astype(float)
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True}
    data = lightgbm.Dataset(rows, labels, feature_name=NAMES, params={"verbosity": -1})
    return lightgbm.train(settings, data, num_boost_round=12)


@pytest.fixture(scope="module")
def text(booster) -> str:
    return str(booster.model_to_string())


@pytest.fixture
def rows_BF() -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(80, len(NAMES)))
    rows[::7, 1] = np.nan
    return rows


def test_text_gives_the_logits_of_the_booster(booster, text, rows_BF):
    model = TreeModel(text, NAMES, file="gbm.txt")
    expected = booster.predict(rows_BF, raw_score=True, num_threads=1)
    np.testing.assert_array_equal(model.logits(rows_BF), expected)
    assert np.unique(expected).size > 10


def test_contributions_and_the_constant_make_the_logits(booster, text, rows_BF):
    model = TreeModel(text, NAMES, file="gbm.txt")
    effects = model.contributions(rows_BF)
    assert effects.shape == rows_BF.shape
    constants = model.logits(rows_BF) - effects.sum(axis=1)
    np.testing.assert_allclose(constants, constants[0], atol=1e-9)
    bias = booster.predict(rows_BF, pred_contrib=True)[0, -1]
    assert constants[0] == pytest.approx(bias, abs=1e-9)


def test_rows_do_not_touch_each_other_and_infinity_is_unknown(text, rows_BF):
    model = TreeModel(text, NAMES, file="gbm.txt")
    alone = np.concatenate([model.logits(row[None]) for row in rows_BF])
    np.testing.assert_array_equal(alone, model.logits(rows_BF))
    odd, unknown = rows_BF.copy(), rows_BF.copy()
    odd[:, 0], unknown[:, 0] = np.inf, np.nan
    np.testing.assert_array_equal(model.logits(odd), model.logits(unknown))


def test_trees_that_found_nothing_are_a_model_too():
    data = lightgbm.Dataset(
        np.zeros((60, 3)), np.arange(60) % 2, feature_name=NAMES, params={"verbosity": -1}
    )
    constant = lightgbm.train({"objective": "binary", "verbosity": -1}, data, num_boost_round=3)
    model = TreeModel(str(constant.model_to_string()), NAMES, file="gbm.txt")
    np.testing.assert_allclose(model.logits(np.ones((2, 3))), 0.0, atol=1e-9)


@pytest.mark.parametrize("names", [["b", "a", "c"], ["a", "b"], ["a", "b", "c", "d"]])
def test_other_features_are_refused(text, names):
    with pytest.raises(BundleIntegrityError, match=r"gbm\.txt reads 3 features.*churn-train run"):
        TreeModel(text, names, file="gbm.txt")


@pytest.mark.parametrize("other", ["", "tree", "tree\n", "hello", "{}", "tree\n\nend of trees\n"])
def test_other_text_is_refused(other):
    with pytest.raises(BundleIntegrityError, match=r"gbm\.txt"):
        TreeModel(other, NAMES, file="gbm.txt")


def damaged(text: str) -> dict[str, str]:
    """Texts on some of which LightGBM 4 ends the process."""
    middle = text.index("Tree=6\n")
    cuts = [
        *(len(text) * part // 8 for part in range(8)),
        text.index("end of trees"),
        len(text) - 4,
    ]
    return {
        **{f"cut-{cut}": text[:cut] for cut in cuts},
        "tree-lost": text[:middle] + text[text.index("Tree=7\n") :],
        "hole": text[: middle + 40] + text[middle + 90 :],
        "no-sizes": text.replace("tree_sizes=", "sizes="),
        "size-less": text.replace("tree_sizes=1", "tree_sizes=2"),
        "size-text": text.replace("tree_sizes=", "tree_sizes=x"),
    }


def test_damaged_text_is_an_error_and_not_the_end_of_the_process(text, tmp_path: Path):
    cases = damaged(text)
    for name, content in cases.items():
        (tmp_path / name).write_text(content)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from churn_udf.errors import BundleIntegrityError\n"
        "from churn_udf.model.trees import TreeModel\n"
        "for file in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        TreeModel(file.read_text(), ['a', 'b', 'c'], file=file.name)\n"
        "    except BundleIntegrityError:\n"
        "        print(file.name, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(done.stdout.decode().split()) == set(cases)
