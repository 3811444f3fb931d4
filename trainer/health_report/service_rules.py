"""Rules about what is in service: the champion, its scores, who was refused, the next model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.health_report.reasons import ACT, FINE, LOOK, NUM_NAMED, UNKNOWN, Limits, Reason
from trainer.health_report.tables import HealthTables
from trainer.health_report.texts import day, joined, percent, plural
from trainer.health_report.texts import short_id as short

UNUSABLE = {
    "unreadable": "its bundle is damaged or gone",
    "other_settings": "it was trained for other windows or features than the warehouse has",
}
"""Reasons of a retraining plan that mean that nobody can score."""


def champion(tables: HealthTables, facts: Mapping[str, Any]) -> Reason:
    """Is there a champion, is it the registry's, and was it forced?"""
    known = facts["champion"]
    registered = tables.registry_champion_id
    if tables.registry_problem:
        return Reason(
            name="champion",
            level=ACT,
            text=f"The registry cannot be read: {tables.registry_problem}",
            short="the registry cannot be read",
        )
    if known is None and registered is None:
        return Reason(
            name="champion",
            level=ACT,
            text="No model is in service: run `churn-train run`, then `dbt build`.",
            short="no model is in service yet",
        )
    if known is None or (registered and registered != known["bundle_id"]):
        return Reason(
            name="champion",
            level=LOOK,
            text=f"Model {short(registered)} was promoted after the last build: run `dbt build` "
            "to score with it.",
            short="the newest champion has not scored yet",
        )
    age = known["age_days"]
    made = "" if age is None else f", packaged {plural(age, 'day')} ago"
    text = f"Model {short(known['bundle_id'])} is champion{made}."
    if known["is_override"]:
        return Reason(
            name="champion",
            level=LOOK,
            text=f"{text} The gate had refused it, and somebody decided otherwise.",
            short="the champion was forced past the gate",
        )
    return Reason(name="champion", level=FINE, text=text)


def scores(
    tables: HealthTables, current: Mapping[str, Any], champion: Mapping[str, Any] | None
) -> Reason | None:
    """Do the newest scores still speak of the future?"""
    if champion is None:
        return None
    cutoff, age = current["cutoff_date"], current["age_days"]
    if age is None:
        return Reason(
            name="scores",
            level=ACT,
            text="There is a champion but nobody has a score: run `dbt build`.",
            short="nobody has a score",
            anchor="scores",
        )
    span = tables.setting_days("gap_days") + tables.setting_days("horizon_days", 30)
    text = (
        f"The newest scores are of {day(cutoff)}, {plural(age, 'day')} ago, for "
        f"{plural(current['user_count'], 'customer')}."
    )
    if age >= span:
        past = " The days that they speak of are over."
        return Reason(
            name="scores",
            level=ACT,
            text=text + past,
            short="the scores speak of days that are over",
            anchor="scores",
        )
    if 2 * age > span:
        past = f" Of the {span} days that they speak of, more than half have passed."
        return Reason(
            name="scores", level=LOOK, text=text + past, short="the scores are old", anchor="scores"
        )
    return Reason(name="scores", level=FINE, text=text, anchor="scores")


def unscorable(facts: Mapping[str, Any], limits: Limits) -> Reason | None:
    """Has everybody a score?"""
    found = facts["unscorable"]["user_count"]
    if found is None:
        return None
    scored = int(facts["scores"]["user_count"] or 0)
    if not found:
        if facts["champion"] is None:
            return None
        text = "Every customer at the cutoff could be scored."
        return Reason(name="unscorable", level=FINE, text=text, anchor="scores")
    share = found / (found + scored)
    reasons = joined([row["reason"] for row in facts["unscorable"]["reasons"][:NUM_NAMED]])
    return Reason(
        name="unscorable",
        level=ACT if share > limits.act_unscorable_share else LOOK,
        text=f"{plural(found, 'customer')} ({percent(share)}) could not be scored: {reasons}.",
        short=f"{plural(found, 'customer')} could not be scored",
        anchor="scores",
    )


def refused(facts: Mapping[str, Any]) -> Reason | None:
    """Was a newer model not let into service?"""
    known, found = facts["champion"], facts["models"]["refused"]
    if not found:
        return None
    since = known["stage_since"] if known else None
    newer = [one for one in found if since is None or (one["refused_at"] or since) > since]
    if not newer:
        text = f"{plural(len(found), 'model')} not promoted, before this champion."
        return Reason(name="refused", level=FINE, text=text)
    clause = f"{plural(len(newer), 'newer model')} not promoted"
    why = f": {newer[0]['reason']}" if newer[0]["reason"] else ""
    return Reason(
        name="refused",
        level=LOOK,
        text=f"{clause}, last {short(newer[0]['bundle_id'])}{why}.",
        short=clause,
    )


def retraining(plan: Mapping[str, Any] | None) -> Reason:
    """Is a new model due?"""
    if plan is None:
        return Reason(
            name="retraining",
            level=UNKNOWN,
            text="When the next model is due is not known.",
            anchor="retraining",
        )
    told = str(plan.get("message") or "")
    why = joined([str(name).replace("_", " ") for name in plan.get("reasons", ())])
    unusable = next((UNUSABLE[name] for name in plan.get("reasons", ()) if name in UNUSABLE), None)
    if unusable:
        return Reason(
            name="retraining",
            level=ACT,
            text=f"The champion cannot score, as {unusable}: run `churn-train run --if-due`, or "
            "`churn-train models rollback`.",
            short="the champion cannot score",
            anchor="retraining",
        )
    if plan["is_due"]:
        return Reason(
            name="retraining",
            level=LOOK,
            text=f"A new model is due{f' ({why})' if why else ''}: run `churn-train run --if-due`.",
            short="a new model is due",
            anchor="retraining",
        )
    text = f"{told[:1].upper()}{told[1:]}." if told else "No new model is due."
    return Reason(name="retraining", level=FINE, text=text, anchor="retraining")
