"""Every number of the monitoring tables, worked out again from the raw events in pandas.

Nothing here reads a table that it checks, and nothing is shared with the SQL: what differs is
returned as sentences.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

from simulated_year.replay import Replay

EXACT = 1e-9


def differences(replay: Replay) -> list[str]:
    """Return what the tables say otherwise than the raw events; empty when all agree.

    Args:
        replay: After a night.
    """
    events = _raw_events(replay)
    return [
        *_outcome_differences(replay, events),
        *_performance_differences(replay),
        *_feature_differences(replay, events),
        *_volume_differences(replay, events),
        *_mover_differences(replay),
        *_base_rate_differences(replay, events),
    ]


def _raw_events(replay: Replay) -> pd.DataFrame:
    """Return the events that dbt saw on the last night, with their UTC date."""
    return _dated(pd.read_parquet(replay.vars["churn__events_path"]))


def _arrived_by(replay: Replay, night: datetime.date) -> pd.DataFrame:
    """Return the events that were there in an earlier night, with their UTC date."""
    is_there = pc.less_equal(replay.events["arrives_on"], pa.scalar(night))
    return _dated(replay.events.filter(is_there).drop_columns(["arrives_on"]).to_pandas())


def _dated(events: pd.DataFrame) -> pd.DataFrame:
    """Return distinct events with their UTC date."""
    events = events.drop_duplicates()
    return events.assign(date=events["event_ts"].dt.date)


def _active_days(events: pd.DataFrame) -> pd.DataFrame:
    """Return (user_id, date) of days with a purchase."""
    bought = events[events["event_type"] == "purchase"]
    return bought[["user_id", "date"]].drop_duplicates()


def _label(replay: Replay, events: pd.DataFrame, cutoff: datetime.date) -> dict[str, bool]:
    """Return whether each user whom the night saw as eligible churned, as is known now."""
    eligible_from = cutoff - datetime.timedelta(days=replay.vars["churn__eligibility_days"])
    horizon_end = cutoff + datetime.timedelta(days=replay.vars["churn__horizon_days"])
    seen = _active_days(_arrived_by(replay, cutoff + datetime.timedelta(days=1)))
    eligible = seen[(seen["date"] >= eligible_from) & (seen["date"] < cutoff)]["user_id"].unique()
    days = _active_days(events)
    back = set(days[(days["date"] >= cutoff) & (days["date"] < horizon_end)]["user_id"])
    return {user: user not in back for user in eligible}


def _matured(replay: Replay, events: pd.DataFrame, cutoff: datetime.date) -> bool:
    """Return whether the horizon of a cutoff ends before the newest, incomplete day of data."""
    horizon = datetime.timedelta(days=replay.vars["churn__horizon_days"])
    return bool(cutoff + horizon <= events["date"].max())


def _outcome_differences(replay: Replay, events: pd.DataFrame) -> Iterator[str]:
    """Compare churn_score_outcomes with labels from raw events, users and all."""
    rows = replay.table("select user_id, cutoff_date, is_churned from churn_score_outcomes")
    outcomes = rows.to_pandas()
    outcomes["cutoff_date"] = pd.to_datetime(outcomes["cutoff_date"]).dt.date
    scored = {row[0] for row in replay.rows("select distinct cutoff_date from churn_scores")}
    for cutoff in sorted(scored):
        known = outcomes[outcomes["cutoff_date"] == cutoff]
        if not _matured(replay, events, cutoff):
            if len(known):
                yield f"{cutoff}: {len(known)} outcomes before the horizon has ended"
            continue
        expected = _label(replay, events, cutoff)
        found = dict(zip(known["user_id"], known["is_churned"], strict=True))
        if found != expected:
            wrong = {user for user in expected.keys() | found.keys()
                     if expected.get(user) != found.get(user)}  # fmt: skip
            yield f"{cutoff}: outcomes of {len(wrong)} users differ, such as {sorted(wrong)[0]}"


def _performance_differences(replay: Replay) -> Iterator[str]:
    """Compare churn_model_performance with scikit-learn."""
    outcomes = replay.table(
        "select bundle_id, cutoff_date, churn_probability, is_churned, is_flagged "
        "from churn_score_outcomes"
    ).to_pandas()
    told = replay.table("select * from churn_model_performance").to_pandas()
    told = told.set_index(["bundle_id", "cutoff_date"])
    groups = outcomes.groupby(["bundle_id", "cutoff_date"])
    if set(groups.groups) != set(told.index):
        yield f"performance has {len(told)} rows, outcomes {groups.ngroups} groups"
        return
    for key, group in groups:
        labels, scores = group["is_churned"].to_numpy(bool), group["churn_probability"].to_numpy()
        expected = {
            "user_count": len(group),
            "churned_count": labels.sum(),
            "base_rate": labels.mean(),
            "mean_probability": scores.mean(),
            "brier_score": brier_score_loss(labels, scores),
            "flagged_count": group["is_flagged"].sum(),
        }
        if 0 < labels.sum() < len(labels):
            expected |= {
                "auroc": roc_auc_score(labels, scores),
                "average_precision": average_precision_score(labels, scores),
                "log_loss": log_loss(labels, scores),
            }
        row = told.loc[key]
        for name, value in expected.items():
            if not abs(float(row[name]) - float(value)) <= EXACT:
                yield f"{key}: {name} is {row[name]}, recomputed {value}"


def _feature_differences(replay: Replay, events: pd.DataFrame) -> Iterator[str]:
    """Compare features of the newest cutoff, and the means that drift tells of them."""
    (cutoff,) = replay.rows("select max(cutoff_date) from churn_scores")[0]
    first = cutoff - datetime.timedelta(days=min(90, replay.vars["churn__observation_days"]))
    window = events[(events["date"] >= first) & (events["date"] < cutoff)]
    bought = window[window["event_type"] == "purchase"]
    days = _active_days(events)
    last_seen = days[days["date"] < cutoff].groupby("user_id")["date"].max()
    expected = pd.DataFrame(
        {
            "amount_90d": bought.groupby("user_id")["amount"].sum(),
            "view_count_90d": window[window["event_type"] == "view"].groupby("user_id").size(),
            "days_since_active": last_seen.map(lambda date: (cutoff - date).days),
        }
    ).fillna({"amount_90d": 0.0, "view_count_90d": 0.0})
    names = ", ".join(expected.columns)
    found = replay.table(
        f"select user_id, {names} from churn_examples where cutoff_date = '{cutoff}'"
    ).to_pandas().set_index("user_id")  # fmt: skip
    compared = expected.loc[found.index]
    for name in expected.columns:
        worst = (found[name] - compared[name]).abs().max()
        if not worst <= 1e-6:
            yield f"{cutoff}: {name} differs by up to {worst}"
    told = dict(
        replay.rows(
            "select subject, current_mean from churn_score_drift "
            f"where subject_type = 'feature' and cutoff_date = '{cutoff}'"
        )
    )
    for name in expected.columns:
        if name in told and not abs(told[name] - compared[name].mean()) <= 1e-6:
            yield f"{cutoff}: drift says mean {told[name]} of {name}, {compared[name].mean()} it is"


def _volume_differences(replay: Replay, events: pd.DataFrame) -> Iterator[str]:
    """Compare churn_event_volumes with counts of raw events."""
    expected = events.groupby(["event_type", "date"]).size().to_dict()
    found = {
        (kind, date): count
        for kind, date, count in replay.rows(
            "select event_type, event_date, event_count from churn_event_volumes "
            "where event_count > 0"
        )
    }
    wrong = [key for key in found if expected.get(key) != found[key]]
    if wrong:
        yield f"{len(wrong)} event volumes differ, such as {wrong[0]}: {found[wrong[0]]}"
    newest = max(date for _, date in found)
    missing = [key for key in expected if key[1] == newest and key not in found]
    if missing:
        yield f"event volumes lack {missing}"


def _mover_differences(replay: Replay) -> Iterator[str]:
    """Compare churn_score_movers with the scores at both cutoffs."""
    movers = replay.table("select * from churn_score_movers").to_pandas()
    if movers.empty:
        return
    scores = {
        tuple(row[:3]): row[3]
        for row in replay.rows(
            "select user_id, cutoff_date, bundle_id, churn_probability from churn_scores"
        )
    }
    parts = movers[["behaviour_effect", "model_effect", "calibration_effect"]].sum(axis=1)
    if not (parts - movers["probability_change"]).abs().max() <= EXACT:
        yield "the effects of movers do not add up to the change"
    for row in movers.itertuples():
        now = (row.user_id, pd.Timestamp(row.cutoff_date).date(), row.bundle_id)
        then = (row.user_id, pd.Timestamp(row.previous_cutoff_date).date(), row.previous_bundle_id)
        change = scores[now] - scores[then]
        if not abs(row.probability_change - change) <= EXACT:
            yield f"{row.user_id}: change {row.probability_change}, recomputed {change}"
            return
    ranks = movers.sort_values("change_rank")["probability_change"].abs().to_numpy()
    if np.any(np.diff(ranks) > EXACT):
        yield "movers are not in order of their change"


def _base_rate_differences(replay: Replay, events: pd.DataFrame) -> Iterator[str]:
    """Compare the observed base rates with labels from raw events."""
    for cutoff, observed in replay.rows(
        "select distinct cutoff_date, observed_base_rate from churn_base_rate_changes "
        "where observed_base_rate is not null"
    ):
        labels = _label(replay, events, cutoff)
        if not abs(observed - np.mean(list(labels.values()))) <= EXACT:
            yield f"{cutoff}: observed base rate {observed}, recomputed otherwise"
