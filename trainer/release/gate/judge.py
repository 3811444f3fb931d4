"""Judging a candidate: every check of the gate, in order, and the verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from churn_udf.errors import ChurnError
from churn_udf.models_location import ModelsDir
from churn_udf.registry import read_registry
from trainer.config import TrainConfig
from trainer.data.warehouse import Warehouse
from trainer.progress import Progress
from trainer.release.gate.against_champion import against_champion
from trainer.release.gate.checks import GateCheck, GateVerdict, at_most, failed, not_checked
from trainer.release.gate.evidence import (
    Cutoff,
    Model,
    Recipe,
    WarehouseNow,
    cutoff_of_snapshot,
    find_snapshot_of,
    newest_matured,
    open_snapshot,
    read_recipe,
    read_warehouse,
)
from trainer.release.gate.metric_checks import metric_checks
from trainer.release.gate.shipped_checks import Sampling, rows_check, shipped_checks
from trainer.release.gate.snapshot_checks import (
    files_check,
    labels_check,
    now_checks,
    settings_check,
)
from trainer.release.parity import compare_candidate

NO_WAREHOUSE = (
    "no warehouse was named; give --project-dir, --profiles-dir, --target and --vars of `dbt build`"
)
OTHER_SETTINGS = "not scored, as snapshot_settings names settings that differ"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where the gate finds what a candidate came from; None where that is not known."""

    warehouse: Warehouse | None = None
    runs_dir: Path | None = None
    snapshots_dir: Path | None = None


def judge_candidate(
    models_dir: ModelsDir,
    bundle_id: str,
    config: TrainConfig,
    places: Places,
    *,
    progress: Progress | None = None,
) -> GateVerdict:
    """Make every check of the gate; nothing is written.

    Args:
        models_dir: Where the bundles are.
        bundle_id: The candidate.
        config: Settings; ``gate`` has the bounds.
        places: Warehouse, runs and snapshots.
        progress: Shows the steps.

    Returns:
        All checks, and the champion they were made against: pass it to ``registry.move`` as
        ``expected_champion``.

    Raises:
        BundleError: The candidate, or the registry, is damaged or not there.
    """
    progress = progress or Progress(quiet=True)
    with progress.step("gate"):
        champion_id = read_registry(models_dir).champion_id
        candidate = Model.open(models_dir, bundle_id)
        checks = _Judge(models_dir, champion_id, candidate, config, places).checks()
    return GateVerdict(bundle_id=bundle_id, checks=tuple(checks), expected_champion=champion_id)


class _Judge:
    """The checks of one candidate, sharing what they read."""

    def __init__(
        self,
        models_dir: ModelsDir,
        champion_id: str | None,
        candidate: Model,
        config: TrainConfig,
        places: Places,
    ) -> None:
        self._models_dir = models_dir
        self._champion_id = champion_id
        self._candidate = candidate
        self._config = config
        self._gate = config.gate
        self._places = places
        training = candidate.bundle.manifest.training
        path = find_snapshot_of(training, places.runs_dir, places.snapshots_dir)
        self._snapshot, self._snapshot_problem = open_snapshot(path)
        self._now, self._warehouse_problem = self._read_warehouse()

    def checks(self) -> list[GateCheck]:
        """Return every check."""
        settings = settings_check(
            self._candidate.bundle,
            self._snapshot,
            self._now.settings if self._now else None,
            self._now.feature_names if self._now else None,
        )
        return [
            *self._snapshot_checks(settings),
            *metric_checks(self._candidate.metrics, self._gate),
            *self._score_checks(settings),
            self._parity_check(settings),
        ]

    def _read_warehouse(self) -> tuple[WarehouseNow | None, str]:
        """Return what the warehouse tells, or why it tells nothing."""
        if self._places.warehouse is None:
            return None, NO_WAREHOUSE
        cutoff = newest_matured(self._snapshot) if self._snapshot else None
        try:
            return read_warehouse(self._places.warehouse, cutoff, self._config), ""
        except ChurnError as error:
            return None, str(error)

    def _snapshot_checks(self, settings: GateCheck) -> list[GateCheck]:
        """Check what the candidate learned from."""
        snapshot, now, unchecked = self._snapshot, self._now, self._gate.unchecked
        checks = [
            files_check(self._candidate.bundle, snapshot, self._snapshot_problem, unchecked),
            settings,
        ]
        if snapshot is None:
            return checks
        checks.append(labels_check(snapshot, now.data_end_date if now else None))
        if now is None:
            why = self._warehouse_problem
            return [*checks, not_checked("snapshot_label_changes", why, unchecked)]
        return [*checks, *now_checks(snapshot, now, self._gate)]

    def _cutoff(self) -> Cutoff | None:
        """Return the newest matured cutoff: the warehouse's, else the snapshot's."""
        if self._now is not None:
            return self._now.newest
        newest = newest_matured(self._snapshot) if self._snapshot else None
        if self._snapshot is None or newest is None:
            return None
        return cutoff_of_snapshot(self._snapshot, newest, self._config)

    def _score_checks(self, settings: GateCheck) -> list[GateCheck]:
        """Score the newest matured cutoff with the bundle itself, and compare."""
        cutoff = self._cutoff()
        if cutoff is None:
            why = "no labelled cutoff: neither warehouse nor snapshot has one here"
            return [not_checked("shipped_auroc", why, self._gate.unchecked)]
        if not settings.is_passed:
            return [failed("shipped_auroc", OTHER_SETTINGS)]
        checks = [rows_check(cutoff.outcomes, self._gate)]
        candidate, config = self._candidate, self._config
        try:
            probabilities = candidate.score(cutoff.table, config.fit.device)
        except ChurnError as error:
            return [*checks, failed("shipped_auroc", f"the bundle cannot score: {error}")]
        checks += shipped_checks(
            cutoff.outcomes, probabilities, candidate.metrics, self._gate, Sampling.of(config)
        )
        return checks + against_champion(
            self._models_dir,
            self._champion_id,
            candidate,
            cutoff,
            probabilities,
            self._recipe(),
            self._snapshot,
            config,
        )

    def _recipe(self) -> Recipe | None:
        """Return the test predictions of the candidate's own run, where they are here."""
        runs_dir, bundle = self._places.runs_dir, self._candidate.bundle
        run_id = str(bundle.manifest.training.get("run_id", ""))
        if runs_dir is None or not run_id:
            return None
        model = str(self._candidate.metrics.get("model", ""))
        return read_recipe(runs_dir / run_id, bundle.bundle_id, model)

    def _parity_check(self, settings: GateCheck) -> GateCheck:
        """Score rows in the warehouse and offline."""
        unchecked = self._gate.unchecked
        if self._places.warehouse is None or self._now is None:
            return not_checked("parity", self._warehouse_problem, unchecked)
        if not settings.is_passed:
            return failed("parity", OTHER_SETTINGS)
        try:
            found = compare_candidate(
                self._places.warehouse,
                self._candidate.bundle,
                max_rows=self._gate.parity_rows,
                device=self._config.fit.device,
            )
        except ChurnError as error:
            return failed("parity", f"the bundle cannot score in the warehouse: {error}")
        check = at_most(
            "parity",
            found.difference,
            found.allowed,
            "",
            dataclasses.asdict(found),
        )
        words = (
            f"scores in the warehouse and offline differ by up to {found.difference:.1e} on "
            f"{found.num_rows:,} rows; at most {found.allowed:.0e}"
        )
        return dataclasses.replace(check, message=words)
