"""``churn-score batch``."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from churn_udf.cli import options as shared

FORMATS = click.Choice(["auto", "parquet", "arrow"])
EXIT_TERMINATED = 143


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Let SIGTERM end the process as Ctrl-C does: the temporary file goes first."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command(name="batch")
@shared.models_dir_option
@shared.bundle_option
@click.option(
    "--input",
    "-i",
    "source",
    default="-",
    show_default=True,
    help="A file, a folder of files (such as a snapshot), or - for standard input.",
)
@click.option(
    "--output",
    "-o",
    "target",
    default="-",
    show_default=True,
    help="A file, replaced when the new one is whole, or - for standard output.",
)
@click.option(
    "--input-format",
    type=FORMATS,
    default="auto",
    show_default=True,
    help="arrow is a file or a stream; auto sees what it is.",
)
@click.option(
    "--output-format",
    type=FORMATS,
    default="auto",
    show_default=True,
    help="auto goes by the file's suffix; standard output gets an Arrow stream.",
)
@click.option(
    "--keep",
    callback=shared.split_names,
    metavar="COLUMNS",
    help="Input columns to write beside the scores, as a,b,c.  [default: user_id, cutoff_date "
    "and input_hash where there are]",
)
@click.option(
    "--unscorable",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the rows that cannot be scored, with the reason.  [default: none; the first "
    "ones are named on standard error]",
)
@click.option(
    "--on-unscorable",
    type=click.Choice(["warn", "fail"]),
    default="warn",
    show_default=True,
    help="fail leaves the output as it was before and ends with exit code 1.",
)
@shared.device_option
@shared.precision_option
@shared.quiet_option
def command(**options: Any) -> None:
    """Score a file, a folder or a stream, whatever its size, in bounded memory.

    Input has the columns of churn_examples (others are ignored); null features are unknown, a
    null review is none. Each row gets one row of output, in order, or is listed as unscorable:
    there is no stand-in number.
    """
    target, output_format = options["target"], options["output_format"]
    if target == "-" and output_format == "parquet":
        raise click.UsageError("--output - with --output-format parquet; allowed: auto, arrow")
    if target == "-" and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal; give --output FILE, or pipe it")
    from churn_udf.cli.scoring_run import ScoringRun

    run = ScoringRun(
        bundle=shared.find_bundle(options["models_dir"], options["bundle_id"]),
        load_scorer=shared.scorer_loader(options),
        keep=options["keep"],
        unscorable=options["unscorable"],
        must_score_all=options["on_unscorable"] == "fail",
        log=shared.logger(options["quiet"]),
    )
    with _sigterm_exits():
        if target == "-":
            with shared.claimed_stdout() as stream:
                run.to_stream(options["source"], options["input_format"], stream)
        else:
            run.to_file(options["source"], options["input_format"], Path(target), output_format)
