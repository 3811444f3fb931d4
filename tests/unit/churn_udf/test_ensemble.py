"""Ensembles: sums of members by hand, what is loaded, and rows that do not touch each other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from factories import GROUPS, bg_nbd_member, feature_specs, input_batch, tiny_bundle

from churn_udf.contracts.bundle import ENSEMBLE_FILE, MEMBER_FILES
from churn_udf.errors import BundleIntegrityError
from churn_udf.model.bg_nbd import BgNbdColumns, BgNbdModel
from churn_udf.model.config import TEXT_GROUP
from churn_udf.model.ensemble import Ensemble, EnsembleRunner, groups_of, read_ensemble
from churn_udf.model.linear import LinearInputs, LinearModel
from churn_udf.model.runner import ModelRunner
from churn_udf.model.trees import TreeModel

NAMES = ("recency_days", "order_count", "amount_sum", "gap_days")
SPECS = feature_specs(NAMES)
WEIGHTS = {"bert": 0.5, "gbm": 0.3, "logistic": 0.4, "bg_nbd": 0.2}


def linear_model(columns: tuple[str, ...] = ("amount_sum", "recency_days")) -> LinearModel:
    """Reads two columns, one of them flagged."""
    inputs = LinearInputs(
        is_logged_F=np.array([True, False]),
        mean_F=np.array([2.0, 10.0]),
        inverse_scale_F=np.array([1.5, 0.2]),
        is_flagged_F=np.array([False, True]),
    )
    coefficients = np.array([-0.2, 0.9, -1.1, 0.6])
    return LinearModel(columns=columns, inputs=inputs, coefficients_D=coefficients)


def bg_nbd_model() -> BgNbdModel:
    """Reads three columns."""
    source = BgNbdColumns(frequency=NAMES[0], recency=NAMES[1], mean_gap=NAMES[2], tenure=None)
    return bg_nbd_member(source, typical=(4.0, 12.0, 9.0))


def trees_text() -> str:
    """Fit a few trees on noise with a signal."""
    generator = np.random.default_rng(3)
    rows = generator.normal(10, 5, (300, len(NAMES)))
    labels = (rows[:, 0] + generator.normal(0, 5, 300) > 10).astype(float)
    data = lightgbm.Dataset(rows, labels, feature_name=list(NAMES), params={"verbosity": -1})
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True}
    return str(lightgbm.train(settings, data, num_boost_round=8).model_to_string())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A model directory with four members."""
    directory = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(tiny_bundle(directory.parent, NAMES).directory, directory)
    (directory / MEMBER_FILES["gbm"]).write_text(trees_text())
    (directory / MEMBER_FILES["logistic"]).write_text(linear_model().to_json())
    (directory / MEMBER_FILES["bg_nbd"]).write_text(bg_nbd_model().to_json())
    return directory


@pytest.fixture
def directory(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture(scope="module")
def rows() -> tuple[pa.Array, pa.Array, np.ndarray]:
    """Texts and features of 40 rows, some unknown."""
    batch = input_batch(40, NAMES, seed=5)
    columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in NAMES]
    texts = batch.column("behavior_text"), batch.column("review_text_recent")
    return *texts, np.column_stack(columns)


def load(directory: Path, weights: dict[str, float], kind: str = "stack") -> EnsembleRunner:
    (directory / ENSEMBLE_FILE).write_text(Ensemble(kind=kind, weights=weights).to_json())
    return EnsembleRunner.load(directory, SPECS, device="cpu")


def test_tokens_are_those_of_the_encoder_and_none_without_it(directory, rows):
    stack = load(directory, WEIGHTS)
    tokens = stack.tokens(*rows[:2])
    assert tokens is not None
    np.testing.assert_array_equal(stack.run(*rows, tokens=tokens).logits, stack.run(*rows).logits)
    assert load(directory, {"gbm": 1.0}, "gbm").tokens(*rows[:2]) is None


def test_logits_and_effects_are_weighted_sums(directory, rows):
    output = load(directory, WEIGHTS).run(*rows)
    bert = ModelRunner.load(directory, device="cpu").run(*rows)
    trees = TreeModel((directory / "gbm.txt").read_text(), NAMES, file="gbm.txt")
    features = rows[2]
    weighed = ((0.4, linear_model()), (0.2, bg_nbd_model()))
    expected = 0.5 * bert.logits + 0.3 * trees.logits(features)
    by_feature = 0.3 * trees.contributions(features)
    for weight, model in weighed:
        expected += weight * model.logits(features, NAMES)
        by_feature += weight * model.contributions(features, NAMES)
    np.testing.assert_allclose(output.logits, expected, atol=1e-12)
    expected_effects = 0.5 * bert.group_effects
    for index, spec in enumerate(SPECS):
        expected_effects[:, GROUPS.index(spec.group)] += by_feature[:, index]
    np.testing.assert_allclose(output.group_effects, expected_effects, atol=1e-12)
    assert np.ptp(output.logits) > 0.5


def test_groups_are_those_of_the_encoder_with_the_text_last(directory):
    runner = load(directory, WEIGHTS)
    assert runner.feature_groups == (*GROUPS, TEXT_GROUP) == groups_of(SPECS)
    assert runner.feature_groups == ModelRunner.load(directory, device="cpu").feature_groups
    assert runner.feature_names == NAMES


@pytest.mark.parametrize(
    ("weights", "tolerance"),
    [({"gbm": 0.7, "logistic": 0.6}, 1e-9), (WEIGHTS, 1e-5)],
    ids=["tabular", "with-bert"],
)
def test_a_row_scores_alone_as_among_others(directory, rows, weights, tolerance):
    runner = load(directory, weights)
    together = runner.run(*rows)
    alone = [runner.run(*(part[row : row + 1] for part in rows)) for row in range(40)]
    logits = np.concatenate([output.logits for output in alone])
    effects = np.concatenate([output.group_effects for output in alone])
    np.testing.assert_allclose(logits, together.logits, atol=tolerance, rtol=0)
    np.testing.assert_allclose(effects, together.group_effects, atol=tolerance, rtol=0)


def test_no_rows_give_no_scores(directory, rows):
    output = load(directory, {"logistic": 1.0, "bert": 1.0}).run(*(part[:0] for part in rows))
    assert output.logits.shape == (0,)
    assert output.group_effects.shape == (0, len(GROUPS) + 1)


@pytest.mark.parametrize("member", list(WEIGHTS))
def test_only_members_with_a_weight_are_needed(directory, rows, member):
    for name in set(WEIGHTS) - {member}:
        (directory / MEMBER_FILES[name]).unlink()
    output = load(directory, {member: 2.0}).run(*rows)
    assert np.isfinite(output.logits).all()
    (directory / MEMBER_FILES[member]).unlink()
    with pytest.raises(BundleIntegrityError, match=MEMBER_FILES[member]):
        EnsembleRunner.load(directory, SPECS, device="cpu")


def test_trees_alone_score_without_torch(directory):
    (directory / ENSEMBLE_FILE).write_text(Ensemble(kind="gbm", weights={"gbm": 1.0}).to_json())
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np, pyarrow as pa\n"
        "import churn_udf.scoring\n"
        "from churn_udf.contracts.bundle import FeatureSpec\n"
        "from churn_udf.model.ensemble import EnsembleRunner\n"
        f"specs = [FeatureSpec(name=name, group='g') for name in {NAMES!r}]\n"
        "runner = EnsembleRunner.load(Path(sys.argv[1]), specs)\n"
        "found = runner.run(pa.array(['a']), pa.array(['']), np.ones((1, 4))).logits\n"
        "print(found.size, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode().split() == ["1", "False"]


def test_without_the_file_the_encoder_scores_alone(directory, rows):
    expected = ModelRunner.load(directory, device="cpu").run(*rows)
    runner = EnsembleRunner.load(directory, SPECS, device="cpu")
    assert runner.ensemble == Ensemble(kind="bert", weights={"bert": 1.0})
    np.testing.assert_array_equal(runner.run(*rows).logits, expected.logits)


def test_json_round_trip():
    ensemble = Ensemble(kind="stack", weights={"gbm": 1 / 3, "bert": 0.1})
    assert Ensemble.from_json(ensemble.to_json()) == ensemble


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"kind": "stack"}',
        b'{"kind": "stack", "weights": {}}',
        b'{"kind": "stack", "weights": [1]}',
        b'{"kind": "stack", "weights": {"gbm": null}}',
        b'{"kind": "stack", "weights": {"gbm": 0}}',
        b'{"kind": "stack", "weights": {"gbm": -1}}',
        b'{"kind": "stack", "weights": {"gbm": NaN}}',
        b'{"kind": "stack", "weights": {"gbm": Infinity}}',
        b'{"kind": "stack", "weights": {"gbm": 1' + b"0" * 400 + b"}}",
        b'{"kind": "stack", "weights": {"forest": 1}}',
        b'{"kind": "magic", "weights": {"gbm": 1}}',
        b'{"kind": "bert", "weights": {"gbm": 1}}',
        b'{"kind": "gbm", "weights": {"gbm": 1, "bert": 1}}',
    ],
)
def test_damaged_ensembles_are_refused(tmp_path, content):
    (tmp_path / ENSEMBLE_FILE).write_bytes(content)
    with pytest.raises(BundleIntegrityError, match="ensemble"):
        read_ensemble(tmp_path)


@pytest.mark.parametrize("member", ["gbm", "logistic"])
def test_a_member_that_is_no_text_is_refused_by_file(directory, member):
    (directory / MEMBER_FILES[member]).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleIntegrityError, match=rf"{MEMBER_FILES[member]} cannot be read"):
        load(directory, {member: 1.0})


@pytest.mark.parametrize("member", list(WEIGHTS))
def test_a_member_of_other_features_is_refused(directory, member):
    other = tuple(f"other_{name}" for name in NAMES)
    load(directory, {member: 1.0})
    with pytest.raises(BundleIntegrityError, match="churn-train run"):
        EnsembleRunner.load(directory, feature_specs(other), device="cpu")


def test_a_linear_member_names_the_column_that_is_not_there(directory):
    text = linear_model(("amount_sum", "gone")).to_json()
    assert json.loads(text)["columns"] == ["amount_sum", "gone"]
    (directory / MEMBER_FILES["logistic"]).write_text(text)
    with pytest.raises(BundleIntegrityError, match=r"logistic\.json reads gone"):
        load(directory, {"logistic": 1.0})
