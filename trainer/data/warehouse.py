"""The warehouse as dbt sees it: settings, relations, features and rows, through dbt's own door.

Nothing is configured twice: project, profile, target and vars are those of ``dbt build``, and
the connection is made by the adapter from the same profile, so that its settings, attached
databases and plugins apply.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.contracts.settings import TEXT_VERSION, ModelSettings
from churn_udf.errors import TextVersionError
from churn_udf.models_location import ModelsDir, models_dir_of
from trainer.errors import WarehouseError

CONTEXT_QUERY = (
    '{"context": {{ churn_scoring.churn_context() }}, '
    '"settings_hash": "{{ churn_scoring.input_settings_hash() }}"}'
)
PLUGIN_MODULE = "churn_udf.warehouse.duckdb_plugin"
DEFAULT_MODELS_DIR = "models"
BUILD_HINT = "run `dbt build` with the same --project-dir, --profiles-dir, --target and --vars"
READ_ROWS = 8_192


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WarehouseOptions:
    """dbt's own options, as given on the command line; None leaves the choice to dbt."""

    project_dir: Path | None = None
    """Folder of ``dbt_project.yml``."""
    profiles_dir: Path | None = None
    """Folder of ``profiles.yml``."""
    target: str | None = None
    """Output of the profile."""
    vars: str | None = None
    """YAML or JSON mapping."""

    def arguments(self) -> list[str]:
        """Return the options as dbt's command line takes them."""
        values = {
            "--project-dir": self.project_dir,
            "--profiles-dir": self.profiles_dir,
            "--target": self.target,
            "--vars": self.vars,
        }
        return [
            part
            for option, value in values.items()
            if value is not None
            for part in (option, str(value))
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChurnContext:
    """What the dbt macro ``churn_context`` tells about the project."""

    settings: dict[str, Any]
    """All resolved vars without prefix, and ``text_version``."""
    relations: dict[str, str]
    """Model name -> quoted relation."""
    features: tuple[FeatureSpec, ...]
    """Numeric inputs in model order."""
    settings_hash: str
    """What ``int_cutoffs_spined`` says of tables that were built with these settings."""
    document: dict[str, Any]
    """The whole JSON document of the macro."""

    @property
    def model_settings(self) -> ModelSettings:
        """The settings that a bundle is bound to."""
        return ModelSettings.from_mapping(self.settings)

    def relation(self, model: str) -> str:
        """Return the quoted relation of a model.

        Raises:
            WarehouseError: The project has no such model enabled.
        """
        if model not in self.relations:
            raise WarehouseError(
                f"the dbt project has no model {model!r}; found: {sorted(self.relations)}; "
                "install the dbt package and the Python package of the same release"
            )
        return self.relations[model]

    def provenance(self, options: WarehouseOptions) -> dict[str, Any]:
        """Return where the rows come from, for ``snapshot.json``."""
        kept = ("project", "target", "invocation_id", "dbt_version")
        facts = {name: self.document[name] for name in kept if name in self.document}
        return {**facts, "vars": options.vars}


class Warehouse:
    """Read access to the warehouse of a dbt project.

    Args:
        options: dbt's options.
    """

    def __init__(self, options: WarehouseOptions) -> None:
        self.options = options

    @functools.cached_property
    def context(self) -> ChurnContext:
        """Settings, relations and features, resolved by dbt.

        Raises:
            WarehouseError: dbt cannot compile the project with these options.
            TextVersionError: The dbt package writes another text than this release reads.
        """
        context = parse_context(self._rendered)
        version = context.settings.get("text_version")
        if version != TEXT_VERSION:
            raise TextVersionError(
                f"the dbt package writes text version {version}, this release reads "
                f"{TEXT_VERSION}; install the dbt and Python packages of the same release"
            )
        return context

    def models_dir(self) -> ModelsDir:
        """Return the models location that the profile gives to the plugin, ``models`` if none.

        Raises:
            WarehouseError: dbt cannot read the profile.
        """
        for plugin in getattr(self._credentials, "plugins", None) or []:
            if plugin.module == PLUGIN_MODULE:
                return models_dir_of(
                    str((plugin.config or {}).get("models_dir", DEFAULT_MODELS_DIR))
                )
        return models_dir_of(DEFAULT_MODELS_DIR)

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        """Open a DuckDB cursor with the profile's settings; closed and released on exit.

        Raises:
            WarehouseError: No database there, it is locked, or a query fails.
        """
        from dbt.adapters.duckdb import environments

        credentials = self._credentials
        if credentials.type != "duckdb":
            raise WarehouseError(
                f"target {credentials.type!r} cannot be exported yet; allowed: duckdb"
            )
        path = str(credentials.path)
        if "://" not in path and not path.startswith((":memory:", "md:")):
            _require_file(Path(path))
        _close_dbt_connection()
        with _translated_errors(path):
            environment: Any = environments.create(credentials)
            try:
                handle = environment.handle()
                try:
                    yield handle.cursor()
                finally:
                    handle.close()
            finally:
                environment.close()

    def stream(self, cursor: Any, query: str, *, rows: int = READ_ROWS) -> pa.RecordBatchReader:
        """Run a query and return a reader over its record batches."""
        return cursor.sql(query).to_arrow_reader(rows)

    @property
    def _rendered(self) -> str:
        """The text of ``CONTEXT_QUERY``."""
        return self._resolved[0]

    @property
    def _credentials(self) -> Any:
        """The adapter's credentials."""
        return self._resolved[1]

    @functools.cached_property
    def _resolved(self) -> tuple[str, Any]:
        """The rendered context, and the credentials as dbt's own profile loader reads them."""
        rendered = self._compile(CONTEXT_QUERY)
        import dbt.flags
        from dbt.config.runtime import load_profile

        # dbt's flags and environment stand as the invocation just now has left them.
        get_flags: Any = dbt.flags.get_flags
        flags = get_flags()
        profile = load_profile(flags.PROJECT_DIR, flags.VARS, flags.PROFILE, flags.TARGET)
        return rendered, profile.credentials

    def _compile(self, query: str) -> str:
        """Render a piece of Jinja in the project and return the text."""
        from dbt.cli.main import dbtRunner

        quiet = ["--quiet", "--log-level", "none", "--log-level-file", "none", "--no-write-json"]
        # dbt must not connect here: it would make an empty database where there is none.
        quiet += ["--no-populate-cache", "--no-send-anonymous-usage-stats"]
        command = ["compile", "--no-introspect", "--inline", query]
        details: list[str] = []

        def collect(event: Any) -> None:
            if event.info.name == "ParseInlineNodeError":
                details.append(event.info.msg)

        runner = dbtRunner(callbacks=[collect])
        result = runner.invoke([*quiet, *command, *self.options.arguments()])
        if isinstance(result.exception, KeyboardInterrupt):
            raise result.exception
        nodes = list(getattr(result.result, "results", None) or [])
        if not result.success:
            told = [*details, result.exception, *(node.message for node in nodes)]
            reason = next(filter(None, told), "no reason given")
            raise WarehouseError(f"dbt cannot compile the project: {clean_dbt_message(reason)}")
        return str(nodes[0].node.compiled_code)


def parse_context(text: str) -> ChurnContext:
    """Parse what ``CONTEXT_QUERY`` renders to.

    Raises:
        WarehouseError: Not the document that this release knows.
    """
    try:
        rendered = json.loads(text)
        document, settings_hash = rendered["context"], str(rendered["settings_hash"])
        features = tuple(
            FeatureSpec(
                name=feature["name"],
                group=feature["group"],
                description=str(feature.get("description") or "").strip(),
            )
            for feature in document["features"]
        )
        settings, relations = dict(document["settings"]), dict(document["relations"])
    except (ValueError, KeyError, TypeError) as error:
        raise WarehouseError(
            f"churn_context() gave something else than expected ({type(error).__name__}: {error}); "
            "install the dbt package and the Python package of the same release"
        ) from error
    return ChurnContext(
        settings=settings,
        relations=relations,
        features=features,
        settings_hash=settings_hash,
        document=document,
    )


def clean_dbt_message(reason: object) -> str:
    """Return dbt's message on one line, without its macro trace."""
    lines = [line.strip() for line in str(reason).splitlines()]
    kept = [
        line
        for line in lines
        if line
        and not line.startswith(("> in macro", "> called by"))
        and not re.match(r"^(Compilation|Runtime|Parsing|Database) Error( in .*)?$", line)
    ]
    return " ".join(kept) or "no reason given"


def _require_file(path: Path) -> None:
    """Refuse a database that is not there: connecting would make an empty one."""
    if not path.exists():
        raise WarehouseError(
            f"no warehouse at {path.absolute()}; {BUILD_HINT}, or set CHURN_DUCKDB_PATH to the "
            "database that dbt built"
        )


def _close_dbt_connection() -> None:
    """Close what dbt left open in this process, so that ours is the only connection."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    manager: Any = DuckDBConnectionManager
    environment, manager._ENV = manager._ENV, None
    if environment is not None:
        environment.close()


@contextlib.contextmanager
def _translated_errors(path: str) -> Iterator[None]:
    """Turn DuckDB's and dbt's errors into one line that says what to do."""
    import duckdb
    from dbt_common.exceptions import DbtBaseException

    try:
        yield
    except duckdb.CatalogException as error:
        raise WarehouseError(f"{_first_line(error)}; {BUILD_HINT} first") from error
    except duckdb.BinderException as error:
        raise WarehouseError(
            f"{_first_line(error)}; the tables were built by another release: {BUILD_HINT}"
        ) from error
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise WarehouseError(
                f"{path} is in use by another process ({_first_line(error)}); DuckDB lets one "
                "process in at a time: wait for it or close it, then run this again"
            ) from error
        raise WarehouseError(f"{path} cannot be read: {_first_line(error)}") from error
    except (duckdb.Error, DbtBaseException) as error:
        raise WarehouseError(f"{path}: {clean_dbt_message(error)}") from error


def _first_line(error: Exception) -> str:
    """Return the first line of a message."""
    return str(error).strip().splitlines()[0]
