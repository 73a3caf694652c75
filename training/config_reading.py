"""Settings of a run from YAML, `--set` and flags, and back; every mistake at once. Knows no key's meaning."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from training.config import TrainConfig
from training.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)


def load_train_config(
    config_file: Path | None, overrides: Sequence[str] = (), flags: Mapping[str, object] | None = None
) -> TrainConfig:
    """Settings from a YAML file, then `key=value` overrides, then flags by key; later ones win.

    A flag whose value is None was not given. Relative paths count from the working directory.
    Raises ConfigError with every mistake at once.
    """
    problems: list[str] = []
    settings = _read_yaml(config_file) if config_file is not None else {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {override}: must be key=value")
        else:
            settings[key.strip()] = _override_value(value)
    settings |= {key: value for key, value in (flags or {}).items() if value is not None}
    return checked(TrainConfig, settings, problems=problems)


def checked(kind: type[Settings], settings: Mapping[str, object], *, problems: Sequence[str] = ()) -> Settings:
    """Settings of a kind. Raises ConfigError with every mistake, the `problems` found before among them."""
    try:
        config = kind.model_validate(dict(settings))
    except ValidationError as error:
        # A default that goes by another key is no mistake of its own where that key has one.
        details = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
        found = [_problem(detail, kind) for detail in details]
        raise ConfigError([*problems, *found]) from None
    if problems:
        raise ConfigError(problems)
    return config


def config_yaml(config: TrainConfig) -> str:
    """Every setting that means something to the run's method, as `--config` reads it again."""
    settings = config.model_dump(mode="json", exclude=config.keys_without_meaning)
    return yaml.safe_dump(settings, allow_unicode=True, sort_keys=False, width=1000)


def scalars(settings: Mapping[str, object]) -> dict[str, str | int | float | bool | None]:
    """Settings as a manifest holds them: what is a list becomes JSON text."""
    return {
        key: value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        for key, value in settings.items()
    }


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"--config {path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"--config {path}: not UTF-8 text"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"--config {path}: not valid YAML: {' '.join(str(error).split())}"]) from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError([f"--config {path}: must be 'key: value' lines"])
    return {str(key): value for key, value in settings.items()}


def _override_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _problem(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    """One line: the key, what is wrong, what is allowed."""
    key = str(detail["loc"][0])
    value = detail["input"]
    match detail["type"]:
        case "missing":
            return f"{key}: is required"
        case "extra_forbidden":
            close = difflib.get_close_matches(key, kind.model_fields, n=1)
            return f"{key}: no such key" + (f" (did you mean {close[0]}?)" if close else "")
        case "literal_error":
            return f"{key}: {value!r} is not supported (supported: {detail['ctx']['expected']})"
        case "value_error":
            return f"{key}: {detail['ctx']['error']}"
    rule = detail["msg"].removeprefix("Input ")
    return f"{key}: {rule}, is {value!r}"
