"""Options that commands share, and what they stand for; importing this costs no more than click."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

if TYPE_CHECKING:
    from churn_udf.bundle_store import Bundle
    from churn_udf.models_location import ModelsDir
    from churn_udf.scoring import Scorer


def read_models_dir(_: click.Context, __: click.Parameter, text: str | None) -> ModelsDir | None:
    """Read a folder, or any URL that fsspec can open; None where the option was not given."""
    if text is None:
        return None
    from churn_udf.models_location import models_dir_of

    if not text.strip():
        raise click.BadParameter("it is empty; allowed: a folder, or a URL such as s3://bucket/x")
    place = models_dir_of(text)
    if isinstance(place, Path) and place.is_file():
        raise click.BadParameter(f"{str(place)!r} is a file; allowed: a folder, or a URL")
    return place


models_dir_option = click.option(
    "--models-dir",
    callback=read_models_dir,
    metavar="PLACE",
    default="models",
    show_default=True,
    envvar="CHURN_MODELS_DIR",
    help="Folder or URL of bundles and registry; CHURN_MODELS_DIR sets it for dbt too.",
)
bundle_option = click.option(
    "--bundle", "bundle_id", metavar="ID", help="Bundle to score with.  [default: the champion]"
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32"]),
    default="auto",
    show_default=True,
    help="What the encoder computes in: auto (the fastest that packaging allowed) or exact fp32.",
)
quiet_option = click.option(
    "--quiet", "-q", is_flag=True, help="Errors alone on standard error.  [default: off]"
)


def find_bundle(models_dir: ModelsDir, bundle_id: str | None) -> Bundle:
    """Verify and return the bundle asked for, or the champion.

    Raises:
        BundleError: There is none, or it is damaged.
    """
    from churn_udf.bundle_store import bundle_directory, open_bundle, open_champion

    if bundle_id is None:
        return open_champion(models_dir)
    return open_bundle(bundle_directory(models_dir, bundle_id))


def scorer_loader(options: dict[str, Any]) -> Callable[[Bundle], Scorer]:
    """Return how a bundle becomes a scorer under a command's options."""
    from churn_udf.scoring import Scorer

    return lambda bundle: Scorer.load(
        bundle, device=options["device"], precision=options["precision"]
    )


def logger(quiet: bool) -> Callable[[str], None]:
    """Return a function that writes a line to standard error, or nothing."""

    def log(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    return log


def split_names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Read ``user_id,cutoff_date``; None where the option was not given."""
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


@contextlib.contextmanager
def claimed_stdout() -> Iterator[BinaryIO]:
    """Give standard output to one writer; whatever else prints goes to standard error.

    A library's stray line in a binary stream would make it unreadable, so the file descriptor
    itself is redirected, for this process and those it starts.
    """
    sys.stdout.flush()
    private = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(private, "wb", closefd=False) as stream:
            yield stream
    finally:
        os.dup2(private, 1)
        os.close(private)
