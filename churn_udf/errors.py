"""Errors of the product: every expected failure is a ``ChurnError`` with a message to act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class ChurnError(Exception):
    """An expected failure; its message says what was wrong, what is allowed and what to do."""


class ContractError(ChurnError):
    """Data or settings that do not match a shared contract."""


class SettingsError(ContractError):
    """dbt vars that are missing or of a wrong type or range."""


class SnapshotSchemaError(ContractError):
    """A snapshot whose files, columns or types are not what the contract says."""


class TextVersionError(ContractError):
    """Text made by another version of the serialization than the reader knows."""


class BundleError(ChurnError):
    """A model bundle cannot be used."""


class BundleNotFoundError(BundleError):
    """There is no bundle, or no champion, at the place looked at."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, damaged or changed."""


class BundleMismatchError(BundleError):
    """The bundle was trained for other windows, text or features than those asked for."""


class ScoringError(ChurnError):
    """Rows that cannot be given a score."""


class PublishError(ChurnError):
    """Tables cannot be published as files, or what was published cannot be read."""


class InputError(ChurnError):
    """Input of ``churn-score`` that cannot be read, or lacks what the model needs."""


class OutputError(ChurnError):
    """Output of ``churn-score`` that cannot be written."""


class StorageError(ChurnError):
    """The place where models lie cannot be read or written."""


class StageError(ChurnError):
    """A model cannot be moved to the stage asked for."""


class ChampionChangedError(StageError):
    """Somebody promoted another model while this move was being decided."""


@contextlib.contextmanager
def damage_named(file: str) -> Iterator[None]:
    """Name the file of a bundle that is being parsed when its content is not what it should be.

    Raises:
        BundleIntegrityError: A value is missing or of another kind.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BundleIntegrityError(
            f"{file} is damaged ({type(error).__name__}: {error}); "
            "restore the bundle or run `churn-train run`"
        ) from error
