"""Where models lie: a folder or a URL, read, created and deleted alike."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fake_bundles import fake_bundle

from churn_udf.bundle_store import open_champion
from churn_udf.bundles import bundle_directory, list_bundle_ids, open_bundle
from churn_udf.contracts.bundle import MANIFEST_FILE
from churn_udf.errors import BundleIntegrityError, BundleNotFoundError, StorageError
from churn_udf.models_location import (
    FolderStore,
    UrlStore,
    absolute,
    cache_folder,
    is_url,
    models_dir_of,
    place_of,
    stated,
    store_of,
)
from churn_udf.registry import CHAMPION, move, read_registry

MEMORY = "memory://location-test/models"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHURN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory(cache: Path) -> Iterator[str]:
    yield MEMORY
    system = fsspec.filesystem("memory")
    if system.exists("/location-test"):
        system.rm("/location-test", recursive=True)


@pytest.fixture(params=["folder", "memory", "dir", "simplecache"])
def place(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> Any:
    """A location of each kind: a folder, memory, a folder behind a wrapper, memory behind one."""
    return {
        "folder": tmp_path / "models",
        "memory": memory,
        "dir": f"dir::file://{tmp_path}/models",
        "simplecache": f"simplecache::{memory}",
    }[request.param]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models", Path("models")),
        (" models ", Path("models")),
        ("~/models", Path.home() / "models"),
        ("file:///srv/my%20models", Path("/srv/my models")),
        ("local:///srv/models", Path("/srv/models")),
        ("s3://bucket/models", "s3://bucket/models"),
        ("dir::file:///srv", "dir::file:///srv"),
        (Path("models"), Path("models")),
    ],
)
def test_a_setting_is_a_folder_or_a_url(text: Any, expected: Any) -> None:
    assert models_dir_of(text) == expected
    assert is_url(models_dir_of(text)) is isinstance(expected, str)


def test_a_place_is_named_without_credentials(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_of(Path("models")) == str(tmp_path / "models")
    assert stated(Path("models")) == "models"
    url = "ftp://me:secret@host/models"
    assert place_of(url) == stated(url) == "ftp://***@host/models"
    assert absolute(url) == url
    assert cache_folder(f"{url}/") == cache_folder(url)
    assert cache_folder(url) != cache_folder("ftp://host/models")


def test_files_are_made_once_and_whole(place: Any) -> None:
    store = store_of(place)
    assert store.files("registry") == {}
    assert store.create("registry/1.json", b"one")
    assert not store.create("registry/1.json", b"two")
    assert store.read("registry/1.json") == b"one"
    assert set(store.files("registry")) == {"1.json"}
    assert store.sizes("registry") == {"1.json": 3}
    with pytest.raises(FileNotFoundError):
        store.read("registry/2.json")


def test_a_folder_goes_whole(place: Any) -> None:
    store = store_of(place)
    for name in ("manifest.json", "a.txt", "inner/b.txt"):
        store.create(f"bundles/x/{name}", b"content")
    store.create("bundles/y/a.txt", b"content")
    store.delete("bundles/x", last="manifest.json")
    store.delete("bundles/x", last="manifest.json")
    assert store.sizes("bundles") == {"y/a.txt": 7}


def test_a_deletion_that_dies_leaves_the_last_file(memory: str, monkeypatch: Any) -> None:
    store = UrlStore(memory)
    for name in ("a.txt", "manifest.json", "z.txt"):
        store.create(f"bundles/x/{name}", b"content")
    system = type(fsspec.filesystem("memory"))
    whole = system.rm_file

    def die_at_last(self: Any, path: str) -> None:
        if path.endswith("z.txt"):
            raise ConnectionError("gone")
        whole(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(system, "rm_file", die_at_last)
        with pytest.raises(StorageError, match=r"z\.txt: ConnectionError.*credentials"):
            store.delete("bundles/x", last="manifest.json")
    assert set(store.sizes("bundles/x")) == {"manifest.json", "z.txt"}


def test_what_killed_writers_left_is_swept_after_a_day(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for name in (".deleting-1", ".writing-old", ".writing-new", "0" * 16):
        (tmp_path / "bundles" / name).mkdir(parents=True)
        (tmp_path / "bundles" / name / "file").write_bytes(b"12345")
    old = time.time() - 86_401
    os.utime(tmp_path / "bundles" / ".writing-old", (old, old))
    assert store.sweep("bundles", is_dry_run=True) == 10
    assert len(list((tmp_path / "bundles").iterdir())) == 4
    assert store.sweep("bundles", is_dry_run=False) == 10
    assert {path.name for path in (tmp_path / "bundles").iterdir()} == {".writing-new", "0" * 16}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(StorageError, match=r"registry/1\.json: Not a directory.*permissions"):
        FolderStore(tmp_path / "models").create("registry/1.json", b"x")
    assert FolderStore(tmp_path / "models").files("registry") == {}


@pytest.mark.parametrize("url", ["nothing://x/y", "s4://bucket/models"])
def test_an_unknown_kind_of_url_is_an_expected_failure(url: str) -> None:
    with pytest.raises(StorageError, match="fsspec and its package"):
        store_of(url)


def test_a_bundle_at_a_url_is_used_from_a_verified_copy(memory: str, cache: Path) -> None:
    bundle_id = fake_bundle(memory)
    assert list_bundle_ids(memory) == (bundle_id,)
    shutil.rmtree(cache)
    directory = bundle_directory(memory, bundle_id)
    assert cache in directory.parents
    (directory / "model.json").write_text("{ }")
    assert open_bundle(bundle_directory(memory, bundle_id)).bundle_id == bundle_id
    assert (directory / "model.json").read_text() == "{}"
    move(memory, bundle_id, CHAMPION, reason="test")
    assert open_champion(memory).directory == directory


def test_damage_at_the_url_is_found_before_use(memory: str, cache: Path) -> None:
    bundle_id = fake_bundle(memory)
    shutil.rmtree(cache)
    path = f"/location-test/models/bundles/{bundle_id}/model.json"
    fsspec.filesystem("memory").pipe_file(path, b"{ }")
    with pytest.raises(BundleIntegrityError, match="sha256"):
        move(memory, bundle_id, CHAMPION, reason="test")
    assert read_registry(memory).champion_id is None


def test_an_upload_that_died_is_no_bundle(memory: str, cache: Path) -> None:
    bundle_id = fake_bundle(memory)
    manifest = f"bundles/{bundle_id}/{MANIFEST_FILE}"
    fsspec.filesystem("memory").rm_file(f"/location-test/models/{manifest}")
    assert list_bundle_ids(memory) == ()
    shutil.rmtree(cache)
    with pytest.raises(BundleNotFoundError, match="memory://location-test"):
        bundle_directory(memory, bundle_id)
    assert fake_bundle(memory) == bundle_id
    assert list_bundle_ids(memory) == (bundle_id,)


def test_a_bundle_uploaded_anew_says_when(memory: str) -> None:
    bundle_id = fake_bundle(memory)
    store = store_of(memory)
    name = f"bundles/{bundle_id}/{MANIFEST_FILE}"
    before = json.loads(store.read(name))["created_at"]
    assert fake_bundle(memory) == bundle_id
    assert json.loads(store.read(name))["created_at"] == before
    store.delete(f"bundles/{bundle_id}", last=MANIFEST_FILE)
    time.sleep(0.002)
    assert fake_bundle(memory) == bundle_id
    assert json.loads(store.read(name))["created_at"] > before


def test_every_place_takes_a_model_from_packaging_to_rollback(place: Any) -> None:
    first, second = fake_bundle(place, 1), fake_bundle(place, 2)
    for bundle_id in (first, second):
        move(place, bundle_id, CHAMPION, reason="test")
    assert open_champion(place).bundle_id == second
    assert list_bundle_ids(place) == tuple(sorted([first, second]))
