"""Entries of the registry's log: their files, their checks, and those of earlier releases.

    {"entry_version": 1, "sequence": 2, "moved_at": "...", "bundle_id": "...", ..., "sha256": "..."}

``champion.json`` and ``promotions.jsonl``, which earlier releases wrote, are the entries before the
first numbered one; that its number is fixed once it is made fixes how much of them counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from churn_udf.contracts.bundle import BUNDLE_ID_LENGTH, CHAMPION_FILE, PROMOTIONS_FILE
from churn_udf.errors import BundleIntegrityError
from churn_udf.models_location import ModelsDir, Stamp, Store, place_of, store_of

CANDIDATE, SHADOW, CHAMPION, RETIRED = "candidate", "shadow", "champion", "retired"
STAGES = (CANDIDATE, SHADOW, CHAMPION, RETIRED)
ACTION_MOVE, ACTION_ROLLBACK, ACTION_PRUNE = "move", "rollback", "prune"
ACTIONS = (ACTION_MOVE, ACTION_ROLLBACK, ACTION_PRUNE)
ENTRY_VERSION = 1
REGISTRY_DIR = "registry"
EARLIER_ACTOR = "an earlier release"
ACTOR_VARIABLE = "CHURN_ACTOR"
"""Who moves models, for the log; the operating system's user if unset."""

_ENTRY_NAME = re.compile(r"(\d{8})\.json")
_BUNDLE_ID = re.compile(rf"[0-9a-f]{{{BUNDLE_ID_LENGTH}}}")
_known: dict[tuple[str, str], tuple[Stamp, Transition]] = {}
"""Entries read before, by location and name: they never change, so a stamp is all to look at."""
_known_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transition:
    """One move of one bundle, as logged."""

    sequence: int
    """1 for the oldest, without gaps."""
    moved_at: str
    """UTC, ISO 8601."""
    moved_by: str
    bundle_id: str
    from_stage: str
    to_stage: str
    reason: str
    is_override: bool = False
    """Whether the gate had refused."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """What the gate checked."""
    action: str = ACTION_MOVE
    """``move``, ``rollback`` (to the champion before) or ``prune`` (the files are deleted)."""

    def to_json(self) -> str:
        """Return the text of the entry's file."""
        content = {"entry_version": ENTRY_VERSION, **dataclasses.asdict(self)}
        content["checks"] = [dict(check) for check in self.checks]
        return json.dumps({**content, "sha256": _digest(content)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Transition:
        """Parse an entry.

        Raises:
            ValueError, KeyError, TypeError: It is not what ``to_json`` writes.
        """
        content = json.loads(text)
        stated = content.pop("sha256")
        if content["entry_version"] != ENTRY_VERSION:
            raise ValueError(
                f"entry version {content['entry_version']!r}; this release reads {ENTRY_VERSION}"
            )
        if stated != _digest(content):
            raise ValueError("its content does not fit its sha256")
        del content["entry_version"]
        entry = cls(**{**content, "checks": tuple(content["checks"])})
        datetime.fromisoformat(entry.moved_at)
        for value, allowed in (
            (entry.from_stage, STAGES),
            (entry.to_stage, STAGES),
            (entry.action, ACTIONS),
        ):
            if value not in allowed:
                raise ValueError(f"got {value!r}; allowed: {list(allowed)}")
        if not _BUNDLE_ID.fullmatch(entry.bundle_id):
            raise ValueError(f"bundle_id {entry.bundle_id!r}")
        return entry


def actor() -> str:
    """Return who moves models: the variable ``CHURN_ACTOR``, else the system's user."""
    named = os.environ.get(ACTOR_VARIABLE, "").strip()
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def create_entry(models_dir: ModelsDir, entry: Transition) -> bool:
    """Add an entry to the log; return False when its number is taken.

    Raises:
        StorageError: The location cannot be written.
    """
    name = f"{REGISTRY_DIR}/{_entry_name(entry.sequence)}"
    return store_of(models_dir).create(name, entry.to_json().encode())


def read_transitions(models_dir: ModelsDir) -> tuple[Transition, ...]:
    """Return all moves, oldest first.

    Raises:
        BundleIntegrityError: An entry is damaged or missing.
        StorageError: The location cannot be read.
    """
    store = store_of(models_dir)
    stamps = {
        int(match.group(1)): stamp
        for name, stamp in store.files(REGISTRY_DIR).items()
        if (match := _ENTRY_NAME.fullmatch(name))
    }
    place = place_of(models_dir)
    if not stamps:
        return tuple(_read_earlier(store, place))
    found = {
        sequence: _read_entry(store, place, sequence, stamp)
        for sequence, stamp in sorted(stamps.items())
    }
    # A list made while entries come may lack one that was made before the last it has.
    first, last = min(found), max(found)
    while first > 1 and (earlier := _read_unlisted(store, place, first - 1)):
        first -= 1
        found[first] = earlier
    entries = _read_earlier(store, place, count=first - 1) if first > 1 else []
    for sequence in range(first, last + 1):
        entry = found.get(sequence) or _read_unlisted(store, place, sequence)
        if entry is None:
            raise BundleIntegrityError(
                f"{place}/{REGISTRY_DIR}/{_entry_name(sequence)} is missing, though later entries "
                "are there: the log of models is incomplete. Restore the file from a copy"
            )
        entries.append(entry)
    return tuple(entries)


def _entry_name(sequence: int) -> str:
    """Return the file of an entry."""
    return f"{sequence:08d}.json"


def _digest(content: Mapping[str, Any]) -> str:
    """Return the sha256 of an entry's content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_unlisted(store: Store, place: str, sequence: int) -> Transition | None:
    """Return an entry that a list lacks; None if it is not there."""
    try:
        return _read_entry(store, place, sequence, None)
    except FileNotFoundError:
        return None


def _read_entry(store: Store, place: str, sequence: int, stamp: Stamp | None) -> Transition:
    """Return an entry, read anew only if its file is another one than before."""
    name = _entry_name(sequence)
    with _known_lock:
        known = _known.get((place, name))
    if stamp is not None and known is not None and known[0] == stamp:
        return known[1]
    path = f"{REGISTRY_DIR}/{name}"
    try:
        entry = Transition.from_json(store.read(path).decode())
        if entry.sequence != sequence:
            raise ValueError(f"it states the number {entry.sequence}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleIntegrityError(
            f"{place}/{path} is not an entry of the registry ({type(error).__name__}: {error}): it "
            "was damaged or changed. Restore it from a copy; if there is none and it is the "
            "newest, delete it and move the model again with `churn-train models`"
        ) from error
    if stamp is not None:
        with _known_lock:
            _known[place, name] = (stamp, entry)
    return entry


def _read_earlier(store: Store, place: str, count: int | None = None) -> list[Transition]:
    """Return what an earlier release logged.

    Args:
        store: Where.
        place: Its name for messages.
        count: How many of its promotions are the beginning of the log; None before the first
            numbered entry, when all count, and nothing does without a champion.
    """
    champion = _read_pointer(store, place) if count is None else None
    if count is None and champion is None:
        return []
    promotions = []
    with contextlib.suppress(FileNotFoundError):
        for line in store.read(PROMOTIONS_FILE).decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # cut short by a crash
                promotions.append(_promotion(json.loads(line)))
    if count is not None and count > len(promotions):
        champion = _read_pointer(store, place)
    if champion is not None and (not promotions or promotions[-1] != champion):
        promotions.append(champion)
    if count is not None and count > len(promotions):
        raise BundleIntegrityError(
            f"{place} has {len(promotions)} promotions in {PROMOTIONS_FILE} and {CHAMPION_FILE}, "
            f"but the first entry in {REGISTRY_DIR}/ is number {count + 1}: restore both files, "
            "or the entries before that one, from a copy"
        )
    entries: list[Transition] = []
    promoted: set[str] = set()
    for bundle_id, moved_at, reason in promotions[:count]:
        entries.append(
            Transition(
                sequence=len(entries) + 1,
                moved_at=moved_at,
                moved_by=EARLIER_ACTOR,
                bundle_id=bundle_id,
                from_stage=RETIRED if bundle_id in promoted else CANDIDATE,
                to_stage=CHAMPION,
                reason=reason,
            )
        )
        promoted.add(bundle_id)
    return entries


def _read_pointer(store: Store, place: str) -> tuple[str, str, str] | None:
    """Return ``champion.json`` of an earlier release, None if it is not there."""
    try:
        return _promotion(json.loads(store.read(CHAMPION_FILE)))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BundleIntegrityError(
            f"{place}/{CHAMPION_FILE} is not a champion pointer ({type(error).__name__}: {error}); "
            "restore it from a copy, or delete it and promote a model anew with "
            "`churn-train models promote`"
        ) from error


def _promotion(document: Any) -> tuple[str, str, str]:
    """Return bundle, time and reason of a promotion that an earlier release logged."""
    bundle_id, moved_at = document["bundle_id"], document["promoted_at"]
    datetime.fromisoformat(moved_at)
    if not _BUNDLE_ID.fullmatch(bundle_id):
        raise ValueError(f"bundle_id {bundle_id!r}")
    return bundle_id, moved_at, str(document.get("reason", ""))
