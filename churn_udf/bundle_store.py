"""The models directory: its bundles, and the one of them that scores.

<models_dir>/bundles/<bundle_id>/   bundles (``churn_udf.bundles``)
<models_dir>/registry/              who moved which bundle to which stage (``churn_udf.registry``)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from churn_udf.bundles import (
    Bundle,
    bundle_directory,
    list_bundle_ids,
    open_bundle,
    require_match,
    write_bundle,
)
from churn_udf.contracts.settings import ModelSettings
from churn_udf.errors import BundleNotFoundError
from churn_udf.models_location import ModelsDir, place_of
from churn_udf.registry import CHAMPION, Transition, move, read_registry

__all__ = [
    "Bundle",
    "Champion",
    "bundle_directory",
    "list_bundle_ids",
    "open_bundle",
    "open_champion",
    "read_champion",
    "read_promotions",
    "require_match",
    "set_champion",
    "write_bundle",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Champion:
    """The bundle that scores, and how it came to."""

    bundle_id: str
    promoted_at: str
    """UTC, ISO 8601."""
    reason: str = ""
    previous_bundle_id: str | None = None
    """The champion that it replaced."""


def open_champion(
    models_dir: ModelsDir,
    *,
    settings: ModelSettings | None = None,
    feature_names: Sequence[str] | None = None,
) -> Bundle:
    """Verify and return the champion's bundle.

    Raises:
        BundleNotFoundError: No champion, or its bundle is gone.
        BundleIntegrityError: The registry or the bundle is damaged.
        BundleMismatchError: See ``open_bundle``.
        StorageError: The location cannot be read.
    """
    champion = read_champion(models_dir)
    if champion is None:
        raise BundleNotFoundError(
            f"no champion in {place_of(models_dir)}; train and promote a model with "
            "`churn-train run`, or set CHURN_MODELS_DIR to the folder that has one"
        )
    directory = bundle_directory(models_dir, champion.bundle_id)
    return open_bundle(directory, settings=settings, feature_names=feature_names)


def read_champion(models_dir: ModelsDir) -> Champion | None:
    """Return the champion, or None when no model was promoted yet.

    Raises:
        BundleIntegrityError: The registry is damaged.
        StorageError: The location cannot be read.
    """
    promotions = read_promotions(models_dir)
    return promotions[-1] if promotions else None


def read_promotions(models_dir: ModelsDir) -> tuple[Champion, ...]:
    """Return all promotions, rollbacks among them, oldest first.

    Raises:
        BundleIntegrityError, StorageError: See ``read_champion``.
    """
    return _promotions(read_registry(models_dir).transitions)


def set_champion(models_dir: ModelsDir, bundle_id: str, *, reason: str) -> Champion:
    """Make a bundle the one that scores; promoting the champion again changes nothing.

    Args:
        models_dir: The models location.
        bundle_id: Which bundle.
        reason: Why, for the log: ``gate passed``, ...

    Returns:
        The champion as it now stands.

    Raises:
        BundleNotFoundError, BundleIntegrityError: The bundle cannot be used; nothing is changed.
    """
    entry = move(models_dir, bundle_id, CHAMPION, reason=reason)
    return _promotions(read_registry(models_dir).transitions[: entry.sequence])[-1]


def _promotions(transitions: Sequence[Transition]) -> tuple[Champion, ...]:
    """Return the moves to champion, each with the champion before."""
    found: list[Champion] = []
    for entry in transitions:
        if entry.to_stage == CHAMPION:
            found.append(
                Champion(
                    bundle_id=entry.bundle_id,
                    promoted_at=entry.moved_at,
                    reason=entry.reason,
                    previous_bundle_id=found[-1].bundle_id if found else None,
                )
            )
    return tuple(found)
