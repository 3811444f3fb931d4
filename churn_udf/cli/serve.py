"""``churn-score serve``."""

from __future__ import annotations

import signal
from typing import Any

import click

from churn_udf.cli import options as shared


@click.command(name="serve")
@shared.models_dir_option
@shared.bundle_option
@click.option(
    "--pin",
    is_flag=True,
    help="Stay with the bundle of the start when another is promoted; --bundle implies it.  "
    "[default: off]",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["json", "arrow"]),
    default="json",
    show_default=True,
    help="What comes in, and goes out: JSON objects, one a line, or an Arrow stream.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 8_192),
    default=256,
    show_default=True,
    help="Most rows scored at once.",
)
@click.option(
    "--max-wait-ms",
    type=click.FloatRange(0.0, 60_000.0),
    default=5.0,
    show_default=True,
    help="Longest that a row waits for others to be scored with.",
)
@click.option(
    "--stats-every",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Seconds from one line of rows/s and latencies to the next.",
)
@shared.device_option
@shared.precision_option
@shared.quiet_option
def command(**options: Any) -> None:
    """Score rows as they arrive on standard input; answer each, in order, on standard output.

    A JSON row has behavior_text, review_text_recent, the features (flat or as an object
    `features`; null is unknown) and, if you like, an id, which is echoed. A row that cannot be
    scored gets an answer with `error` and stops nothing. The end of the input, SIGTERM and
    Ctrl-C end the service when everything that arrived is answered; a second signal ends it at
    once.
    """
    from churn_udf.cli.arrivals import Arrivals
    from churn_udf.cli.doors import ArrowDoor, JsonDoor
    from churn_udf.cli.service import CurrentScorer, Service, warmed

    log = shared.logger(options["quiet"])
    load_scorer = shared.scorer_loader(options)
    arrivals = Arrivals(0)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: Any) -> None:
        arrivals.stop()
        for known, handler in before.items():
            signal.signal(known, handler)

    with shared.claimed_stdout() as stream:
        bundle = shared.find_bundle(options["models_dir"], options["bundle_id"])
        scorer = warmed(load_scorer(bundle))
        is_pinned = options["pin"] or options["bundle_id"] is not None
        followed = None if is_pinned else options["models_dir"]
        service = Service(
            CurrentScorer(scorer, followed, load_scorer, log),
            JsonDoor() if options["format_name"] == "json" else ArrowDoor(bundle),
            max_rows=options["max_batch"],
            max_wait=options["max_wait_ms"] / 1e3,
            stats_every=options["stats_every"],
            log=log,
        )
        for number in before:
            signal.signal(number, stop)
        log(f"ready: bundle {bundle.bundle_id}, {options['format_name']}")
        try:
            service.run(arrivals, stream)
        finally:
            log(f"served {service.statistics.describe()}")
