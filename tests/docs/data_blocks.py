"""Holds JSON and YAML in docs to what reads it in hotprompt: models of requests and answers, key files, settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from adapters.manifest import AdapterManifest
from server.config import load_settings
from server.keys import read_callers
from tests.docs.http_calls import Surface
from training import TrainConfig, load_train_config

_CUT = "…"
"""Stands for what a page leaves out of a text."""


def check_json(text: str, surface: Surface) -> None:
    """One of the server's objects: some schema has all its keys, and it has that form. Raises AssertionError."""
    value = json.loads(text)
    assert isinstance(value, dict), "no object"
    problems = []
    for name, schema in _schemas(surface):
        if set(value) <= set(schema.get("properties", ())):
            wrong = [error.message for error in Draft202012Validator(schema).iter_errors(value) if not _is_cut(error)]
            if not wrong:
                return
            problems += [f"{name}: {message}" for message in wrong]
    raise AssertionError(problems or f"nothing has the keys {sorted(value)}")


def _schemas(surface: Surface) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema of the OpenAPI document, and the manifest's, with what they refer to."""
    known = surface.document["components"]["schemas"]
    for name, schema in known.items():
        yield name, schema | {"components": {"schemas": known}}
    yield "hotprompt.json", AdapterManifest.model_json_schema()


def _is_cut(error: Any) -> bool:
    """What is wrong only because a page leaves something out."""
    return (isinstance(error.instance, str) and _CUT in error.instance) or error.instance == {_CUT: _CUT}


def check_yaml(text: str, directory: Path) -> None:
    """A key file, settings of a training run, or another program's file. Raises what its reader raises."""
    value = yaml.safe_load(text)
    assert isinstance(value, dict), "no mapping"
    file = directory / "snippet.yaml"
    file.write_text(text)
    if set(value) == {"keys"}:
        assert list(read_callers(load_settings(key_file=file)))
    elif set(value) <= set(TrainConfig.model_fields):
        load_train_config(file, (), {key: "x" for key in ("data", "name") if key not in value})
    else:
        assert set(value) & {"services", "apiVersion", "scrape_configs"}, f"nothing reads {sorted(value)}"
