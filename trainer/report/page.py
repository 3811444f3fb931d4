"""What self-contained pages share: templates, escaping, style."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

SHARED = "trainer.report"


def page_environment(package: str = SHARED) -> Environment:
    """Return templates of a package, and below them those that all pages share."""
    loaders = [PackageLoader(name, "templates") for name in dict.fromkeys((package, SHARED))]
    return Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source_of(environment: Environment, name: str) -> Markup:
    """Return a style sheet or script as it stands, to be put into a page."""
    loader = environment.loader
    assert loader is not None
    return Markup(loader.get_source(environment, name)[0])
