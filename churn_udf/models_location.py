"""Where models lie: a folder, or any URL that fsspec can open.

Whoever names the place hands over text from a setting; ``models_dir_of`` makes it a ``Path`` or
leaves it a URL, and ``store_of`` reads and writes either. Bundles of a URL are used from a copy in
``cache_folder``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from churn_udf.bundle_files import sync_directory
from churn_udf.errors import StorageError

ModelsDir: TypeAlias = Path | str
"""A folder, or a URL as text."""
Stamp: TypeAlias = tuple[Any, ...]
"""Changes when a file does."""

CACHE_VARIABLE = "CHURN_CACHE_DIR"
LOCK_FILE = ".create.lock"
KILLED_AFTER_SECONDS = 86_400.0
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_ABSENT = (FileNotFoundError, NotADirectoryError)
_LOCAL_SCHEMES = ("file://", "local://")
_creating = threading.Lock()
"""Stores that only look before they write would let two threads create the same file."""


class Store(Protocol):
    """Files under a models location; names are relative, with ``/``."""

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: There is none.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Make a file, whole or not at all; return False when it exists already."""

    def files(self, folder: str) -> dict[str, Stamp]:
        """Return the names right under a folder; empty where there is none."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return path -> bytes of all files under a folder, relative to it."""

    def delete(self, folder: str, *, last: str) -> None:
        """Remove a folder; one that is not there is no error.

        Args:
            folder: Which.
            last: The file in it that goes last where files go one by one.
        """

    def sweep(self, folder: str, *, is_dry_run: bool) -> int:
        """Remove what killed writers and deletions left right under a folder; return its bytes."""


def models_dir_of(text: str | Path) -> ModelsDir:
    """Return a models location as given in a setting: a path, or a URL as it stands.

    Args:
        text: A folder (``~`` is the home), ``file://...``, or another URL for fsspec.
    """
    if isinstance(text, Path):
        return text
    stated = text.strip()
    if stated.startswith(_LOCAL_SCHEMES) and "::" not in stated:
        return Path(unquote(urlsplit(stated).path))
    return stated if is_url(stated) else Path(stated).expanduser()


def absolute(models_dir: ModelsDir) -> ModelsDir:
    """Return a location that holds wherever it is read: an absolute folder, or the URL."""
    return models_dir if is_url(models_dir) else Path(models_dir).absolute()


def is_url(models_dir: ModelsDir) -> bool:
    """Return whether a location is a URL and not a folder."""
    return isinstance(models_dir, str) and ("://" in models_dir or "::" in models_dir)


def stated(models_dir: ModelsDir) -> str:
    """Return a location as text, as it was given but without credentials."""
    return (
        re.sub(r"//[^/@]*@", "//***@", str(models_dir)) if is_url(models_dir) else str(models_dir)
    )


def place_of(models_dir: ModelsDir) -> str:
    """Return a location for messages and as a key: absolute, without credentials."""
    return stated(absolute(models_dir))


def cache_folder(url: str) -> Path:
    """Return the folder for copies of a URL's bundles: under ``CHURN_CACHE_DIR`` if set."""
    base = os.environ.get(CACHE_VARIABLE) or (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "churn_scoring"
    )
    name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return Path(base).expanduser().absolute() / f"models-{name}"


def store_of(models_dir: ModelsDir) -> Store:
    """Return what reads and writes a location; nothing is opened yet.

    Raises:
        StorageError: fsspec, or its package for this kind of URL, is not there.
    """
    if isinstance(models_dir, str) and is_url(models_dir):
        return UrlStore(models_dir)
    return FolderStore(Path(models_dir))


class FolderStore:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        """See ``Store``."""
        with self._explained(name):
            return (self._folder / name).read_bytes()

    def create(self, name: str, content: bytes) -> bool:
        """See ``Store``: the content is on disk before the name is."""
        target = self._folder / name
        scratch = target.with_name(f".writing-{secrets.token_hex(8)}")
        with self._explained(name, expected=()):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with scratch.open("xb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                is_made = _claim(scratch, target)
            finally:
                scratch.unlink(missing_ok=True)
            sync_directory(target.parent)
        return is_made

    def files(self, folder: str) -> dict[str, Stamp]:
        """See ``Store``."""
        found = {}
        gone = contextlib.suppress(*_ABSENT)
        with self._explained(folder), gone, os.scandir(self._folder / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # a scratch file, since renamed
                    facts = entry.stat()
                    found[entry.name] = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        return found

    def sizes(self, folder: str) -> dict[str, int]:
        """See ``Store``."""
        root = self._folder / folder
        return {
            path.relative_to(root).as_posix(): path.lstat().st_size
            for path in root.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }

    def delete(self, folder: str, *, last: str) -> None:
        """See ``Store``: the name goes first, so that nobody sees half of it."""
        target = self._folder / folder
        doomed = target.with_name(f".deleting-{secrets.token_hex(8)}")
        with self._explained(folder), contextlib.suppress(FileNotFoundError):
            target.rename(doomed)
            shutil.rmtree(doomed)

    def sweep(self, folder: str, *, is_dry_run: bool) -> int:
        """See ``Store``: a writer that began within a day may still be at it."""
        root = self._folder / folder
        old = time.time() - KILLED_AFTER_SECONDS
        left = [*root.glob(".deleting-*")]
        left += [path for path in root.glob(".writing-*") if path.stat().st_mtime < old]
        byte_count = sum(sum(self.sizes(f"{folder}/{path.name}").values()) for path in left)
        for path in () if is_dry_run else left:
            with self._explained(f"{folder}/{path.name}"):
                shutil.rmtree(path)
        return byte_count

    @contextlib.contextmanager
    def _explained(
        self, name: str, *, expected: tuple[type[OSError], ...] = _ABSENT
    ) -> Iterator[None]:
        """Turn what the operating system raises into one error that says where."""
        try:
            yield
        except expected:
            raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StorageError(
                f"{self._folder / name}: {reason}. Check permissions, mounts and free space, then "
                "run the same again"
            ) from error


class UrlStore:
    """A URL of any kind that fsspec knows.

    Only the store itself can let exactly one of two writers on two machines create a file: S3,
    Google and Azure storage can, and memory within a process. With others a writer looks before
    it writes and reads back after.
    """

    def __init__(self, url: str) -> None:
        self._place = place_of(url)
        try:
            from fsspec.core import url_to_fs

            self._system, root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"models_dir {self._place}: {error}. Install fsspec and its package for this "
                "kind of address (s3fs, gcsfs, adlfs, ...), or name a folder"
            ) from error
        self._root = str(root).rstrip("/")

    def read(self, name: str) -> bytes:
        """See ``Store``."""
        with self._explained(name):
            return bytes(self._system.cat_file(f"{self._root}/{name}"))

    def create(self, name: str, content: bytes) -> bool:
        """See ``Store``."""
        path = f"{self._root}/{name}"
        folder = _folder_of(self._system, self._root)
        if folder is not None:
            return FolderStore(folder).create(name, content)
        with self._explained(name), _creating:
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.invalidate_cache(path.rpartition("/")[0])
            if self._system.exists(path):  # some kinds know no mode "create" and would overwrite
                return False
            try:
                self._system.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            return bytes(self._system.cat_file(path)) == content

    def files(self, folder: str) -> dict[str, Stamp]:
        """See ``Store``."""
        found = {}
        with self._explained(folder), contextlib.suppress(FileNotFoundError):
            path = f"{self._root}/{folder}"
            self._system.invalidate_cache(path)
            for facts in self._system.ls(path, detail=True):
                name = str(facts["name"]).rstrip("/").rpartition("/")[2]
                stamp = [facts.get(key) for key in ("mtime", "created", "LastModified", "ETag")]
                found[name] = (facts.get("size"), *map(str, stamp))
        return found

    def sizes(self, folder: str) -> dict[str, int]:
        """See ``Store``."""
        with self._explained(folder):
            path = f"{self._root}/{folder}"
            self._system.invalidate_cache(path)
            found = self._system.find(path, detail=True)
            start = len(self._system._strip_protocol(path)) + 1
            return {name[start:]: int(facts["size"]) for name, facts in found.items()}

    def delete(self, folder: str, *, last: str) -> None:
        """See ``Store``."""
        root = f"{self._root}/{folder}"
        for name in sorted(self.sizes(folder), key=lambda name: name == last):
            with self._explained(f"{folder}/{name}"), contextlib.suppress(FileNotFoundError):
                self._system.rm_file(f"{root}/{name}")
        with contextlib.suppress(FileNotFoundError, OSError):
            self._system.rm(root, recursive=True)  # folders that are left, where there are such

    def sweep(self, folder: str, *, is_dry_run: bool) -> int:
        """See ``Store``: an upload has its manifest last, so what lacks one is harmless."""
        return 0

    def download(self, name: str, target: Path) -> None:
        """Copy a file to a local path.

        Raises:
            FileNotFoundError: There is none.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(name):
            self._system.get_file(f"{self._root}/{name}", str(target))

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file here, over one that is there."""
        path = f"{self._root}/{name}"
        with self._explained(name):
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(source), path)

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turn whatever a backend raises into one error that says where."""
        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except Exception as error:
            raise StorageError(
                f"{self._place}/{name}: {type(error).__name__}: {error}. Check the address, the "
                "credentials and the network, then run the same again"
            ) from error


def _folder_of(system: Any, root: str) -> Path | None:
    """Return the folder that a URL is behind its wrappers; None if it is something else."""
    from fsspec.implementations.cached import CachingFileSystem
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem

    while isinstance(system, (CachingFileSystem, DirFileSystem)):
        root = str(system._join(root)) if isinstance(system, DirFileSystem) else root
        system = system.fs
    return Path(root) if isinstance(system, LocalFileSystem) else None


def _claim(scratch: Path, target: Path) -> bool:
    """Give a written file its name unless the name is taken."""
    try:
        os.link(scratch, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with (target.parent / LOCK_FILE).open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if target.exists():
                return False
            scratch.replace(target)
    return True
