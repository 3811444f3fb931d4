"""Options that commands share; importing this costs no more than click."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from churn_udf.cli.options import read_models_dir
from trainer.fit.config import FitConfig

if TYPE_CHECKING:
    from churn_udf.models_location import ModelsDir
    from trainer.config import TrainConfig
    from trainer.data.warehouse import Warehouse
    from trainer.pipeline import Workspace
    from trainer.progress import Progress

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DEFAULT_MODELS_DIR = "models"
FIT_DEFAULTS = FitConfig()
FLAG_SETTINGS = {
    "seed": "fit.seed",
    "encoder": "fit.encoder",
    "epochs": "fit.epochs",
    "device": "fit.device",
}


def _all_of(*options: Callable[[Any], Any]) -> Callable[[CommandT], CommandT]:
    """Return one decorator that adds options in the order given."""

    def decorate(command: CommandT) -> CommandT:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


warehouse_options = _all_of(
    click.option(
        "--project-dir",
        type=FOLDER,
        help="Folder of dbt_project.yml, as for dbt.  [default: dbt's own]",
    ),
    click.option(
        "--profiles-dir",
        type=FOLDER,
        help="Folder of profiles.yml, as for dbt.  [default: dbt's own]",
    ),
    click.option(
        "--target",
        "-t",
        help="Target of the profile, as for dbt.  [default: the profile's own]",
    ),
    click.option(
        "--vars",
        "dbt_vars",
        metavar="YAML",
        help="dbt vars as YAML or JSON; give what `dbt build` was given.  [default: none]",
    ),
)
config_options = _all_of(
    click.option(
        "--config",
        "config_file",
        type=FILE,
        envvar="CHURN_TRAIN_CONFIG",
        help="YAML file with settings; variables CHURN_TRAIN_<SECTION>_<FIELD> win over it, "
        "flags over both.  [default: none]",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SECTION.FIELD=VALUE",
        help="Any setting of the config file; may be repeated.  [default: none]",
    ),
)
fit_options = _all_of(
    click.option(
        "--seed", type=int, help=f"Seed of everything random.  [default: {FIT_DEFAULTS.seed}]"
    ),
    click.option(
        "--encoder",
        help="'compact', or a path or hub id that transformers can load.  "
        f"[default: {FIT_DEFAULTS.encoder}]",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(min=1),
        help=f"Passes of fine-tuning.  [default: {FIT_DEFAULTS.epochs}]",
    ),
    click.option(
        "--device",
        help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...  "
        f"[default: {FIT_DEFAULTS.device}]",
    ),
)
snapshots_dir_option = click.option(
    "--snapshots-dir",
    type=FOLDER,
    default=Path("snapshots"),
    show_default=True,
    envvar="CHURN_TRAIN_SNAPSHOTS_DIR",
    help="Folder of all snapshots.",
)
runs_dir_option = click.option(
    "--runs-dir",
    type=FOLDER,
    default=Path("runs"),
    show_default=True,
    envvar="CHURN_TRAIN_RUNS_DIR",
    help="Folder of all runs.",
)
models_dir_option = click.option(
    "--models-dir",
    callback=read_models_dir,
    metavar="PLACE",
    envvar="CHURN_MODELS_DIR",
    help="Folder or URL of bundles and registry; CHURN_MODELS_DIR sets it for dbt too.  "
    "[default: models; with a warehouse, the profile's models_dir]",
)
output_options = _all_of(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object.  [default: off]"),
    click.option(
        "--quiet", "-q", is_flag=True, help="No progress on standard error.  [default: off]"
    ),
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, write nothing.  [default: off]"
)


def make_warehouse(options: dict[str, Any]) -> Warehouse:
    """Return the warehouse of the dbt options among a command's options."""
    from trainer.data.warehouse import Warehouse, WarehouseOptions

    return Warehouse(
        WarehouseOptions(
            project_dir=options["project_dir"],
            profiles_dir=options["profiles_dir"],
            target=options["target"],
            vars=options["dbt_vars"],
        )
    )


def named_warehouse(options: dict[str, Any]) -> Warehouse | None:
    """Return the warehouse of the dbt options; None where no option and no folder names one."""
    names = ("project_dir", "profiles_dir", "target", "dbt_vars")
    is_named = any(options[name] is not None for name in names)
    is_here = "DBT_PROJECT_DIR" in os.environ or Path("dbt_project.yml").is_file()
    return make_warehouse(options) if is_named or is_here else None


def make_config(options: dict[str, Any]) -> TrainConfig:
    """Return the settings that file, environment and flags resolve to."""
    from trainer.config import load_config

    overrides: dict[str, Any] = {}
    for text in options.get("settings") or ():
        key, separator, value = text.partition("=")
        if not separator:
            raise click.UsageError(f"--set {text!r}; allowed: SECTION.FIELD=VALUE")
        overrides[key.strip()] = value.strip()
    for flag, setting in FLAG_SETTINGS.items():
        if options.get(flag) is not None:
            overrides[setting] = options[flag]
    return load_config(options.get("config_file"), environment=os.environ, overrides=overrides)


def make_progress(options: dict[str, Any]) -> Progress:
    """Return progress on standard error."""
    from trainer.progress import Progress

    return Progress(quiet=bool(options.get("quiet")))


def make_workspace(options: dict[str, Any], *, warehouse: Warehouse | None = None) -> Workspace:
    """Return the folders that a command works in; those it has no option for are the defaults."""
    from trainer.pipeline import Workspace

    return Workspace(
        snapshots_dir=options.get("snapshots_dir") or Path("snapshots"),
        runs_dir=options.get("runs_dir") or Path("runs"),
        models_dir=resolve_models_dir(options, warehouse),
        progress=make_progress(options),
    )


def resolve_models_dir(options: dict[str, Any], warehouse: Warehouse | None = None) -> ModelsDir:
    """Return the models location: option, else the profile's, else ``models``."""
    given: ModelsDir | None = options.get("models_dir")
    if given is not None:
        return given
    return Path(DEFAULT_MODELS_DIR) if warehouse is None else warehouse.models_dir()


def emit(options: dict[str, Any], document: dict[str, Any], text: str) -> None:
    """Print the result: JSON when asked for, else text for people."""
    if options["as_json"]:
        from trainer.runs import to_json

        click.echo(to_json(document), nl=False)
    else:
        click.echo(text)
