"""The candidate against the champion, on an equal footing as far as there is one.

See ``docs/decisions/adr-0014-gate.md``: with ``fit.refit: all`` what ships knows labels up to the
score cutoff, so at the newest matured cutoff it is not a test; the run's test predictions are. The
champion is tested fairly at a cutoff only if it has learned no label that reaches beyond it.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import numpy as np

from churn_udf.bundles import require_match
from churn_udf.errors import ChurnError
from churn_udf.models_location import ModelsDir
from trainer.config import TrainConfig
from trainer.data.snapshot import Snapshot
from trainer.release.gate.checks import GateCheck
from trainer.release.gate.evidence import Cutoff, FloatArray, Model, Recipe, cutoff_of_snapshot
from trainer.release.gate.shipped_checks import Outcomes, Sampling, champion_checks

BUNDLES, RECIPE, IN_SAMPLE, UNFAIR = "bundles", "recipe", "in_sample", "unfair"
HANDICAP = "handicap"
HOW = {
    BUNDLES: "bundle against bundle, out of time for both",
    RECIPE: "the candidate's test predictions against the champion's bundle, out of time for both",
    IN_SAMPLE: "bundle against bundle, in sample",
    HANDICAP: "the candidate's test predictions against a champion that knows these labels",
    UNFAIR: "bundle against bundle; the champion has learned these labels, the candidate has not",
}


def footing_of(
    cutoff: datetime.date,
    test_cutoff: datetime.date | None,
    *,
    is_known_to_mine: bool,
    is_known_to_theirs: bool,
    is_test_known_to_theirs: bool,
) -> str:
    """Return on what footing candidate and champion are compared.

    Args:
        cutoff: The newest matured cutoff.
        test_cutoff: That of the candidate's test predictions, None where there are none.
        is_known_to_mine: Whether the candidate has learned labels beyond the cutoff.
        is_known_to_theirs: Whether the champion has.
        is_test_known_to_theirs: Whether the champion has learned labels beyond the test cutoff.
    """
    if not is_known_to_mine and not is_known_to_theirs:
        return BUNDLES
    if test_cutoff is not None and not is_test_known_to_theirs:
        return RECIPE
    return IN_SAMPLE if is_known_to_mine else UNFAIR


def against_champion(
    models_dir: ModelsDir,
    champion_id: str | None,
    candidate: Model,
    cutoff: Cutoff,
    probabilities: FloatArray,
    recipe: Recipe | None,
    snapshot: Snapshot | None,
    config: TrainConfig,
) -> list[GateCheck]:
    """Compare a candidate with the champion.

    Args:
        models_dir: Where the bundles are.
        champion_id: The champion, None before the first.
        candidate: The candidate.
        cutoff: The newest matured cutoff.
        probabilities: (N,) of the candidate's bundle at that cutoff.
        recipe: Test predictions of the candidate's run, where there are any.
        snapshot: What it learned from, for the rows of the test.
        config: Settings.
    """
    if champion_id is None:
        return [_passed("there is no champion yet: nobody to be worse than")]
    device = config.fit.device
    try:
        champion = Model.open(models_dir, champion_id)
        bundle = candidate.bundle
        require_match(champion.bundle.manifest, bundle.manifest.settings, bundle.feature_names)
        theirs = champion.score(cutoff.table, device)
    except ChurnError as error:
        return [_passed(f"champion {champion_id} cannot score these rows: {error}")]
    sampling = Sampling.of(config)
    date = cutoff.outcomes.cutoff_date
    test = _test_rows(recipe, cutoff, snapshot, config)
    test_date = test.outcomes.cutoff_date if test is not None else None
    footing = footing_of(
        date,
        test_date,
        is_known_to_mine=candidate.knows(date),
        is_known_to_theirs=champion.knows(date),
        is_test_known_to_theirs=test_date is None or champion.knows(test_date),
    )
    detail: dict[str, Any] = {
        "champion": champion_id,
        "footing": footing,
        "how": HOW[footing],
        "candidate_trained_until": _iso(candidate.trained_until),
        "champion_trained_until": _iso(champion.trained_until),
    }
    shipped = champion_checks(cutoff.outcomes, probabilities, theirs, config.gate, sampling, detail)
    if footing == UNFAIR:
        return [_excused(check) for check in shipped]
    if footing == BUNDLES or test is None or recipe is None:
        return shipped
    if test_date == date:
        by_user = dict(zip(cutoff.outcomes.users.tolist(), theirs, strict=True))
        theirs = np.asarray([by_user[user] for user in test.outcomes.users.tolist()])
    else:
        theirs = champion.score(test.table, device)
    tested = champion_checks(
        test.outcomes,
        np.asarray([recipe.probabilities[user] for user in test.outcomes.users.tolist()]),
        theirs,
        config.gate,
        sampling,
        {**detail, "how": HOW[RECIPE if footing == RECIPE else HANDICAP]},
    )
    if footing == RECIPE:
        return [*tested, *(_of_bundle(check) for check in shipped)]
    is_needless = all(check.is_passed for check in shipped)
    return shipped if is_needless or not all(check.is_passed for check in tested) else tested


def _test_rows(
    recipe: Recipe | None, cutoff: Cutoff, snapshot: Snapshot | None, config: TrainConfig
) -> Cutoff | None:
    """Return the rows that the recipe predicted, with their inputs; None where unknown."""
    if recipe is None:
        return None
    if recipe.cutoff_date == cutoff.outcomes.cutoff_date:
        found = cutoff
    elif snapshot is not None:
        found = cutoff_of_snapshot(snapshot, recipe.cutoff_date, config)
    else:
        return None
    users = found.outcomes.users
    kept = np.flatnonzero([user in recipe.probabilities for user in users.tolist()])
    if not len(kept):
        return None
    outcomes = Outcomes(
        cutoff_date=found.outcomes.cutoff_date,
        users=users[kept],
        labels=found.outcomes.labels[kept],
        source=found.outcomes.source,
    )
    return Cutoff(outcomes=outcomes, table=found.table.take(kept))


def _passed(message: str) -> GateCheck:
    """Return a passed check without a number."""
    return GateCheck(name="champion_auroc", value=None, limit=None, is_passed=True, message=message)


def _excused(check: GateCheck) -> GateCheck:
    """Return a comparison that decides nothing, as the champion knows the answers."""
    why = "this decides nothing: baselines and the other checks do"
    return dataclasses.replace(check, is_passed=True, message=f"{check.message}; {why}")


def _of_bundle(check: GateCheck) -> GateCheck:
    """Return a comparison of the bundle that knows the labels: it can only look too good."""
    return dataclasses.replace(
        check,
        name=f"shipped_{check.name}",
        message=check.message.replace(HOW[RECIPE], "the bundle, in sample"),
    )


def _iso(date: datetime.date | None) -> str | None:
    """Return a date as text."""
    return date.isoformat() if date is not None else None
