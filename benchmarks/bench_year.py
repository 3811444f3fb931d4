"""A year of nights: is each alarm raised within the week after its cause, and none before?

    OMP_NUM_THREADS=1 python benchmarks/bench_year.py [--quick] [--shops made_up,complete_journey]

Replays a made-up shop and the Complete Journey week by week as a scheduler would: load what has
arrived, `dbt build`, `churn-train run --if-due`. On known weeks something happens: a model that
ranks backwards asks for promotion, prices are four times what they were, an event type stops, late
events change matured labels, the feed stops. Each must be heard within the week after it and not
before; the bad model must be refused, forced and rolled back; and after the last night every number
of the monitoring tables is worked out again from the raw events (simulated_year/recompute.py).
`--quick`: nine nights of the made-up shop, which tests/dbt/test_year.py plays, too. Prints a line a
night, the verdicts, and last the same as one line of JSON. Exit code 1: something went otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from training_example import TINY_FLAGS

from simulated_year.recompute import differences
from simulated_year.replay import Replay
from simulated_year.scenario import FAR, WEEK, Story, Weeks, alarms_of, delayed, to_json
from simulated_year.shop import DAY, Causes, ShopConfig, shop_events

MADE_UP, COMPLETE_JOURNEY = "made_up", "complete_journey"
SHORT = Weeks(last=8, bad_candidate=3, prices_rise=5, views_stop=6, late_events=6, feed_stops=8)
YEAR = Weeks(last=52, bad_candidate=9, prices_rise=20, views_stop=30, late_events=36, feed_stops=51)
HALF_YEAR = Weeks(
    last=24, bad_candidate=5, prices_rise=12, views_stop=FAR, late_events=20, feed_stops=24
)
"""Of the Complete Journey, whose data are those of one year, of which training needs half; no type
but purchases comes often enough there to be missed within a week."""
HISTORY_DAYS = 168
SHOP_VARS = {
    "churn__observation_days": 90,
    "churn__eligibility_days": 45,
    "churn__horizon_days": 14,
    "churn__training_cutoffs": {"every_days": 7},
    "churn__max_training_cutoffs": 12,
    "churn__stale_data": "fail",
}
JOURNEY_VARS = {
    "churn__observation_days": 180,
    "churn__eligibility_days": 60,
    "churn__horizon_days": 14,
    "churn__training_cutoffs": {"every_days": 14},
    "churn__max_training_cutoffs": 8,
    "churn__stale_data": "fail",
}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="nine nights of the made-up shop")
    parser.add_argument("--shops", default=f"{MADE_UP},{COMPLETE_JOURNEY}", help="with commas")
    options = parser.parse_args()
    told = []
    for shop in [MADE_UP] if options.quick else options.shops.split(","):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            if shop == MADE_UP:
                story = made_up_story(Path(scratch), SHORT if options.quick else YEAR)
            else:
                story = complete_journey_story(Path(scratch), HALF_YEAR)
            story.play()
            story.told += differences(story.replay)
        print(f"{shop}: {len(story.replay.nights)} nights in {time.monotonic() - began:.0f} s")
        print("\n".join(story.told) or "everything went as it should")
        print(to_json(story))
        told += story.told
    return int(bool(told))


def made_up_story(root: Path, weeks: Weeks) -> Story:
    """Return the made-up shop's story, ready to be played."""
    config = ShopConfig(num_days=HISTORY_DAYS + 7 * (weeks.last + 1))
    first_night = config.first_day + HISTORY_DAYS * DAY
    causes = Causes(
        prices_rise=_week_before(first_night, weeks.prices_rise),
        views_stop=_week_before(first_night, weeks.views_stop),
        feed_stops=_week_before(first_night, weeks.feed_stops),
    )
    events = shop_events(config, causes)
    return _story(root, events, first_night, weeks, "view", SHOP_VARS)


def complete_journey_story(root: Path, weeks: Weeks) -> Story:
    """Return the story of real households; what is done to them is done to their real events."""
    from demo.load_complete_journey import load

    events = pq.read_table(load(root / "journey").events_path)
    first_night = datetime.date(2017, 7, 10)
    date = pc.cast(events["event_ts"], pa.date32())
    rises = pc.greater_equal(date, pa.scalar(_week_before(first_night, weeks.prices_rise)))
    amounts = pc.if_else(rises, pc.multiply(events["amount"], 4.0), events["amount"])
    events = events.set_column(events.column_names.index("amount"), "amount", amounts)
    is_gone = pc.greater_equal(date, pa.scalar(_week_before(first_night, weeks.feed_stops)))
    arrives = pc.add(date.cast(pa.int32()), pa.scalar(1, pa.int32())).cast(pa.date32())
    events = events.append_column("arrives_on", arrives).filter(pc.invert(is_gone))
    return _story(root, events, first_night, weeks, "view", JOURNEY_VARS)


def _story(
    root: Path,
    events: pa.Table,
    first_night: datetime.date,
    weeks: Weeks,
    sleeping: str,
    dbt_vars: dict[str, object],
) -> Story:
    """Return a story over events: some come late, in the horizon of a matured cutoff."""
    late_from = first_night + (weeks.late_events - 5) * WEEK
    events = delayed(
        events,
        share=30,
        between=(late_from, late_from + 2 * WEEK),
        until=first_night + weeks.late_events * WEEK,
    )
    replay = Replay(root, events, dbt_vars, TINY_FLAGS)
    return Story(replay, first_night, weeks, alarms_of(weeks, sleeping))


def _week_before(first_night: datetime.date, week: int) -> datetime.date:
    """Return the first day of the week that ends with a night."""
    return first_night + (week - 1) * WEEK


if __name__ == "__main__":
    sys.exit(main())
