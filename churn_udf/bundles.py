"""Bundles in a models location: write, verify, open and list them.

    <models_dir>/bundles/<bundle_id>/   one bundle, immutable (docs/bundle_format.md)

A bundle of a URL is copied to a local folder once, and verified there like any other. Nothing in a
bundle is unpickled: a file of a kind not in ``bundle_files.ALLOWED_SUFFIXES`` is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from churn_udf.bundle_files import (
    RESTORE_HINT,
    read_text,
    require_allowed,
    sync_directory,
    sync_tree,
    verify_files,
)
from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import (
    BUNDLE_ID_LENGTH,
    BUNDLES_DIR,
    CALIBRATION_FILE,
    MANIFEST_FILE,
    THRESHOLDS_FILE,
    BundleManifest,
    FeatureSpec,
    sha256_of_file,
)
from churn_udf.contracts.settings import TEXT_VERSION, ModelSettings
from churn_udf.errors import BundleIntegrityError, BundleMismatchError, BundleNotFoundError
from churn_udf.models_location import (
    ModelsDir,
    UrlStore,
    cache_folder,
    is_url,
    place_of,
    store_of,
)
from churn_udf.thresholds import Thresholds

_BUNDLE_ID = re.compile(rf"[0-9a-f]{{{BUNDLE_ID_LENGTH}}}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle: every byte is what its manifest says."""

    manifest: BundleManifest
    directory: Path
    calibrator: Calibrator
    thresholds: Thresholds

    @property
    def bundle_id(self) -> str:
        """Hash of the content, also the directory's name."""
        return self.manifest.bundle_id

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Numeric inputs in model order."""
        return tuple(feature.name for feature in self.manifest.features)


def bundle_directory(models_dir: ModelsDir, bundle_id: str) -> Path:
    """Return the local folder of a bundle; one at a URL is copied there first if need be.

    Raises:
        BundleNotFoundError: The id is not 16 hex digits, or there is no such bundle at the URL.
        BundleIntegrityError: The bundle at the URL is damaged.
        StorageError: The URL cannot be read.
    """
    if not _BUNDLE_ID.fullmatch(bundle_id):
        raise BundleNotFoundError(
            f"bundle id {bundle_id!r}; allowed: {BUNDLE_ID_LENGTH} hex digits, one of "
            f"{list(list_bundle_ids(models_dir))}"
        )
    if isinstance(models_dir, str) and is_url(models_dir):
        return _local_copy(models_dir, bundle_id)
    return Path(models_dir) / BUNDLES_DIR / bundle_id


def list_bundle_ids(models_dir: ModelsDir) -> tuple[str, ...]:
    """Return the ids of all bundles in a models location, sorted; empty if there is none."""
    store = store_of(models_dir)
    found = sorted(name for name in store.files(BUNDLES_DIR) if _BUNDLE_ID.fullmatch(name))
    if is_url(models_dir):  # the manifest is uploaded last, so one without it is not whole
        found = [name for name in found if MANIFEST_FILE in store.files(f"{BUNDLES_DIR}/{name}")]
    return tuple(found)


def read_bundle_file(models_dir: ModelsDir, bundle_id: str, name: str) -> dict[str, Any] | None:
    """Return a JSON file of a bundle without verifying it; None if it cannot be read.

    Args:
        models_dir: The models location.
        bundle_id: Which bundle.
        name: ``manifest.json`` or another file of it.

    Raises:
        StorageError: The location cannot be read.
    """
    store = store_of(models_dir)
    try:
        document = json.loads(store.read(f"{BUNDLES_DIR}/{bundle_id}/{name}"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def open_bundle(
    directory: Path,
    *,
    settings: ModelSettings | None = None,
    feature_names: Sequence[str] | None = None,
) -> Bundle:
    """Verify a bundle directory and return it.

    Args:
        directory: A ``<models_dir>/bundles/<bundle_id>`` directory.
        settings: Settings of the warehouse; checked against the bundle's if given.
        feature_names: Feature columns of the warehouse, in order; checked if given.

    Raises:
        BundleNotFoundError: There is no such directory.
        BundleIntegrityError: A file is missing, extra, damaged, changed, a link or not allowed.
        BundleMismatchError: Other windows, text version or features than asked for.
    """
    if not directory.is_dir():
        raise _not_found(str(directory), directory.parent.parent)
    manifest_path = directory / MANIFEST_FILE
    if manifest_path.is_symlink() or not manifest_path.is_file():
        raise BundleIntegrityError(f"{directory} has no {MANIFEST_FILE}; {RESTORE_HINT}")
    manifest = BundleManifest.from_json(read_text(manifest_path), path=manifest_path)
    if directory.name != manifest.bundle_id:
        raise BundleIntegrityError(
            f"{directory} holds bundle {manifest.bundle_id!r}: the directory was renamed or "
            f"its files were swapped; {RESTORE_HINT}"
        )
    verify_files(directory, manifest)
    require_match(manifest, settings, feature_names)
    return Bundle(
        manifest=manifest,
        directory=directory,
        calibrator=Calibrator.from_json(read_text(directory / CALIBRATION_FILE)),
        thresholds=Thresholds.from_json(read_text(directory / THRESHOLDS_FILE)),
    )


def write_bundle(
    models_dir: ModelsDir,
    *,
    files: Mapping[str, Path | str | bytes],
    settings: ModelSettings,
    features: Sequence[FeatureSpec],
    training: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Bundle:
    """Write a bundle under a temporary name, verify it there and rename it into place.

    A killed writer leaves no half bundle. Writing the same content again returns the bundle
    that is there; a damaged one of the same id is replaced.

    Args:
        models_dir: The models location; made if missing.
        files: Path inside the bundle (POSIX, relative) -> a file to copy, or its content.
        settings: Settings the model was trained with.
        features: Numeric inputs in model order.
        training: See ``BundleManifest.training``; JSON-ready, free of times and local paths.
        versions: Package versions.

    Returns:
        The verified bundle: at its final place or, for a URL, the copy that was uploaded.

    Raises:
        BundleIntegrityError: A required file is missing or one is not allowed.
        StorageError: The URL cannot be written.
    """
    with _scratch(models_dir) as scratch:
        for name, source in files.items():
            require_allowed(name)
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, Path):
                shutil.copyfile(source, target)
            else:
                target.write_bytes(source if isinstance(source, bytes) else source.encode())
        manifest = BundleManifest(
            settings=settings,
            features=tuple(features),
            training=json.loads(json.dumps(dict(training))),
            versions=dict(versions),
            files={name: sha256_of_file(scratch / name) for name in sorted(files)},
        )
        (scratch / MANIFEST_FILE).write_text(
            manifest.to_json(created_at=_now()), encoding="utf-8", newline="\n"
        )
        bundle = _settle(scratch, manifest.bundle_id)
    if isinstance(models_dir, str) and is_url(models_dir):
        _upload(models_dir, bundle)
    return bundle


@contextlib.contextmanager
def _scratch(models_dir: ModelsDir) -> Iterator[Path]:
    """Make a folder beside the local bundles of a location, gone afterwards."""
    is_remote = isinstance(models_dir, str) and is_url(models_dir)
    parent = (cache_folder(str(models_dir)) if is_remote else Path(models_dir)) / BUNDLES_DIR
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _settle(scratch: Path, bundle_id: str) -> Bundle:
    """Verify the files in a scratch folder and move them to their final place beside it."""
    staged = scratch / bundle_id
    staged.mkdir()
    for entry in [entry for entry in scratch.iterdir() if entry != staged]:
        entry.rename(staged / entry.name)
    open_bundle(staged)
    sync_tree(staged)
    return open_bundle(_publish(staged, scratch.parent / bundle_id))


def _local_copy(url: str, bundle_id: str) -> Path:
    """Return the folder with a copy of a bundle of a URL; a damaged copy is made anew."""
    final = cache_folder(url) / BUNDLES_DIR / bundle_id
    with contextlib.suppress(BundleNotFoundError, BundleIntegrityError):
        return open_bundle(final).directory
    store = UrlStore(url)
    remote = f"{BUNDLES_DIR}/{bundle_id}"
    with _scratch(url) as scratch:
        try:
            store.download(f"{remote}/{MANIFEST_FILE}", scratch / MANIFEST_FILE)
            manifest = BundleManifest.from_json(
                read_text(scratch / MANIFEST_FILE), path=f"{place_of(url)}/{remote}/{MANIFEST_FILE}"
            )
            for name in manifest.files:
                require_allowed(name)
                store.download(f"{remote}/{name}", scratch / name)
        except FileNotFoundError as error:
            raise _not_found(f"{place_of(url)}/{remote}", url) from error
        return _settle(scratch, bundle_id).directory


def _upload(url: str, bundle: Bundle) -> None:
    """Copy a bundle to a URL unless it is there; its manifest goes last."""
    store = UrlStore(url)
    remote = f"{BUNDLES_DIR}/{bundle.bundle_id}"
    names = [*sorted(bundle.manifest.files), MANIFEST_FILE]
    sizes = {name: (bundle.directory / name).stat().st_size for name in names}
    if store.sizes(remote) == sizes:
        return
    for name in names[:-1]:
        store.upload(bundle.directory / name, f"{remote}/{name}")
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / MANIFEST_FILE  # there it is new, though the copy may be old
        manifest.write_text(
            bundle.manifest.to_json(created_at=_now()), encoding="utf-8", newline="\n"
        )
        store.upload(manifest, f"{remote}/{MANIFEST_FILE}")


def _not_found(place: str, models_dir: ModelsDir) -> BundleNotFoundError:
    """Return the error that a bundle is not there."""
    return BundleNotFoundError(
        f"no bundle at {place}; train one with `churn-train run`, or choose one of "
        f"{list(list_bundle_ids(models_dir))} with `churn-train promote`"
    )


def _publish(staged: Path, final: Path) -> Path:
    """Rename the staged directory into place, keeping an intact one that is there."""
    if final.is_dir():
        try:
            open_bundle(final)
            return final
        except BundleIntegrityError:
            final.rename(staged.parent / "damaged")
    try:
        staged.rename(final)
    except OSError:
        open_bundle(final)  # Another writer was first with the same content, or re-raise why not.
    sync_directory(final.parent)
    return final


def require_match(
    manifest: BundleManifest,
    settings: ModelSettings | None,
    feature_names: Sequence[str] | None,
) -> None:
    """Compare a bundle with the code's text version and the warehouse's settings and features.

    Raises:
        BundleMismatchError: Names what differs and what to run.
    """
    if manifest.settings.text_version != TEXT_VERSION:
        raise BundleMismatchError(
            f"bundle {manifest.bundle_id} reads text version {manifest.settings.text_version}, "
            f"this release writes {TEXT_VERSION}; train a new model with `churn-train run`"
        )
    if settings is not None:
        manifest.settings.require_same(settings, bundle_id=manifest.bundle_id)
    if feature_names is None:
        return
    mine, theirs = [feature.name for feature in manifest.features], list(feature_names)
    if mine != theirs:
        only_mine = [name for name in mine if name not in set(theirs)]
        only_theirs = [name for name in theirs if name not in set(mine)]
        what = f"only in the bundle {only_mine}, only in the warehouse {only_theirs}"
        if not only_mine and not only_theirs:
            first = next(pair for pair in zip(mine, theirs, strict=True) if pair[0] != pair[1])
            what = f"same names in another order, first {first[0]!r} against {first[1]!r}"
        raise BundleMismatchError(
            f"bundle {manifest.bundle_id} was trained on other features: {what}. Run "
            "`churn-train run` to train and promote a model for the features in use"
        )


def _now() -> str:
    """Return the time in UTC, ISO 8601, milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
