"""The models directory: write, verify and open bundles, and move the champion pointer.

    <models_dir>/bundles/<bundle_id>/   one bundle, immutable (docs/bundle_format.md)
    <models_dir>/champion.json          which bundle scores, replaced atomically
    <models_dir>/promotions.jsonl       one line per promotion, only ever appended to

Nothing in a bundle is unpickled: a file of a kind not in ``bundle_files.ALLOWED_SUFFIXES``
is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
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
    replace_file,
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
    CHAMPION_FILE,
    MANIFEST_FILE,
    PROMOTIONS_FILE,
    THRESHOLDS_FILE,
    BundleManifest,
    FeatureSpec,
    sha256_of_file,
)
from churn_udf.contracts.settings import TEXT_VERSION, ModelSettings
from churn_udf.errors import BundleIntegrityError, BundleMismatchError, BundleNotFoundError
from churn_udf.thresholds import Thresholds

LOCK_FILE = ".promote.lock"
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Champion:
    """The pointer to the bundle that scores."""

    bundle_id: str
    promoted_at: str
    """UTC, ISO 8601."""
    reason: str = ""
    previous_bundle_id: str | None = None


def bundle_directory(models_dir: Path, bundle_id: str) -> Path:
    """Return where a bundle of this id lives.

    Raises:
        BundleNotFoundError: The id is not 16 hex digits.
    """
    if not _BUNDLE_ID.fullmatch(bundle_id):
        raise BundleNotFoundError(
            f"bundle id {bundle_id!r}; allowed: {BUNDLE_ID_LENGTH} hex digits, one of "
            f"{list(list_bundle_ids(models_dir))}"
        )
    return models_dir / BUNDLES_DIR / bundle_id


def list_bundle_ids(models_dir: Path) -> tuple[str, ...]:
    """Return the ids of all bundles in the models directory, sorted; empty if there is none."""
    parent = models_dir / BUNDLES_DIR
    if not parent.is_dir():
        return ()
    return tuple(sorted(path.name for path in parent.iterdir() if _BUNDLE_ID.fullmatch(path.name)))


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
        raise BundleNotFoundError(
            f"no bundle at {directory}; train one with `churn-train run`, or choose one of "
            f"{list(list_bundle_ids(directory.parent.parent))} with `churn-train promote`"
        )
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


def open_champion(
    models_dir: Path,
    *,
    settings: ModelSettings | None = None,
    feature_names: Sequence[str] | None = None,
) -> Bundle:
    """Verify and return the bundle that the champion pointer names.

    Raises:
        BundleNotFoundError: No champion, or its bundle is gone.
        BundleIntegrityError: The pointer or the bundle is damaged.
        BundleMismatchError: See ``open_bundle``.
    """
    champion = read_champion(models_dir)
    if champion is None:
        raise BundleNotFoundError(
            f"no champion in {models_dir.absolute()}; train and promote a model with "
            "`churn-train run`, or set CHURN_MODELS_DIR to the folder that has one"
        )
    directory = bundle_directory(models_dir, champion.bundle_id)
    return open_bundle(directory, settings=settings, feature_names=feature_names)


def read_champion(models_dir: Path) -> Champion | None:
    """Return the champion pointer, or None when no model was promoted yet.

    Raises:
        BundleIntegrityError: The pointer file is not what ``set_champion`` writes.
    """
    path = models_dir / CHAMPION_FILE
    try:
        text = read_text(path)
    except FileNotFoundError:
        return None
    try:
        document = json.loads(text)
        champion = Champion(
            bundle_id=document["bundle_id"],
            promoted_at=document["promoted_at"],
            reason=document.get("reason", ""),
            previous_bundle_id=document.get("previous_bundle_id"),
        )
        if not _BUNDLE_ID.fullmatch(champion.bundle_id):
            raise ValueError(f"bundle_id {champion.bundle_id!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleIntegrityError(
            f"{path} is not a champion pointer ({type(error).__name__}: {error}); write it anew "
            f"with `churn-train promote`; bundles here: {list(list_bundle_ids(models_dir))}"
        ) from error
    return champion


def read_promotions(models_dir: Path) -> tuple[Champion, ...]:
    """Return all promotions, oldest first; a line cut short by a crash is left out."""
    promotions = []
    path = models_dir / PROMOTIONS_FILE
    for line in read_text(path).splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError):
            promotions.append(Champion(**json.loads(line)))
    return tuple(promotions)


def set_champion(models_dir: Path, bundle_id: str, *, reason: str) -> Champion:
    """Make a bundle the one that scores: verify it, replace the pointer, log the promotion.

    Two promotions at once take turns by a lock; a reader sees the old pointer or the new one.
    Promoting the champion again changes nothing.

    Args:
        models_dir: The models directory.
        bundle_id: Which bundle.
        reason: Why, for the log: ``gate passed``, ``rollback``, ...

    Returns:
        The pointer as it now stands.

    Raises:
        BundleNotFoundError, BundleIntegrityError: The bundle cannot be used; pointer unchanged.
    """
    open_bundle(bundle_directory(models_dir, bundle_id))
    with _lock(models_dir):
        try:
            current = read_champion(models_dir)
        except BundleIntegrityError:
            current = None  # A damaged pointer is what promoting repairs.
        if current is not None:
            _log_if_missing(models_dir, current)
            if current.bundle_id == bundle_id:
                return current
        champion = Champion(
            bundle_id=bundle_id,
            promoted_at=_now(),
            reason=reason,
            previous_bundle_id=current.bundle_id if current else None,
        )
        text = json.dumps(dataclasses.asdict(champion), indent=2, sort_keys=True) + "\n"
        replace_file(models_dir / CHAMPION_FILE, text)
        _log_if_missing(models_dir, champion)
        return champion


def write_bundle(
    models_dir: Path,
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
        models_dir: The models directory; made if missing.
        files: Path inside the bundle (POSIX, relative) -> a file to copy, or its content.
        settings: Settings the model was trained with.
        features: Numeric inputs in model order.
        training: See ``BundleManifest.training``; JSON-ready, free of times and local paths.
        versions: Package versions.

    Returns:
        The verified bundle at its final place.

    Raises:
        BundleIntegrityError: A required file is missing or one is not allowed.
    """
    parent = models_dir / BUNDLES_DIR
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
    try:
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
        staged = scratch / manifest.bundle_id
        staged.mkdir()
        for entry in [entry for entry in scratch.iterdir() if entry != staged]:
            entry.rename(staged / entry.name)
        open_bundle(staged)
        sync_tree(staged)
        return open_bundle(_publish(staged, parent / manifest.bundle_id))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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


@contextlib.contextmanager
def _lock(models_dir: Path) -> Iterator[None]:
    """Hold the promotion lock; the operating system frees it if the process dies."""
    import fcntl

    with (models_dir / LOCK_FILE).open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _log_if_missing(models_dir: Path, champion: Champion) -> None:
    """Append the promotion to the log unless its last line already is this one."""
    promotions = read_promotions(models_dir)
    if promotions and promotions[-1] == champion:
        return
    path = models_dir / PROMOTIONS_FILE
    is_cut_short = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size
    with path.open("a", encoding="utf-8", newline="\n") as stream:
        if is_cut_short:
            stream.write("\n")
        stream.write(json.dumps(dataclasses.asdict(champion), sort_keys=True) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _now() -> str:
    """Return the time in UTC, ISO 8601, seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
