"""Writing the page: whole or not at all."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import ReportError
from trainer.runs import write_text


def write_page(path: Path, html: str) -> None:
    """Write a page, replacing an earlier one only when the new one is whole.

    Raises:
        ReportError: The place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, html)
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written ({error.strerror}); choose another place with --out"
        ) from error
