"""What the champion of the cutoff before says of the inputs of now."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from factories import input_batch, model_settings, tiny_bundle
from scoring_world import FEATURES, UNSCORABLE, USERS, refuse_to_load

from churn_udf.bundle_store import bundle_directory, open_bundle, write_bundle
from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import MANIFEST_FILE, WEIGHTS_FILE
from churn_udf.errors import ScoringError
from churn_udf.scoring import Scorer
from churn_udf.warehouse import attribution_model, dbt_model
from churn_udf.warehouse.attribution_model import ATTRIBUTION_SCHEMA, PAIRS, model

PAIRED = 20
"""Users who were scored at the cutoff before: not all."""


def copy_of(models_dir, bundle_id: str, **files: str) -> str:
    """Package a bundle again with other text files; return its id."""
    source = open_bundle(bundle_directory(models_dir, bundle_id))
    paths = [path for path in source.directory.rglob("*") if path.is_file()]
    contents = {str(path.relative_to(source.directory)): path.read_bytes() for path in paths}
    del contents[MANIFEST_FILE]
    return write_bundle(
        models_dir,
        files={**contents, **{f"{name}.json": text for name, text in files.items()}},
        settings=source.manifest.settings,
        features=source.manifest.features,
        training=source.manifest.training,
        versions=source.manifest.versions,
    ).bundle_id


@pytest.fixture
def paired(world):
    """The champion has scored; `pair_with` says who was champion before."""
    scores = dbt_model.model(None, world.session).read_all()

    def pair_with(previous_id: str, rows: int = PAIRED) -> None:
        world.session.register("champion_scores", scores)
        world.session.execute(
            f"create or replace table {PAIRS} as select 'u' || row_number() over () as user_id, "
            f"input_hash, bundle_id, '{previous_id}' as previous_bundle_id, churn_logit, "
            f"churn_probability from champion_scores order by input_hash limit {rows}"
        )
        world.tell(relations={UNSCORABLE: UNSCORABLE, PAIRS: PAIRS})

    world.pair_with = pair_with
    return world


def attributed(world, **options) -> dict[str, dict]:
    """Run the model; return its rows by input."""
    table = model(None, world.session, **options).read_all()
    assert table.schema == ATTRIBUTION_SCHEMA
    rows = {row["input_hash"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    return rows


def offline(world, bundle_id: str) -> dict[str, tuple[float, float]]:
    """Return input to logit and probability."""
    bundle = open_bundle(bundle_directory(world.models_dir, bundle_id))
    table = Scorer.load(bundle, device="cpu").score_batch(input_batch(USERS, FEATURES))
    return {
        row["input_hash"]: (row["churn_logit"], row["churn_probability"])
        for row in table.to_pylist()
    }


def test_the_same_champion_needs_nothing(paired, logged):
    paired.pair_with(paired.champion)
    assert attributed(paired, load_scorer=refuse_to_load) == {}


def test_another_model_scores_the_inputs_of_those_scored_before_alone_and_once(paired, logged):
    previous = copy_of(
        paired.models_dir,
        paired.shadows[0],
        calibration=Calibrator(kind="platt", params={"a": [0.5], "b": [0.1]}).to_json(),
    )
    paired.pair_with(previous)
    rows = attributed(paired)
    assert len(rows) == PAIRED
    ours, theirs = offline(paired, paired.champion), offline(paired, previous)
    calibrator = open_bundle(bundle_directory(paired.models_dir, previous)).calibrator
    for name, row in rows.items():
        assert row["previous_model_probability"] == pytest.approx(theirs[name][1], abs=1e-6)
        expected = calibrator.apply(np.array([ours[name][0]]))[0]
        assert row["previous_calibrator_probability"] == pytest.approx(expected, abs=1e-6)
        assert (row["bundle_id"], row["previous_bundle_id"]) == (paired.champion, previous)
        assert (row["is_same_model"], row["is_same_calibrator"]) == (False, False)
        assert row["unsplit_reason"] is None
    counted = f"select count(*) from churn_score_cache where bundle_id = '{previous}'"
    assert paired.query(counted) == [(PAIRED,)]
    assert attributed(paired, load_scorer=refuse_to_load) == rows


def test_a_bundle_that_differs_in_the_calibrator_alone_is_not_loaded(paired, logged):
    calibrator = Calibrator(kind="platt", params={"a": [-1.0], "b": [0.0]})
    previous = copy_of(paired.models_dir, paired.champion, calibration=calibrator.to_json())
    paired.pair_with(previous)
    ours = offline(paired, paired.champion)
    for name, row in attributed(paired, load_scorer=refuse_to_load).items():
        assert (row["is_same_model"], row["is_same_calibrator"]) == (True, False)
        assert row["previous_model_probability"] == row["previous_calibrator_probability"]
        expected = calibrator.apply(np.array([ours[name][0]]))[0]
        assert row["previous_model_probability"] == pytest.approx(expected, abs=1e-6)


def test_a_bundle_that_differs_in_other_words_alone_is_the_same(paired, logged):
    previous = copy_of(paired.models_dir, paired.champion, metrics='{"of": "another"}')
    paired.pair_with(previous)
    for row in attributed(paired, load_scorer=refuse_to_load).values():
        assert (row["is_same_model"], row["is_same_calibrator"]) == (True, True)


def spoil_weights(world):
    path = bundle_directory(world.models_dir, world.shadows[0]) / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return world.shadows[0]


def delete_bundle(world):
    shutil.rmtree(bundle_directory(world.models_dir, world.shadows[0]))
    return world.shadows[0]


def other_windows(world):
    return tiny_bundle(world.models_dir, FEATURES, model_settings(horizon_days=7)).bundle_id


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_weights, "bundle_unusable"),
        (delete_bundle, "bundle_missing"),
        (other_windows, "bundle_mismatch"),
    ],
)
def test_a_bundle_that_cannot_be_used_gives_a_reason(paired, logged, spoil, reason):
    previous = spoil(paired)
    paired.pair_with(previous)
    rows = attributed(paired, load_scorer=refuse_to_load)
    assert len(rows) == PAIRED
    for row in rows.values():
        assert row["unsplit_reason"] == reason
        assert row["previous_model_probability"] is None
        assert row["previous_calibrator_probability"] is None
    assert f"since {previous} cannot be split by cause ({reason})" in logged[-1]


def test_a_bundle_that_breaks_gives_a_reason(paired, logged, monkeypatch):
    paired.pair_with(paired.shadows[0])

    def break_down(self, batch, **options):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Scorer, "score_or_list", break_down)
    assert {row["unsplit_reason"] for row in attributed(paired).values()} == {"bundle_unusable"}
    assert "the device is gone" in logged[-1]


def test_a_bundle_that_cannot_be_read_gives_a_reason(paired, logged, monkeypatch):
    paired.pair_with(paired.shadows[0])

    def refuse(*_, **__):
        raise PermissionError("weights.safetensors: not yours")

    monkeypatch.setattr(attribution_model, "open_bundle", refuse)
    assert {row["unsplit_reason"] for row in attributed(paired).values()} == {"bundle_unusable"}
    assert "not yours" in logged[-1]


def test_an_interruption_stops_the_build(paired, logged, monkeypatch):
    paired.pair_with(paired.shadows[0])

    class CancellableCursor:
        def __getattr__(self, name):
            return getattr(paired.session, name)

    cursor = CancellableCursor()
    score_or_list = Scorer.score_or_list

    def cancelling_score(self, batch, **options):
        cursor.interrupt()
        return score_or_list(self, batch, **options)

    monkeypatch.setattr(Scorer, "score_or_list", cancelling_score)
    with pytest.raises(ScoringError, match="interrupted"):
        model(None, cursor)


def test_an_input_that_the_bundle_cannot_score_gives_a_reason_for_it_alone(
    paired, logged, monkeypatch
):
    paired.pair_with(paired.shadows[0])
    (bad,) = paired.query(f"select min(input_hash) from {PAIRS}")[0]
    score_or_list = Scorer.score_or_list

    def spoil_one(self, batch, **options):
        index = batch.schema.get_field_index("amount_sum")
        values = [
            float("inf") if name == bad else value
            for name, value in zip(
                batch.column("input_hash").to_pylist(),
                batch.column("amount_sum").to_pylist(),
                strict=True,
            )
        ]
        spoilt = batch.set_column(index, "amount_sum", pa.array(values, pa.float64()))
        return score_or_list(self, spoilt, **options)

    monkeypatch.setattr(Scorer, "score_or_list", spoil_one)
    rows = attributed(paired)
    assert rows[bad]["unsplit_reason"] == "input_unscorable"
    assert rows[bad]["previous_model_probability"] is None
    assert rows[bad]["previous_calibrator_probability"] is None
    others = [row["unsplit_reason"] for name, row in rows.items() if name != bad]
    assert others == [None] * (PAIRED - 1)
    assert attributed(paired, load_scorer=refuse_to_load) == rows
