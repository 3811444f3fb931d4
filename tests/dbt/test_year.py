"""Nine weeks of nights: each alarm within the week after its cause, none before; the bad model out.

The whole year, and that of the Complete Journey, is `benchmarks/bench_year.py`.
"""

import pytest

from bench_year import SHORT, made_up_story
from simulated_year.recompute import differences


@pytest.mark.integration
@pytest.mark.slow
def test_each_alarm_follows_its_cause_and_every_number_follows_from_the_events(tmp_path):
    story = made_up_story(tmp_path, SHORT)
    story.play()
    assert story.told == []
    assert len(story.raised) == len(story.alarms)
    assert differences(story.replay) == []
