"""Writes docs/commands.md: `python -m tests.docs.commands_page > docs/commands.md`. Knows no server."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.config import ENV_PREFIX, Settings, parse_size
from tests.docs.command_line import Leaf, leaves

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"

_HEAD = """# Commands

Every command and flag. `hotprompt --help`, and `--help` behind any command, say the same. Exit codes: 0 done, 2 wrong
usage, 1 failed; each mistake is one line on stderr.

Each flag of `serve` is also an environment variable, as in its table; a flag is stronger. `HOTPROMPT_HOME`
(`~/.local/share/hotprompt`) is where the embedded base model, the native decoder, runs and the default store lie.
Settings of `train` that are no flags are keys of `--config` and `--set`: [Training](training.md#settings).
"""

_KEYS = """
| by environment only | |
|---|---|
"""

_FOOT = """
This page is made by `python -m tests.docs.commands_page > docs/commands.md`; a test holds it to that.
"""


def page() -> str:
    """The whole page."""
    return "".join([_HEAD, *(_section(leaf) for leaf in leaves()), _FOOT])


def _section(leaf: Leaf) -> str:
    is_serve = leaf.words[1:] == ("serve",)
    parts = [f"\n## {' '.join(leaf.words)}\n\n{_prose(leaf.command.help)}\n"]
    if leaf.arguments:
        parts += ["\n| argument | |\n|---|---|\n", *map(_argument, leaf.arguments)]
    if leaf.options:
        parts += _table_of_serve(leaf) if is_serve else ["\n| flag | |\n|---|---|\n", *map(_option, leaf.options)]
    return "".join(parts)


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _argument(param: Any) -> str:
    return f"| `{param.metavar or param.name.upper()}` | {_cell(param.help or '')} |\n"


def _option(param: Any) -> str:
    told = [param.help]
    if param.default and param.default is not True and "Default" not in param.help:
        told.append(f"Default: {param.default}.")
    if param.envvar:
        told.append(f"Also `{param.envvar}`.")
    return f"| {_flags(param)} | {_cell(' '.join(told))} |\n"


def _flags(param: Any) -> str:
    return ", ".join(f"`{flag}`" for flag in (*param.opts, *param.secondary_opts))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _table_of_serve(leaf: Leaf) -> Iterator[str]:
    yield "\n| flag | environment | values | |\n|---|---|---|---|\n"
    named = set()
    for param in leaf.options:
        field = param.name
        named.add(field)
        variable = f"`{ENV_PREFIX}{field.upper()}`" if field in Settings.model_fields else ""
        yield f"| {_flags(param)} | {variable} | {_values(field)} | {_cell(param.help)} |\n"
    yield _KEYS
    for field, info in Settings.model_fields.items():
        if field not in named:
            yield f"| `{ENV_PREFIX}{field.upper()}` | {_cell(info.description or '')} |\n"


def _values(field: str) -> str:
    schema = Settings.model_json_schema()["properties"].get(field, {})
    for form in (schema, *schema.get("anyOf", ())):
        if "enum" in form:
            return ", ".join(f"`{value}`" for value in form["enum"])
        if "minimum" in form:
            written = _size if _is_size(field) else _number
            return f"{written(form['minimum'])} to {written(form['maximum'])}"
    return ""


def _is_size(field: str) -> bool:
    return any(getattr(rule, "func", None) is parse_size for rule in Settings.model_fields[field].metadata)


def _size(number: int) -> str:
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if number >= 1 << power:
            return f"{number >> power}{unit}"
    return str(number)


def _number(number: float) -> str:
    return f"{number:,.15g}"


if __name__ == "__main__":
    sys.stdout.write(page())
