"""Models loaded in this process, one at a time, shared by SQL function and Python models."""

from __future__ import annotations

import threading

from churn_udf.bundle_store import Bundle, open_bundle, open_champion, read_champion
from churn_udf.models_location import ModelsDir, absolute
from churn_udf.scoring import Scorer

_lock = threading.RLock()
_scorers: dict[tuple[str, str], Scorer] = {}


def champion_scorer(models_dir: ModelsDir, *, device: str = "auto") -> Scorer:
    """Return the champion's scorer, loading it when it is not the one loaded before.

    Each call reads the registry, so a promotion takes effect at the next call.

    Args:
        models_dir: The models location.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        BundleNotFoundError: No champion.
        BundleIntegrityError: Registry or bundle damaged.
        BundleMismatchError: The bundle reads another version of the text.
    """
    key = (str(absolute(models_dir)), device)
    with _lock:
        loaded = _scorers.get(key)
        champion = read_champion(models_dir)
        if loaded and champion and loaded.bundle.bundle_id == champion.bundle_id:
            return loaded
        del loaded  # it would stay in memory while the next one is loaded
        return _load(key, open_champion(models_dir))


def scorer_of(bundle: Bundle, models_dir: ModelsDir, *, device: str = "auto") -> Scorer:
    """Return the scorer of a bundle that was just verified, loading it if need be."""
    key = (str(absolute(models_dir)), device)
    with _lock:
        loaded = _scorers.get(key)
        if loaded and loaded.bundle.bundle_id == bundle.bundle_id:
            return loaded
        del loaded  # it would stay in memory while the next one is loaded
        return _load(key, bundle)


def forget_scorer(bundle_id: str) -> None:
    """Drop a model that is not needed any more, so that its memory is free."""
    with _lock:
        for key in [key for key, one in _scorers.items() if one.bundle.bundle_id == bundle_id]:
            del _scorers[key]


def forget_scorers() -> None:
    """Drop all loaded models, so that the next use verifies and loads anew."""
    with _lock:
        _scorers.clear()


def _load(key: tuple[str, str], bundle: Bundle) -> Scorer:
    """Load a bundle in place of the one loaded before: one model in memory at a time."""
    _scorers.pop(key, None)
    scorer = Scorer.load(bundle, device=key[1])
    open_bundle(bundle.directory)  # its files were verified before they were read: still the same?
    _scorers[key] = scorer
    return scorer
