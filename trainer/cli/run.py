"""``churn-train run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trainer.cli import options as shared

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.data.warehouse import Warehouse
    from trainer.pipeline import RunOutcome, Workspace


@click.command(name="run")
@shared.warehouse_options
@shared.fit_options
@shared.config_options
@shared.snapshots_dir_option
@shared.runs_dir_option
@shared.models_dir_option
@click.option("--force", is_flag=True, help="Retrain even if nothing changed.  [default: off]")
@click.option(
    "--if-due",
    is_flag=True,
    help="Train only if a new model is due by age, new labels, drift or decay of quality "
    "(settings retraining.*); says which.  [default: off]",
)
@click.option(
    "--promote/--no-promote",
    "should_promote",
    default=True,
    show_default=True,
    help="Make the model the champion when it passes the gate.",
)
@shared.dry_run_option
@shared.output_options
def command(force: bool, if_due: bool, should_promote: bool, dry_run: bool, **options: Any) -> None:
    """Snapshot, fit, evaluate, package and promote: everything between two dbt builds.

    Nothing is done twice: with the same rows, settings and code the earlier model stands. A run
    that was killed goes on where it stopped. Exit code 3: the model was packaged, but a check of
    the gate refused it and the champion stays.
    """
    if force and if_due:
        raise click.UsageError("--force and --if-due exclude each other; give one of them")
    config = shared.make_config(options)
    from trainer.cli.tables import retraining_table
    from trainer.pipeline import run_all
    from trainer.scheduled import run_if_due

    warehouse = shared.make_warehouse(options)
    workspace = shared.make_workspace(options, warehouse=warehouse)
    found: dict[str, Any] = {}
    if if_due:
        night = run_if_due(
            warehouse, config, workspace, should_promote=should_promote, dry_run=dry_run
        )
        found = {"retraining": night.plan.to_dict(), "was_run": night.outcome is not None}
        if night.outcome is None:
            shared.emit(options, {**found, "dry_run": dry_run}, retraining_table(night.plan))
            return
        outcome = night.outcome
    elif dry_run:
        _emit_plan(options, warehouse, config, workspace)
        return
    else:
        outcome = run_all(warehouse, config, workspace, force=force, should_promote=should_promote)
    document = {
        **found,
        "run_id": outcome.run_id,
        "snapshot_id": outcome.snapshot_id,
        "bundle_id": outcome.bundle_id,
        "is_champion": outcome.is_champion,
        "was_skipped": outcome.was_skipped,
        "gate": str(outcome.gate_error) if outcome.gate_error else None,
        "gate_checks": outcome.verdict.to_dicts() if outcome.verdict else [],
        "report": str(outcome.report),
        "metrics": outcome.metrics,
    }
    checks = f"{retraining_table(night.plan)}\n\n" if if_due else ""
    shared.emit(options, document, f"{checks}{_summary(outcome)}")
    if outcome.gate_error:
        raise outcome.gate_error


def _summary(outcome: RunOutcome) -> str:
    """Return the result for people."""
    from trainer.cli.tables import metric_table, split_table, verdict
    from trainer.release.gate import gate_table

    gate = ["", gate_table(outcome.verdict.checks), ""] if outcome.verdict else []
    role = "champion" if outcome.is_champion else "not promoted"
    state = "unchanged" if outcome.was_skipped else "trained"
    return "\n".join(
        [
            split_table(outcome.metrics["splits"]),
            "",
            metric_table(outcome.metrics),
            "",
            verdict(outcome.metrics),
            *gate,
            f"snapshot {outcome.snapshot_id}, run {outcome.run_id} ({state}), "
            f"bundle {outcome.bundle_id} ({role})",
            f"report: {outcome.report}",
            "next: dbt build" if outcome.is_champion else "next: churn-train promote",
        ]
    )


def _emit_plan(
    options: dict[str, Any], warehouse: Warehouse, config: TrainConfig, workspace: Workspace
) -> None:
    """Print what would be done, after checking settings, project and tables."""
    from churn_udf.models_location import stated
    from trainer.config import to_mapping, to_yaml
    from trainer.data.export import read_score_cutoff

    with warehouse.cursor() as cursor:
        score_cutoff = read_score_cutoff(cursor, warehouse.context).isoformat()
    folders = {
        "snapshots_dir": str(workspace.snapshots_dir),
        "runs_dir": str(workspace.runs_dir),
        "models_dir": stated(workspace.models_dir),
    }
    document = {
        "dry_run": True,
        "score_cutoff_date": score_cutoff,
        "folders": folders,
        "config": to_mapping(config),
        "vars": warehouse.context.settings,
    }
    places = "\n".join(f"# {name}: {value}" for name, value in folders.items())
    text = f"# would snapshot, fit, evaluate, package and promote; score cutoff {score_cutoff}\n"
    shared.emit(options, document, f"{text}{places}\n{to_yaml(config)}".rstrip())
