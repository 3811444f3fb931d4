"""The command line ``churn-score``: the scoring core for schedulers and services without dbt.

Exit codes: 0 done, 1 an expected failure (one clear line), 2 wrong usage, 130 interrupted, 143
stopped by SIGTERM.
"""

from __future__ import annotations

import click

from churn_udf import __version__
from churn_udf.cli.group import LazyGroup

COMMANDS = {
    "batch": "Score a Parquet or Arrow file, or a stream, of any size.",
    "serve": "Stay, and score rows as they arrive.",
}


@click.group(
    cls=LazyGroup,
    name="churn-score",
    package="churn_udf.cli",
    summaries=COMMANDS,
    interrupted="an output file is as it was before",
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="churn-score")
def main() -> None:
    """Score customers with a model that `churn-train` made, without dbt.

    Input has the columns of churn_examples: behavior_text, review_text_recent and the model's
    features. Scores are those that `dbt build` would write.
    """
