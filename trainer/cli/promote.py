"""``churn-train promote``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trainer.cli import options as shared

if TYPE_CHECKING:
    from trainer.release.gate.promoting import Promotion

DEFAULT_REASON = "promoted by hand"


@click.command(name="promote")
@click.argument("bundle", required=False)
@click.option("--reason", help=f"Why, for the log of models.  [default: {DEFAULT_REASON}]")
@click.option(
    "--override",
    "is_override",
    is_flag=True,
    help="Promote it although the gate refuses; needs --reason, which is logged.  [default: off]",
)
@shared.warehouse_options
@shared.config_options
@shared.snapshots_dir_option
@shared.runs_dir_option
@shared.models_dir_option
@shared.dry_run_option
@shared.output_options
def command(bundle: str | None, reason: str | None, is_override: bool, **options: Any) -> None:
    """Choose the bundle that the next `dbt build` scores with, if the gate lets it.

    BUNDLE is a bundle id or run id, or the beginning of one; without it the newest one is
    promoted. A bundle that passed the gate before is not judged again: promoting it is a rollback.
    Exit code 3: a check of the gate refuses it.
    """
    if is_override and not (reason or "").strip():
        raise click.UsageError("--override needs --reason: why promote what the gate refuses?")
    from trainer.release.gate import Places
    from trainer.release.gate.promoting import promote_gated
    from trainer.release.registry import find_bundle_id

    warehouse = shared.named_warehouse(options)
    models_dir = shared.resolve_models_dir(options, warehouse)
    places = Places(
        warehouse=warehouse,
        runs_dir=options["runs_dir"],
        snapshots_dir=options["snapshots_dir"],
    )
    promotion = promote_gated(
        models_dir,
        find_bundle_id(models_dir, bundle),
        shared.make_config(options),
        places,
        reason=(reason or "").strip() or DEFAULT_REASON,
        is_override=is_override,
        dry_run=options["dry_run"],
        progress=shared.make_progress(options),
    )
    shared.emit(options, _document(promotion, options), _text(promotion, options))
    if not promotion.is_promoted and promotion.verdict is not None:
        error = promotion.verdict.error()
        assert error is not None
        raise error


def _document(promotion: Promotion, options: dict[str, Any]) -> dict[str, Any]:
    """Return the result for machines."""
    verdict = promotion.verdict
    return {
        "bundle_id": promotion.bundle_id,
        "previous_bundle_id": promotion.previous_bundle_id,
        "is_promoted": promotion.is_promoted and not options["dry_run"],
        "is_override": promotion.is_override,
        "is_passed": verdict is None or verdict.is_passed,
        "checks": verdict.to_dicts() if verdict else [],
        "dry_run": options["dry_run"],
    }


def _text(promotion: Promotion, options: dict[str, Any]) -> str:
    """Return the result for people."""
    from trainer.release.gate import gate_table

    lines = []
    if promotion.verdict is None:
        lines.append("the gate was not asked: this bundle has been the champion")
    else:
        lines.append(gate_table(promotion.verdict.checks))
    before = f"(before: {promotion.previous_bundle_id or 'none'})"
    if not promotion.is_promoted:
        return "\n".join([*lines, f"bundle {promotion.bundle_id} is refused"])
    verb = "would be" if options["dry_run"] else "is"
    override = ", against the gate" if promotion.is_override else ""
    champion = f"champion {verb} {promotion.bundle_id} {before}{override}"
    return "\n".join([*lines, champion, "next: dbt build"])
