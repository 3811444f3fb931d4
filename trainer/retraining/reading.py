"""Reading the warehouse: a few aggregates, in one short opening of the file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, TypeVar

from trainer.data.export import read_score_cutoff
from trainer.data.warehouse import BUILD_HINT, ChurnContext, Warehouse
from trainer.retraining.decay import log_loss_gain_error
from trainer.retraining.inputs import (
    Bin,
    ChampionFacts,
    CutoffRows,
    DriftFacts,
    OutcomeFacts,
    Unknown,
    WarehouseFacts,
)

T = TypeVar("T")
LOOKED_AT_OUTCOMES = 12
"""Newest matured cutoffs to find one with enough users among."""
CLIPPED = "least(greatest(churn_probability, 2.220446049250313e-16), 1 - 2.220446049250313e-16)"
"""As ``churn_model_performance`` and scikit-learn do it."""


def read_score_cutoff_date(warehouse: Warehouse) -> date:
    """Return the cutoff that scoring uses.

    Raises:
        WarehouseError: No such database or tables, or they were built with other settings.
    """
    with warehouse.cursor() as cursor:
        return read_score_cutoff(cursor, warehouse.context)


def read_warehouse(warehouse: Warehouse, champion: ChampionFacts) -> WarehouseFacts:
    """Return what the warehouse says about the champion; the file is closed again after it.

    A monitoring table that is missing, or has other columns, is ``Unknown``: an older build.

    Args:
        warehouse: Where the tables are.
        champion: Whose rows to read.

    Raises:
        WarehouseError: No such database, or the tables that training needs are missing or were
            built with other settings.
    """
    context = warehouse.context
    with warehouse.cursor() as cursor:
        score_cutoff = read_score_cutoff(cursor, context)
        return WarehouseFacts(
            score_cutoff=score_cutoff,
            cutoffs=_read_cutoffs(cursor, context, score_cutoff, champion.trained_as_of),
            drift=_known(lambda: _read_drift(cursor, context, champion.bundle_id, score_cutoff)),
            outcomes=_known(lambda: _read_outcomes(cursor, context, champion.bundle_id)),
        )


def _known(read: Callable[[], T | Unknown]) -> T | Unknown:
    """Return what is read, or that an older build does not have it."""
    import duckdb

    try:
        return read()
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        first_line = str(error).strip().splitlines()[0]
        return Unknown(reason=f"{first_line}; {BUILD_HINT}")


def _read_cutoffs(
    cursor: Any, context: ChurnContext, score_cutoff: date, trained_as_of: date | None
) -> tuple[CutoffRows, ...]:
    """Return the cutoffs whose labels the champion's snapshot did not know."""
    settings = context.model_settings
    reach = timedelta(days=settings.gap_days + settings.horizon_days)
    newer = "" if trained_as_of is None else f"and cutoff_date > date '{trained_as_of - reach}'"
    rows = cursor.execute(
        "select cutoff_date, count(*), count(case when is_label_mature then 1 end) "
        f"from {context.relation('churn_examples')} "
        f"where cutoff_date <= date '{score_cutoff}' {newer} group by 1 order by 1"
    ).fetchall()
    return tuple(
        CutoffRows(
            cutoff_date=cutoff, matures_on=cutoff + reach, num_rows=num_rows, num_mature=num_mature
        )
        for cutoff, num_rows, num_mature in rows
    )


def _read_drift(
    cursor: Any, context: ChurnContext, bundle_id: str, score_cutoff: date
) -> DriftFacts | Unknown:
    """Return what has drifted at the champion's newest cutoff."""
    relation = _relation(context, "churn_score_drift")
    if isinstance(relation, Unknown):
        return relation
    scope = f"from {relation} where bundle_id = ? and cutoff_date <= date '{score_cutoff}'"
    newest = cursor.execute(f"select max(cutoff_date) {scope}", [bundle_id]).fetchall()[0][0]
    if newest is None:
        return Unknown(
            reason=f"churn_score_drift has no row of {bundle_id}: it has not scored yet, or holds "
            "no reference; run `dbt build`"
        )
    rows = cursor.execute(
        f"select subject_type, subject {scope} and cutoff_date = ? and severity = 'error' "
        "order by 1, 2",
        [bundle_id, newest],
    ).fetchall()
    errors: dict[str, tuple[str, ...]] = {}
    for kind, subject in rows:
        errors[kind] = (*errors.get(kind, ()), subject)
    return DriftFacts(cutoff_date=newest, errors=errors)


def _read_outcomes(
    cursor: Any, context: ChurnContext, bundle_id: str
) -> tuple[OutcomeFacts, ...] | Unknown:
    """Return the champion's newest matured cutoffs that it had not learned from."""
    relation = _relation(context, "churn_model_performance")
    if isinstance(relation, Unknown):
        return relation
    rows = cursor.execute(
        "select cutoff_date, user_count, churned_count, auroc, log_loss, calibration_error "
        f"from {relation} where bundle_id = ? and is_out_of_time "
        f"order by cutoff_date desc limit {LOOKED_AT_OUTCOMES}",
        [bundle_id],
    ).fetchall()
    cutoffs = [row[0] for row in rows]
    bins = _known(lambda: _read_bins(cursor, context, bundle_id, cutoffs))
    errors = _known(lambda: _read_gain_errors(cursor, context, bundle_id, cutoffs))
    return tuple(
        OutcomeFacts(
            cutoff_date=cutoff,
            num_users=num_users,
            num_churned=num_churned,
            auroc=auroc,
            log_loss=log_loss,
            log_loss_gain_error=None if isinstance(errors, Unknown) else errors.get(cutoff),
            calibration_error=calibration_error,
            bins=() if isinstance(bins, Unknown) else bins.get(cutoff, ()),
        )
        for cutoff, num_users, num_churned, auroc, log_loss, calibration_error in rows
    )


def _read_bins(
    cursor: Any, context: ChurnContext, bundle_id: str, cutoffs: list[date]
) -> dict[date, tuple[Bin, ...]]:
    """Return the calibration bins of some cutoffs."""
    rows = cursor.execute(
        "select cutoff_date, user_count, mean_probability "
        f"from {context.relation('churn_calibration_bins')} "
        "where bundle_id = ? and list_contains(?, cutoff_date) order by cutoff_date, bin_number",
        [bundle_id, cutoffs],
    ).fetchall()
    found: dict[date, tuple[Bin, ...]] = {}
    for cutoff, num_users, mean in rows:
        item = Bin(num_users=num_users, mean_probability=mean)
        found[cutoff] = (*found.get(cutoff, ()), item)
    return found


def _read_gain_errors(
    cursor: Any, context: ChurnContext, bundle_id: str, cutoffs: list[date]
) -> dict[date, float]:
    """Return the standard error of the log loss gain of some cutoffs."""
    rows = cursor.execute(
        "with losses as ("
        "select cutoff_date, cast(is_churned as double) as label, "
        f"case when is_churned then -ln({CLIPPED}) else -ln(1 - {CLIPPED}) end as loss "
        f"from {context.relation('churn_score_outcomes')} "
        "where bundle_id = ? and list_contains(?, cutoff_date)) "
        "select cutoff_date, avg(label), count(*), var_samp(loss), var_samp(label), "
        "covar_samp(loss, label) from losses group by 1 having count(*) > 1",
        [bundle_id, cutoffs],
    ).fetchall()
    return {
        cutoff: log_loss_gain_error(base_rate, num_users, *moments)
        for cutoff, base_rate, num_users, *moments in rows
        if 0.0 < base_rate < 1.0
    }


def _relation(context: ChurnContext, model: str) -> str | Unknown:
    """Return a monitoring table's relation; a package that has none is no error."""
    if model not in context.relations:
        return Unknown(reason=f"the dbt package has no {model}; install both of the same release")
    return context.relations[model]
