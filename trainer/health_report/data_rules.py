"""Rules about what goes in and how past scores turned out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainer.health_report.outcomes import auroc_error, champion_row, matures_on
from trainer.health_report.reasons import ACT, FINE, LOOK, NUM_NAMED, UNKNOWN, Limits, Reason
from trainer.health_report.tables import HealthTables
from trainer.health_report.texts import count, day, joined, metric, number, percent, plural


def data(found: Mapping[str, Any], max_days: int, limits: Limits) -> Reason:
    """Do events still arrive?"""
    age = found["age_days"]
    if age is None:
        return Reason(
            name="data",
            level=UNKNOWN,
            text="How new the data are is not known.",
            anchor="volumes",
        )
    complete = day(found["newest_complete_date"])
    text = f"The newest complete day of events is {complete}, {plural(age, 'day')} ago."
    most = max_days or limits.act_data_days
    level = ACT if age > most else LOOK if 2 * age > most else FINE
    clause = f"the data are {plural(age, 'day')} old"
    return Reason(name="data", level=level, text=text, short=clause, anchor="volumes")


def volumes(found: Mapping[str, Any]) -> Reason:
    """Do as many events arrive as expected?"""
    if found["absence"]:
        return Reason(
            name="volumes",
            level=UNKNOWN,
            text="Whether as many events arrive as usual is not known.",
            anchor="volumes",
        )
    wrong = [one for one in found["types"] if one["severity"] == "error"]
    odd = [one for one in found["types"] if one["recent_odd_count"] or one["severity"] != "ok"]
    if wrong:
        names = joined([f"{one['event_type']} ({count(one['newest']['event_count'])})"
                        for one in wrong[:NUM_NAMED]])  # fmt: skip
        return Reason(
            name="volumes",
            level=ACT,
            text=f"By {day(found['newest_date'])} the number of events is far from what is "
            f"usual: {names} that day.",
            short=joined([_volume_words(one) for one in wrong[:NUM_NAMED]]),
            anchor="volumes",
        )
    if odd:
        names = joined([one["event_type"] for one in odd[:NUM_NAMED]])
        return Reason(
            name="volumes",
            level=LOOK,
            text=f"Within a week the number of events was unusual: {names}.",
            short="this week an unusual number of events: " + names,
            anchor="volumes",
        )
    return Reason(
        name="volumes",
        level=FINE,
        text=f"As many events arrive as usual, of {plural(len(found['types']), 'type')}.",
        anchor="volumes",
    )


def _volume_words(one: Mapping[str, Any]) -> str:
    """Say on which side of what is usual the newest day of an event type lies."""
    newest, name = one["newest"], one["event_type"]
    events, low = number(newest["event_count"]), number(newest["expected_low"])
    reason = str(newest["reason"] or "")
    if reason == "silent" or (not reason and not events):
        return f"no {name} events"
    is_below = reason.endswith("below") if reason else low is not None and (events or 0.0) < low
    return f"far {'fewer' if is_below else 'more'} {name} events than usual"


def drift(found: Mapping[str, Any]) -> Reason:
    """Do inputs and scores look as in training?"""
    if found["absence"]:
        return Reason(
            name="drift", level=UNKNOWN, text="Drift has not been measured.", anchor="drift"
        )
    errors, warnings = found["counts"]["error"], found["counts"]["warn"]
    total = sum(found["counts"].values())
    names = [row["subject"] for row in found["subjects"] if row["severity"] in ("error", "warn")]
    if not names:
        text = f"None of {total:,} inputs, words and scores has drifted from training."
        return Reason(name="drift", level=FINE, text=text, anchor="drift")
    more = f" and {len(names) - NUM_NAMED:,} more" if len(names) > NUM_NAMED else ""
    listed = ", ".join(names[:NUM_NAMED]) + more
    text = (
        f"Of {total:,} inputs, words and scores, {errors:,} have drifted to error and "
        f"{warnings:,} to warning: {listed}."
    )
    of_what = errors or warnings
    far = "has drifted far" if of_what == 1 else "have drifted far"
    slightly = "has begun to drift" if of_what == 1 else "have begun to drift"
    return Reason(
        name="drift",
        level=ACT if errors else LOOK,
        text=text,
        short=f"{plural(of_what, 'input')} {far if errors else slightly}",
        anchor="drift",
    )


def decay(
    tables: HealthTables, champion: Mapping[str, Any] | None, limits: Limits
) -> Reason | None:
    """Does the champion rank as well as on its test?"""
    if champion is None:
        return None
    row = champion_row(tables, champion["bundle_id"])
    auroc = number(row["auroc"]) if row else None
    if row is None or auroc is None:
        first = matures_on(tables, champion["bundle_id"])
        when = f" Its first scores can be judged from {day(first)}." if first else ""
        return Reason(
            name="decay",
            level=UNKNOWN,
            text=f"How well the champion ranks in service is not known yet.{when}",
            anchor="outcomes",
        )
    churned = int(row["churned_count"] or round(row["base_rate"] * row["user_count"]))
    noise = 2.0 * auroc_error(auroc, max(churned, 1), max(int(row["user_count"]) - churned, 1))
    tested = number(champion["test_auroc"])
    text = f"On {day(row['cutoff_date'])} the champion's AUROC was {metric(auroc)}"
    if tested is None:
        level = ACT if auroc <= 0.5 else FINE
        text = f"{text}; its test is not known."
        return Reason(
            name="decay", level=level, text=text, short="it ranks like chance", anchor="outcomes"
        )
    drop = tested - auroc
    level = FINE
    if auroc <= 0.5 or (drop > limits.act_auroc_drop and drop > noise):
        level = ACT
    elif drop > limits.look_auroc_drop and drop > noise:
        level = LOOK
    words = "as on its test" if level == FINE else "below its test"
    return Reason(
        name="decay",
        level=level,
        text=f"{text}, {words} ({metric(tested)}; chance alone moves it by {metric(noise)}).",
        short=f"ranking has fallen from {metric(tested)} to {metric(auroc)} AUROC",
        anchor="outcomes",
    )


def calibration(
    tables: HealthTables, champion: Mapping[str, Any] | None, limits: Limits
) -> Reason | None:
    """Did as many churn as was said?"""
    row = champion_row(tables, champion["bundle_id"]) if champion else None
    if row is None:
        return None
    said, happened = float(row["mean_probability"]), float(row["base_rate"])
    users = max(int(row["user_count"]), 1)
    noise = 2.0 * math.sqrt(max(said * (1.0 - said), 0.0) / users)
    gap = abs(said - happened)
    level = FINE
    if gap > noise:
        level = ACT if gap > limits.act_rate_gap else LOOK if gap > limits.look_rate_gap else FINE
    return Reason(
        name="calibration",
        level=level,
        text=f"On {day(row['cutoff_date'])} it said {percent(said)} on average, and "
        f"{percent(happened)} churned.",
        short=f"it said {percent(said)} and {percent(happened)} churned",
        anchor="outcomes",
    )


def late_labels(outcomes: Mapping[str, Any], limits: Limits) -> Reason | None:
    """Do labels change after they were taken for known?"""
    for row in outcomes["rows"][::-1]:
        changed = int(row["changed_label_count"] or 0)
        share = changed / max(int(row["user_count"]), 1)
        if share > limits.look_changed_share:
            return Reason(
                name="late_labels",
                level=LOOK,
                text=f"Late events changed {percent(share)} of the outcomes of "
                f"{day(row['cutoff_date'])}.",
                short="late events change outcomes",
                anchor="outcomes",
            )
    return None
