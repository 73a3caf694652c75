"""Holds a command of a snippet to what it calls: the command line, make's targets, modules, routes. Runs nothing."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from server.config import load_settings
from tests.docs.command_line import PROGRAM, parse
from tests.docs.http_calls import Surface, WrongCall, check_curl
from tests.docs.pages import ROOT
from training import load_train_config
from training.evaluate_adapter import EvaluateConfig

FOREIGN = {"cat", "cd", "cp", "docker", "export", "git", "kill", "mkdir", "npm", "npx", "pip", "printf", "sha256sum"}
FOREIGN |= {"sleep", "source", "tar", "openssl", "jq", "kubectl"}
"""Other people's programs: that they are there is all that is known of them."""

_TARGET = re.compile(r"^([a-z-]+):(?!=)", re.MULTILINE)
_NOT_TRAINING = ("config", "set_", "preview", "api_key")
_OF_THE_READER = ("adapter_roots", "key_file")
"""Paths of the reader's own machine: whether they are there cannot be known."""


def check_command(words: Sequence[str], surface: Surface) -> None:
    """Raises an error that says what is wrong with a command, if anything is."""
    name = Path(words[0]).name
    if name == PROGRAM:
        _check_program([PROGRAM, *words[1:]])
    elif name == "curl":
        check_curl(words, surface)
    elif name == "make":
        _check_make(words[1:])
    elif name in ("python", "python3"):
        _check_python(words[1:])
    elif name not in FOREIGN:
        raise WrongCall(f"{words[0]}: an unknown program (FOREIGN in {Path(__file__).name} has those that are known)")


def _check_program(words: Sequence[str]) -> None:
    leaf, parsed = parse(words)
    given = {name: None if value == () else value for name, value in parsed.items()}  # as the command gets them
    match leaf.words[1:]:
        case ("serve",):
            load_settings(**{name: value for name, value in given.items() if name not in _OF_THE_READER})
        case ("train",):
            if given["preview"] is not None and given["name"] is None:
                given["name"] = "preview"
            flags = {name: value for name, value in given.items() if name not in _NOT_TRAINING}
            config = given["config"]
            load_train_config(None if config is None else ROOT / config, given["set_"] or [], flags)
        case ("evaluate",):
            EvaluateConfig.model_validate({name: value for name, value in given.items() if value is not None})


def _check_make(words: Sequence[str]) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    wrong = [word for word in words if "=" not in word and word not in targets]
    if wrong:
        raise WrongCall(f"make has no target {', '.join(wrong)}")


def _check_python(words: Sequence[str]) -> None:
    if words[:1] != ["-m"]:
        return
    module, arguments = words[1], list(words[2:])
    if importlib.util.find_spec(module) is None:
        raise WrongCall(f"there is no module {module}")
    main: Any = getattr(importlib.import_module(module), "main", None) if module.startswith("benchmarks.") else None
    if main is not None:
        alone = typer.Typer()
        alone.command()(main)
        with typer.main.get_command(alone).make_context(module, arguments):
            return
