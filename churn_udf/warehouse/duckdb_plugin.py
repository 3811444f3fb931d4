"""The dbt-duckdb plugin: registers ``churn_score(...)`` and tells models where bundles are.

In ``profiles.yml``::

    plugins:
      - module: churn_udf.warehouse.duckdb_plugin
        alias: churn
        config: {models_dir: models, device: auto, lock_wait_seconds: 30}

Importing this module, and connecting, loads no torch; the first score does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.events.logging import AdapterLogger
from dbt.adapters.exceptions.connection import FailedToConnectError

from churn_udf.errors import SettingsError
from churn_udf.warehouse import DEVICE_VARIABLE, MODELS_DIR_VARIABLE
from churn_udf.warehouse.file_lock import DatabaseLockedError, wait_for_file
from churn_udf.warehouse.udf import (
    CHECKED_FUNCTION_NAME,
    FUNCTION_NAME,
    make_checked_churn_score,
    make_churn_score,
)

if TYPE_CHECKING:
    from churn_udf.scoring import Scorer

CONFIG_KEYS = ("models_dir", "device", "lock_wait_seconds")
DEFAULT_LOCK_WAIT_SECONDS = 30.0


class Plugin(BasePlugin):
    """Connects a dbt-duckdb profile to the models directory.

    Attributes:
        models_dir: Where bundles and the champion pointer are.
        device: Where the model runs: auto, cpu, cuda, ...
        lock_wait_seconds: How long to wait for a database that another process holds.
    """

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Check the configuration; the folder itself may be made later.

        Raises:
            SettingsError: ``models_dir`` missing, or a value of a wrong type.
        """
        self.models_dir = Path(_text(plugin_config, "models_dir")).expanduser().absolute()
        self.device = _text({"device": "auto", **plugin_config}, "device")
        self.lock_wait_seconds = _seconds(plugin_config, "lock_wait_seconds")
        unknown = sorted(set(plugin_config) - set(CONFIG_KEYS) - self._profile_settings())
        if unknown:
            raise SettingsError(
                f"plugin {self.name!r} in profiles.yml has config keys {unknown}; "
                f"allowed: {list(CONFIG_KEYS)}"
            )

    def update_connection_config(self, creds: Any, config: dict[str, Any]) -> None:
        """Wait, right before dbt opens the database, until no other process holds it.

        Raises:
            FailedToConnectError: It is still held; dbt prints the message without a traceback.
        """
        log = AdapterLogger("churn scoring").info
        try:
            wait_for_file(creds.path, config, seconds=self.lock_wait_seconds, log=log)
        except DatabaseLockedError as error:
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
        conn.create_function(
            CHECKED_FUNCTION_NAME,
            make_checked_churn_score(self._scorer),
            ["VARCHAR", "VARCHAR", "DOUBLE[]", "VARCHAR"],
            "DOUBLE",
            type="arrow",
            null_handling="special",
        )

    def configure_cursor(self, cursor: Any) -> None:
        """Leave the settings where the Python model finds them: session variables."""
        cursor.execute(f"set variable {MODELS_DIR_VARIABLE} = {_literal(str(self.models_dir))}")
        cursor.execute(f"set variable {DEVICE_VARIABLE} = {_literal(self.device)}")

    def _scorer(self) -> Scorer:
        """Return the champion's scorer, loading it at first use."""
        from churn_udf.warehouse.champion_scorers import champion_scorer

        return champion_scorer(self.models_dir, device=self.device)

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
