"""Files of a bundle: what is allowed, checking every byte, and writes that survive a crash."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath

from churn_udf.contracts.bundle import (
    MANIFEST_FILE,
    REQUIRED_FILES,
    TOKENIZER_DIR,
    BundleManifest,
    sha256_of_file,
)
from churn_udf.errors import BundleIntegrityError

ALLOWED_SUFFIXES = frozenset({".json", ".safetensors", ".txt", ".md", ".model"})
"""Kinds of file a bundle may hold: text and safetensors, nothing that runs code when read."""

RESTORE_HINT = (
    "restore the bundle from a copy, train a new model with `churn-train run`, or point to "
    "another one with `churn-train promote`"
)


def verify_files(directory: Path, manifest: BundleManifest) -> None:
    """Check that the files are exactly the manifest's, byte for byte."""
    stated = set(manifest.files)
    missing_required = sorted(set(REQUIRED_FILES) - stated)
    if missing_required or not any(name.startswith(f"{TOKENIZER_DIR}/") for name in stated):
        raise BundleIntegrityError(
            f"{directory}: the manifest lacks {missing_required or TOKENIZER_DIR}; {RESTORE_HINT}"
        )
    for name in stated:
        require_allowed(name)
    found = set()
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BundleIntegrityError(
                f"{path} is a link or special file; bundles hold plain files; {RESTORE_HINT}"
            )
        if path.is_file() and name != MANIFEST_FILE:
            found.add(name)
    if found != stated:
        raise BundleIntegrityError(
            f"{directory}: files missing {sorted(stated - found)}, files not in the manifest "
            f"{sorted(found - stated)}; {RESTORE_HINT}"
        )
    for name, expected in sorted(manifest.files.items()):
        actual = sha256_of_file(directory / name)
        if actual != expected:
            raise BundleIntegrityError(
                f"{directory / name} has sha256 {actual}, the manifest says {expected}: it was "
                f"damaged or changed; {RESTORE_HINT}"
            )


def require_allowed(name: str) -> None:
    """Refuse paths that leave the bundle and kinds of file that could run code."""
    path = PurePosixPath(name)
    is_inside = name == path.as_posix() and not path.is_absolute() and ".." not in path.parts
    if not is_inside or "\\" in name or name == MANIFEST_FILE:
        raise BundleIntegrityError(f"bundle file {name!r}; allowed: a relative path inside it")
    if path.suffix not in ALLOWED_SUFFIXES:
        raise BundleIntegrityError(
            f"bundle file {name!r} is of a kind that is never loaded; allowed: "
            f"{sorted(ALLOWED_SUFFIXES)} (no pickled weights); {RESTORE_HINT}"
        )


def replace_file(path: Path, text: str) -> None:
    """Write a file so that readers see the old text or the new, also after a power cut."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_tree(directory: Path) -> None:
    """Flush all files and directories of a tree to disk."""
    for path in directory.rglob("*"):
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text; bytes that are not UTF-8 fail later as damaged JSON."""
    return path.read_text(encoding="utf-8", errors="replace")
