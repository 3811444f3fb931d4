"""Models in stage shadow score beside the champion and can do it no harm."""

import gc
import shutil
import weakref

import duckdb
import pytest
from factories import model_settings, tiny_bundle
from scoring_world import FEATURES, UNSCORABLE, USERS, refuse_to_load

from churn_udf.bundle_store import bundle_directory, set_champion
from churn_udf.contracts.bundle import WEIGHTS_FILE
from churn_udf.errors import ScoringError
from churn_udf.scoring import Scorer
from churn_udf.warehouse import dbt_model
from churn_udf.warehouse.shadow_model import model


def test_every_shadow_scores_every_input_once(world, warned, logged):
    world.stage()
    assert world.scored() == dict.fromkeys(world.shadows, USERS)
    assert [line for line in logged if line.startswith("shadow")] == [
        f"shadow {name}: {USERS} distinct inputs at the score cutoff, {USERS} to score"
        for name in sorted(world.shadows)
    ]
    assert world.scored(load_scorer=refuse_to_load) == dict.fromkeys(world.shadows, USERS)
    assert warned == []


def test_without_a_shadow_or_a_champion_nothing_is_scored(world, warned):
    assert world.scored(load_scorer=refuse_to_load) == {}
    world.stage()
    shutil.rmtree(world.models_dir / "registry")
    assert world.scored(load_scorer=refuse_to_load) == {}
    assert warned == []


def test_scores_of_a_promoted_shadow_are_the_champions(world, warned, monkeypatch):
    world.stage()
    world.scored()
    set_champion(world.models_dir, world.shadows[0], reason="test")
    monkeypatch.setattr(dbt_model, "scorer_of", refuse_to_load)
    result = dbt_model.model(None, world.session, load_scorer=refuse_to_load).read_all()
    assert set(result.column("bundle_id").to_pylist()) == {world.shadows[0]}
    assert world.scored(load_scorer=refuse_to_load) == {world.shadows[1]: USERS}


def spoil_weights(world):
    path = bundle_directory(world.models_dir, world.shadows[0]) / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def delete_bundle(world):
    shutil.rmtree(bundle_directory(world.models_dir, world.shadows[0]))


@pytest.mark.parametrize(
    ("spoil", "seen"), [(spoil_weights, "sha256"), (delete_bundle, "no bundle")]
)
def test_a_shadow_that_cannot_be_opened_is_left_out(world, warned, spoil, seen):
    world.stage()
    spoil(world)
    assert world.scored() == {world.shadows[1]: USERS}
    (warning,) = warned
    assert warning.startswith(f"shadow {world.shadows[0]} is left out")
    assert seen in warning


def test_a_shadow_of_other_windows_or_features_is_left_out(world, warned):
    windows = tiny_bundle(world.models_dir, FEATURES, model_settings(horizon_days=7)).bundle_id
    features = tiny_bundle(world.models_dir, FEATURES[:2]).bundle_id
    world.stage("shadow", windows, features)
    assert world.scored() == {}
    told = "\n".join(warned)
    assert "horizon_days: bundle 7, warehouse 30" in told
    assert "amount_sum" in told


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, duckdb.IOException])
def test_a_shadow_that_breaks_is_left_out_and_goes_on_next_time(
    world, warned, logged, monkeypatch, error
):
    monkeypatch.setattr(dbt_model, "FIRST_CHUNK_ROWS", 10)
    monkeypatch.setattr(dbt_model, "CHUNK_SECONDS", 0.0)
    world.stage("shadow", world.shadows[0])
    score_or_list, calls = Scorer.score_or_list, []

    def break_down(self, batch, **options):
        calls.append(batch.num_rows)
        if len(calls) == 2:
            raise error("out of everything")
        return score_or_list(self, batch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_or_list", break_down)
        assert world.scored() == {}
    assert "out of everything" in warned[0]
    assert error.__name__ in warned[0]
    assert world.scored() == {world.shadows[0]: USERS}
    assert logged[-2].endswith(f"{USERS} distinct inputs at the score cutoff, 20 to score")


def test_an_interruption_stops_the_build(world, logged, warned, monkeypatch):
    world.stage()

    class CancellableCursor:
        def __getattr__(self, name):
            return getattr(world.session, name)

    cursor = CancellableCursor()
    score_or_list = Scorer.score_or_list

    def cancelling_score(self, batch, **options):
        cursor.interrupt()
        return score_or_list(self, batch, **options)

    monkeypatch.setattr(Scorer, "score_or_list", cancelling_score)
    with pytest.raises(ScoringError, match="interrupted"):
        model(None, cursor)
    assert warned == []


def test_a_damaged_registry_leaves_all_shadows_out(world, warned):
    world.stage()
    newest = max((world.models_dir / "registry").glob("*.json"))
    newest.write_text("{}")
    assert world.scored() == {}
    assert "no shadow scores in this build" in warned[0]


def test_an_input_that_a_shadow_cannot_score_is_told_and_fails_nothing(world, warned, logged):
    world.stage("shadow", world.shadows[0])
    world.session.execute("update examples set amount_sum = 'inf' where user_id in ('u3', 'u7')")
    world.session.execute("update examples set user_id = null where user_id = 'u9'")
    assert world.scored() == {world.shadows[0]: USERS - 3}
    assert warned == []
    assert "2 infinite_feature" in logged[-1]
    assert world.scored(load_scorer=refuse_to_load) == {world.shadows[0]: USERS - 3}
    listed = f"select input_hash, bundle_id from {UNSCORABLE} order by 1"
    assert [row[1] for row in world.query(listed)] == [world.shadows[0]] * 2
    world.session.execute("delete from examples where user_id = 'u3'")
    world.stage("retired", world.shadows[0])
    assert world.scored() == {}
    assert len(world.query(listed)) == 1  # nothing of a user who is gone stays


def test_a_full_refresh_scores_anew(world, warned, logged):
    world.stage()
    world.scored()
    world.tell(is_full_refresh=True)
    assert world.scored() == dict.fromkeys(world.shadows, USERS)
    assert logged[-2].endswith(f"{USERS} to score")


def test_one_model_at_a_time_is_in_memory_and_none_in_the_end(world, warned, monkeypatch):
    world.stage()
    loaded: list[weakref.ref] = []
    alive: list[int] = []
    load = Scorer.load.__func__

    def count_and_load(cls, bundle, **options):
        gc.collect()
        alive.append(sum(one() is not None for one in loaded))
        scorer = load(cls, bundle, **options)
        loaded.append(weakref.ref(scorer))
        return scorer

    monkeypatch.setattr(Scorer, "load", classmethod(count_and_load))
    dbt_model.model(None, world.session)
    world.scored()
    gc.collect()
    assert alive == [0, 0, 0]
    assert [one() for one in loaded] == [None] * 3
