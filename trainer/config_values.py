"""Settings as text and nested mappings, and back into typed dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import ConfigError

ConfigT = TypeVar("ConfigT")


def from_mapping(kind: type[ConfigT], tree: Mapping[str, Any], *, path: str = "") -> ConfigT:
    """Build a config dataclass from nested mappings.

    Args:
        kind: The dataclass.
        tree: Field name -> value.
        path: Where the tree stands, for messages.

    Raises:
        ConfigError: An unknown key (names the nearest), a wrong type, or a value out of range.
    """
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in tree.items():
        full_name = f"{path}.{name}" if path else str(name)
        if name not in known:
            raise ConfigError(f"unknown setting {full_name!r}{nearest(str(name), known)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            values[name] = from_mapping(hint, value, path=full_name)
        else:
            values[name] = _coerce(value, hint, full_name)
    return kind(**values)


def plain(value: Any) -> Any:
    """Turn tuples into lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def parse_value(text: str) -> Any:
    """Read one value as YAML does; text that is no YAML stays text."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a file that holds a YAML mapping.

    Raises:
        ConfigError: It cannot be read or holds something else.
    """
    import yaml

    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} holds {type(tree).__name__}; allowed: a mapping of sections")
    return tree


def nearest(name: str, known: list[str]) -> str:
    """Return the end of a message that names the closest known key, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; allowed: {', '.join(sorted(known))}"


def _coerce(value: Any, hint: Any, path: str) -> Any:
    """Return the value as the hinted type; text is parsed first unless text is wanted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        parsed = parse_value(value) if isinstance(value, str) and str not in arguments else value
        if parsed is None or (isinstance(value, str) and value.strip().lower() in {"null", ""}):
            return None
        return _coerce(value, next(item for item in arguments if item is not type(None)), path)
    if hint is str:
        if isinstance(value, str):
            return value
        raise _wrong_type(path, value, "text")
    if isinstance(value, str):
        value = _parse_text(value, is_list=origin is tuple)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and not isinstance(value, bool) and _is_whole(value):
        return int(value)
    if hint is float and not isinstance(value, bool) and isinstance(value, (int, float)):
        return float(value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(item, arguments[0], f"{path}[{i}]") for i, item in enumerate(value))
    if origin is not None and origin is not tuple and isinstance(value, Mapping):
        return {
            str(key): _coerce(item, arguments[1], f"{path}.{key}") for key, item in value.items()
        }
    raise _wrong_type(path, value, _type_name(hint))


def _parse_text(text: str, *, is_list: bool) -> Any:
    """Parse text of a flag or variable: YAML, numbers such as 1e-4, ``a,b`` for lists."""
    value = parse_value(text)
    if is_list and isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _is_whole(value: Any) -> bool:
    """Return whether a value is a whole number."""
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _type_name(hint: Any) -> str:
    """Return a type as people say it."""
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    origin = typing.get_origin(hint)
    return names.get(hint, "a list" if origin is tuple else "a mapping")


def _wrong_type(path: str, value: Any, allowed: str) -> ConfigError:
    """Return the error for a value of a wrong type."""
    return ConfigError(f"{path} is {value!r}; allowed: {allowed}")
