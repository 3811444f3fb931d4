"""What is done to the shop in which week, which alarm must follow, and the story of the models."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.bundle_store import bundle_directory, open_bundle, write_bundle
from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import CALIBRATION_FILE, MANIFEST_FILE
from simulated_year.replay import REFUSED, Replay

WEEK = datetime.timedelta(days=7)
FAR = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weeks:
    """Numbers of the nights, counted from the first: what happens in the week before each."""

    last: int
    bad_candidate: int
    prices_rise: int
    views_stop: int
    late_events: int
    customers_leave: int = FAR
    feed_stops: int = FAR


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarm:
    """A signal, the week of its cause, and how many nights it may take."""

    name: str
    week: int
    is_raised: Callable[[Replay], bool]
    within: int = 1
    """Nights after the first night that can see the cause."""


def alarms_of(weeks: Weeks, sleeping: str) -> list[Alarm]:
    """Return what must be heard, each not before its cause and within a week after it.

    Args:
        weeks: When each cause is.
        sleeping: The event type that stops.
    """
    newest = "cutoff_date = (select max(cutoff_date) from churn_score_drift)"
    money = "(subject like '%amount%' or subject like '%basket%')"
    found = [
        Alarm(
            name="drift of amounts",
            week=weeks.prices_rise,
            is_raised=_some(
                f"select subject from churn_score_drift where {newest} and severity = 'error' "
                f"and subject_type = 'feature' and {money}"
            ),
        ),
        Alarm(
            name="retraining due by drift",
            week=weeks.prices_rise,
            is_raised=lambda replay: "drift" in replay.nights[-1].due,
        ),
        Alarm(
            name=f"no more {sleeping} events",
            week=weeks.views_stop,
            is_raised=_some(
                "select event_type from churn_event_volumes where severity = 'error' "
                f"and event_type = '{sleeping}'"
            ),
        ),
        Alarm(
            name="labels changed by late events",
            week=weeks.late_events,
            is_raised=_some(
                "select user_id from churn_score_outcomes where label_change_count > 0"
            ),
        ),
        Alarm(
            name="stale data refused",
            week=weeks.feed_stops,
            is_raised=lambda replay: (
                replay.nights[-1].alarms.get("assert_data_is_fresh") == "error"
            ),
        ),
    ]
    return [alarm for alarm in found if alarm.week <= weeks.last]


def _some(sql: str) -> Callable[[Replay], bool]:
    """Return a signal: the query has rows."""
    return lambda replay: bool(replay.rows(sql))


@dataclasses.dataclass
class Story:
    """A replay with its causes; `told` is what went otherwise than it should."""

    replay: Replay
    first_night: datetime.date
    weeks: Weeks
    alarms: list[Alarm]
    told: list[str] = dataclasses.field(default_factory=list)
    raised: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    log: Callable[[str], None] = print

    def play(self) -> None:
        """Play every night and judge the alarms after each."""
        for number in range(self.weeks.last + 1):
            night = self.replay.night(
                self.first_night + number * WEEK, should_retrain=number != self.weeks.bad_candidate
            )
            said = ", ".join(f"{name} ({kind})" for name, kind in sorted(night.alarms.items()))
            due = f"; due: {', '.join(night.due)}" if night.due else ""
            self.log(f"week {number:2d}, {night.cutoff_date}: {said or 'no alarm'}{due}")
            for alarm in self.alarms:
                if alarm.is_raised(self.replay):
                    self.raised.setdefault(alarm.name, []).append(number)
            if number == self.weeks.bad_candidate:
                self.inject_bad_candidate()
        self._judge_alarms()

    def _judge_alarms(self) -> None:
        """Compare the nights of each alarm with its cause."""
        for alarm in self.alarms:
            nights = self.raised.get(alarm.name, [])
            self.log(f"{alarm.name}: cause in week {alarm.week}, raised in weeks {nights}")
            if not nights:
                self.told.append(f"{alarm.name}: never raised; its cause is in week {alarm.week}")
            elif nights[0] < alarm.week:
                self.told.append(f"{alarm.name}: raised in week {nights[0]}, before its cause")
            elif nights[0] > alarm.week + alarm.within:
                self.told.append(f"{alarm.name}: raised in week {nights[0]}, too late")

    def inject_bad_candidate(self) -> None:
        """Bring a model that ranks backwards but says it is as good as the champion.

        It must be refused; forced past the gate it scores, and a rollback brings back the old
        champion with the very scores it had given.
        """
        champion = self.replay.champion_id()
        assert champion is not None
        before = self._current_scores()
        bad = backwards(self.replay.models_dir, champion)
        refused = self._promote(bad, "--reason", "looks good")
        if refused.exit_code != REFUSED:
            self.told.append(f"the bad candidate is not refused: {refused.output[-2_000:]}")
        if self.replay.champion_id() != champion:
            self.told.append("the bad candidate became the champion without an override")
        forced = self._promote(bad, "--override", "--reason", "to see what happens")
        if forced.exit_code or self.replay.champion_id() != bad:
            self.told.append(f"an override does not promote: {forced.output[-2_000:]}")
        self.replay.dbt("run")
        worse = self._current_scores()
        if worse == before:
            self.told.append("another champion gives the same scores")
        models = ["--models-dir", str(self.replay.models_dir)]
        back = self.replay.command("models", "rollback", *models, "--reason", "it ranks backwards")
        if back.exit_code or self.replay.champion_id() != champion:
            self.told.append(f"rollback does not bring back the champion: {back.output[-2_000:]}")
        self.replay.dbt("run")
        if self._current_scores() != before:
            self.told.append("after the rollback the scores are not those of before")
        entries = self.replay.rows(
            "select bundle_id, is_override from churn_model_log "
            f"where bundle_id = '{bad}' and to_stage = 'champion'"
        )
        if entries != [(bad, True)]:
            self.told.append(f"the log tells of the override {entries}")

    def _promote(self, bundle_id: str, *arguments: str) -> Any:
        """Ask for a promotion."""
        models = ("--models-dir", str(self.replay.models_dir))
        return self.replay.churn_train(
            "models", "promote", bundle_id, *arguments, *models, folders=True
        )

    def _current_scores(self) -> dict[str, float]:
        """Return user to probability of the champion."""
        sql = "select user_id, churn_probability from churn_scores_current"
        return dict(self.replay.rows(sql))


def backwards(models_dir: Path, bundle_id: str) -> str:
    """Package a copy of a bundle whose calibrator turns every score around; return its id."""
    source = open_bundle(bundle_directory(models_dir, bundle_id))
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "bundle"
        shutil.copytree(source.directory, copy)
        turned = Calibrator(kind="platt", params={"a": [-1.0], "b": [0.0]})
        (copy / CALIBRATION_FILE).write_text(turned.to_json(), encoding="utf-8")
        files: Mapping[str, Path] = {
            str(path.relative_to(copy)): path
            for path in copy.rglob("*")
            if path.is_file() and path.name != MANIFEST_FILE
        }
        return write_bundle(
            models_dir,
            files=files,
            settings=source.manifest.settings,
            features=source.manifest.features,
            training=source.manifest.training,
            versions=source.manifest.versions,
        ).bundle_id


def delayed(events: pa.Table, *, share: int, between: tuple[datetime.date, datetime.date],
            until: datetime.date) -> pa.Table:  # fmt: skip
    """Return events of which one customer's in `share` come late.

    Args:
        events: With `arrives_on`.
        share: One in how many customers.
        between: First date of the events that come late, and the date after their last.
        until: When they arrive.
    """
    users = sorted(set(events["user_id"].to_pylist()))[::share]
    date = pc.cast(events["event_ts"], pa.date32())
    is_late = pc.and_(
        pc.is_in(events["user_id"], pa.array(users)),
        pc.and_(
            pc.greater_equal(date, pa.scalar(between[0])), pc.less(date, pa.scalar(between[1]))
        ),
    )
    arrives = pc.if_else(is_late, pa.scalar(until), events["arrives_on"])
    return events.set_column(events.column_names.index("arrives_on"), "arrives_on", arrives)


def to_json(story: Story) -> str:
    """Return the story as one line of JSON."""
    return json.dumps({"raised": story.raised, "told": story.told}, sort_keys=True)
