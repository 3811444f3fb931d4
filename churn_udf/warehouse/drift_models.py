"""Body of the dbt Python model ``int_drift_references``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pyarrow as pa

from churn_udf.bundles import list_bundle_ids, read_bundle_file
from churn_udf.contracts.bundle import REFERENCE_FILE
from churn_udf.contracts.reference import (
    BAND_FEATURES,
    OTHER_TOKEN,
    BaseRates,
    Distribution,
    Reference,
    TokenCounts,
)
from churn_udf.errors import BundleIntegrityError
from churn_udf.registry import CHAMPION, SHADOW, read_registry
from churn_udf.warehouse import dbt_model
from churn_udf.warehouse.registry_models import session_models_dir

REFERENCES_SCHEMA = pa.schema(
    [
        ("bundle_id", pa.string()),
        ("part", pa.string()),
        ("subject_type", pa.string()),
        ("subject", pa.string()),
        ("position", pa.int32()),
        ("row_count", pa.int64()),
        ("known_count", pa.int64()),
        ("user_count", pa.int64()),
        ("churned_count", pa.int64()),
        ("value", pa.float64()),
        ("mean", pa.float64()),
        ("standard_deviation", pa.float64()),
        ("spread", pa.float64()),
        ("first_cutoff_date", pa.date32()),
        ("last_cutoff_date", pa.date32()),
    ]
)
"""``part`` says what a row is: ``bundle``, ``subject`` (a feature, word or the score), ``bin`` with
its upper bound as ``value``, ``point`` of a distribution, ``band`` bound or ``stratum``."""

Row = dict[str, Any]


def drift_references(dbt: Any, session: Any) -> pa.Table:
    """Return the references of the champion and the shadows, as rows.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.

    Returns:
        ``REFERENCES_SCHEMA`` rows; none of a bundle without a reference, or with one that this
        release cannot read: a warning names it, and the scores are published all the same.

    Raises:
        BundleIntegrityError: The registry is damaged.
        SettingsError: The profile lacks the plugin.
        StorageError: The location cannot be read.
    """
    models_dir = session_models_dir(session)
    registry = read_registry(models_dir)
    rows: list[Row] = []
    for bundle_id in list_bundle_ids(models_dir):
        if registry.stage_of(bundle_id) not in (CHAMPION, SHADOW):
            continue
        document = read_bundle_file(models_dir, bundle_id, REFERENCE_FILE)
        if document is None:
            continue
        path = f"{bundle_id}/{REFERENCE_FILE}"
        try:
            found = list(reference_rows(Reference.from_mapping(document, path=path)))
        except (BundleIntegrityError, TypeError, ValueError) as error:
            dbt_model.warn(f"no drift of {bundle_id} in this build, its scores stand. {error}")
            continue
        rows += [{"bundle_id": bundle_id, **row} for row in found]
    return pa.Table.from_pylist(rows, REFERENCES_SCHEMA)


def reference_rows(reference: Reference) -> Iterator[Row]:
    """Yield the rows of one reference, without its bundle."""
    rates = reference.base_rates
    yield {
        "part": "bundle",
        "row_count": rates.row_count if rates else None,
        "churned_count": rates.churned_count if rates else None,
        "first_cutoff_date": date.fromisoformat(reference.first_cutoff),
        "last_cutoff_date": date.fromisoformat(reference.last_cutoff),
    }
    for feature in reference.features:
        yield from _distribution_rows("feature", feature)
    yield from _distribution_rows("score", reference.score)
    yield from _token_rows(reference.tokens)
    if rates is not None:
        yield from _base_rate_rows(rates)


def _distribution_rows(subject_type: str, found: Distribution) -> Iterator[Row]:
    """Yield a subject, its bins and its points."""
    subject = {"subject_type": subject_type, "subject": found.name}
    yield {
        **subject,
        "part": "subject",
        "row_count": found.row_count,
        "known_count": found.known_count,
        "user_count": found.user_count,
        "mean": found.mean,
        "standard_deviation": found.standard_deviation,
        "spread": found.spread,
    }
    bounds = (*found.bin_upper_bounds, None)
    for position, (bound, count) in enumerate(zip(bounds, found.bin_counts, strict=True)):
        yield {**subject, "part": "bin", "position": position, "value": bound, "row_count": count}
    for value, count in zip(found.point_values, found.point_counts, strict=True):
        yield {**subject, "part": "point", "value": value, "row_count": count}


def _token_rows(tokens: TokenCounts) -> Iterator[Row]:
    """Yield a subject for each word, and one for all others."""
    counted = [*zip(tokens.words, tokens.counts, strict=True), (OTHER_TOKEN, tokens.other_count)]
    for word, count in counted:
        share = count / tokens.row_count if tokens.row_count else None
        yield {
            "part": "subject",
            "subject_type": "token",
            "subject": word,
            "row_count": tokens.row_count,
            "known_count": count,
            "user_count": tokens.user_count,
            "mean": share,
            "standard_deviation": None if share is None else (share * (1.0 - share)) ** 0.5,
        }


def _base_rate_rows(rates: BaseRates) -> Iterator[Row]:
    """Yield the bounds of the bands and the strata that they make."""
    for feature, bounds in zip(BAND_FEATURES, rates.band_bounds, strict=True):
        for position, bound in enumerate(bounds):
            yield {"part": "band", "subject": feature, "position": position, "value": bound}
    counted = zip(rates.strata, rates.stratum_counts, rates.stratum_churned_counts, strict=True)
    for stratum, count, churned in counted:
        yield {
            "part": "stratum",
            "position": stratum,
            "row_count": count,
            "churned_count": churned,
        }
