"""The dbt-duckdb plugin: registers ``churn_score(...)`` and tells models where bundles are.

In ``profiles.yml``::

    plugins:
      - module: churn_udf.warehouse.duckdb_plugin
        alias: churn
        config: {models_dir: models, device: auto, publish_dir: published, publish_keep: 3,
                 lock_wait_seconds: 30}

Only ``models_dir`` is required: a folder, or any URL that fsspec can open. Published tables go to
``<name of the DuckDB file>_published`` beside that file unless ``publish_dir`` says another folder,
or ``false`` for none.

Importing this module, and connecting, loads no torch; the first score does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.events.logging import AdapterLogger
from dbt.adapters.exceptions.connection import FailedToConnectError

from churn_udf.errors import SettingsError
from churn_udf.models_location import absolute, models_dir_of
from churn_udf.publishing import KEEP_VERSIONS
from churn_udf.warehouse import (
    DEVICE_VARIABLE,
    MODELS_DIR_VARIABLE,
    PUBLISH_DIR_VARIABLE,
    PUBLISH_KEEP_VARIABLE,
)
from churn_udf.warehouse.file_lock import DatabaseLockedError, wait_for_file
from churn_udf.warehouse.torn_blocks import DatabaseDamagedError, connect_mending
from churn_udf.warehouse.udf import (
    CHECKED_FUNCTION_NAME,
    FUNCTION_NAME,
    ONCE_FUNCTION_NAME,
    make_checked_churn_score,
    make_churn_score,
)

if TYPE_CHECKING:
    from churn_udf.scoring import Scorer

CONFIG_KEYS = ("models_dir", "device", "publish_dir", "publish_keep", "lock_wait_seconds")
DEFAULT_LOCK_WAIT_SECONDS = 30.0


class Plugin(BasePlugin):
    """Connects a dbt-duckdb profile to the models directory.

    Attributes:
        models_dir: Where bundles and the registry are: a folder, or a URL as text.
        device: Where the model runs: auto, cpu, cuda, ...
        publish_dir: Where the score marts are published as files; none when that is off.
        publish_keep: How many published versions are kept.
        lock_wait_seconds: How long to wait for a database that another process holds.
    """

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Check the configuration; the folder itself may be made later.

        Raises:
            SettingsError: ``models_dir`` missing, or a value of a wrong type.
        """
        self.models_dir = absolute(models_dir_of(_text(plugin_config, "models_dir")))
        self.device = _text({"device": "auto", **plugin_config}, "device")
        self.publish_dir = self._publish_dir(plugin_config)
        self.publish_keep = _count({"publish_keep": KEEP_VERSIONS, **plugin_config}, "publish_keep")
        self.lock_wait_seconds = _seconds(plugin_config, "lock_wait_seconds")
        unknown = sorted(set(plugin_config) - set(CONFIG_KEYS) - self._profile_settings())
        if unknown:
            raise SettingsError(
                f"plugin {self.name!r} in profiles.yml has config keys {unknown}; "
                f"allowed: {list(CONFIG_KEYS)}"
            )

    def update_connection_config(self, creds: Any, config: dict[str, Any]) -> None:
        """Wait, right before dbt opens the database, until no other process holds it.

        What a kill left half written there is mended then.

        Raises:
            FailedToConnectError: It is still held, or damaged; dbt prints the message without a
                traceback.
        """
        log = AdapterLogger("churn scoring")
        connect = functools.partial(connect_mending, log=log.warning)
        try:
            wait_for_file(
                creds.path, config, seconds=self.lock_wait_seconds, log=log.info, connect=connect
            )
        except (DatabaseLockedError, DatabaseDamagedError) as error:
            raise FailedToConnectError(str(error)) from None

    def configure_connection(self, conn: Any) -> None:
        """Register the SQL functions; cursors of the connection see them."""
        conn.create_function(
            FUNCTION_NAME,
            make_churn_score(self._scorer),
            ["VARCHAR", "VARCHAR", "DOUBLE[]"],
            "DOUBLE",
            type="arrow",
            null_handling="special",
        )
        checked = make_checked_churn_score(self._scorer)
        for name, has_side_effects in ((CHECKED_FUNCTION_NAME, False), (ONCE_FUNCTION_NAME, True)):
            conn.create_function(
                name,
                checked,
                ["VARCHAR", "VARCHAR", "DOUBLE[]", "VARCHAR"],
                "DOUBLE",
                type="arrow",
                null_handling="special",
                side_effects=has_side_effects,
            )

    def configure_cursor(self, cursor: Any) -> None:
        """Leave the settings where the Python model finds them: session variables."""
        cursor.execute(f"set variable {MODELS_DIR_VARIABLE} = {_literal(str(self.models_dir))}")
        cursor.execute(f"set variable {DEVICE_VARIABLE} = {_literal(self.device)}")
        if self.publish_dir is not None:
            folder = _literal(str(self.publish_dir))
            cursor.execute(f"set variable {PUBLISH_DIR_VARIABLE} = {folder}")
            cursor.execute(f"set variable {PUBLISH_KEEP_VARIABLE} = {self.publish_keep}")

    def _scorer(self) -> Scorer:
        """Return the champion's scorer, loading it at first use."""
        from churn_udf.warehouse.champion_scorers import champion_scorer

        return champion_scorer(self.models_dir, device=self.device)

    def _publish_dir(self, plugin_config: Mapping[str, Any]) -> Path | None:
        """Return the folder for published tables: as configured, else beside the DuckDB file."""
        if plugin_config.get("publish_dir") is False:
            return None
        if "publish_dir" in plugin_config:
            return Path(_text(plugin_config, "publish_dir")).expanduser().absolute()
        path = str(getattr(self.creds, "path", ":memory:"))
        if path.startswith((":memory:", "md:", "motherduck:")):
            return None
        file = Path(path).expanduser().absolute()
        return file.with_name(f"{file.stem}_published")

    def _profile_settings(self) -> set[str]:
        """Return keys that dbt-duckdb adds to every plugin's config from the target."""
        return set(getattr(self.creds, "settings", None) or {})


def _text(config: Mapping[str, Any], key: str) -> str:
    """Return a non-empty text setting."""
    value = config.get(key)
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(
            f"plugin churn_udf.warehouse.duckdb_plugin in profiles.yml has {key} {value!r}; "
            f"allowed: text, such as config: {{models_dir: models, device: auto}}"
        )
    return value.strip()


def _count(config: Mapping[str, Any], key: str) -> int:
    """Return a setting that counts things."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SettingsError(
            f"plugin churn_udf.warehouse.duckdb_plugin in profiles.yml has {key} {value!r}; "
            "allowed: a whole number, 1 or more"
        )
    return value


def _seconds(config: Mapping[str, Any], key: str) -> float:
    """Return a number of seconds."""
    value = config.get(key, DEFAULT_LOCK_WAIT_SECONDS)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise SettingsError(
            f"plugin churn_udf.warehouse.duckdb_plugin in profiles.yml has {key} {value!r}; "
            f"allowed: a number of seconds >= 0, such as {DEFAULT_LOCK_WAIT_SECONDS:g}"
        )
    return float(value)


def _literal(value: str) -> str:
    """Return a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"
