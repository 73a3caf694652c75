"""Each fenced block of the docs is what its language says, and the code knows every word of it that is the code's."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.docs.data_blocks import check_json, check_yaml
from tests.docs.http_calls import Surface, WrongCall, check_curl
from tests.docs.pages import Block, all_blocks
from tests.docs.shell import commands_of
from tests.docs.shell_commands import check_command

BLOCKS = all_blocks()
LANGUAGES = {"bash", "javascript", "json", "nginx", "python", "sh", "text", "yaml"}
"""bash, python and javascript are run as well (test_snippets.py); text is output or a sketch, and checked by nobody."""
OURS = ("adapters", "benchmarks", "client", "server", "training")


def _of(*languages: str) -> pytest.MarkDecorator:
    chosen = [block for block in BLOCKS if block.language in languages]
    assert chosen, f"no page has blocks of {languages}"
    return pytest.mark.parametrize("block", chosen, ids=lambda block: block.where)


def test_each_block_says_what_it_is() -> None:
    assert not [block.where for block in BLOCKS if block.language not in LANGUAGES]


@_of("bash", "sh")
def test_commands_are_understood(block: Block, surface: Surface) -> None:
    commands = commands_of(block.text)
    assert commands
    for command in commands:
        check_command(command, surface)


@_of("json")
def test_json_is_what_the_server_reads_or_writes(block: Block, surface: Surface) -> None:
    check_json(block.text, surface)


@_of("yaml")
def test_yaml_is_read(block: Block, tmp_path: Path) -> None:
    check_yaml(block.text, tmp_path)


@_of("python")
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] in OURS:
            module = importlib.import_module(node.module)
            assert not [name.name for name in node.names if not hasattr(module, name.name)]


@_of("nginx")
def test_nginx_is_balanced_and_knows_our_routes(block: Block, surface: Surface) -> None:
    code = re.sub(r"#.*", "", block.text)
    assert code.count("{") == code.count("}")
    for line in code.splitlines():
        assert not line.strip() or line.strip()[-1] in "{};", line
    for path in re.findall(r"location (?:= )?(\S+)", code):
        assert path == "/" or [route for route in surface.routes if route.template == path], path


@pytest.mark.parametrize(
    "wrong",
    [
        ["hotprompt", "serve", "--no-such-flag"],
        ["hotprompt", "serve", "--port", "70000"],
        ["hotprompt", "train", "--set", "no_such_key=1"],
        ["hotprompt", "serves"],
        ["make", "tea"],
        ["python", "-m", "benchmarks.no_such_module"],
        ["no-such-program"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_found(wrong: list[str], surface: Surface) -> None:
    with pytest.raises(Exception, match=r".") as found:
        check_command(wrong, surface)
    assert not isinstance(found.value, KeyError | TypeError | AttributeError)


@pytest.mark.parametrize(
    "wrong",
    [
        "curl http://127.0.0.1:8000/v1/nothing",
        "curl -X PUT http://127.0.0.1:8000/v1/models",
        "curl http://127.0.0.1:8000/v1/models?limit=1",
        "curl --teapot http://127.0.0.1:8000/v1/models",
        "curl http://127.0.0.1:8000/v1/adapters -F name=x -F adapter_config.json=@a",
        "curl http://127.0.0.1:8000/v1/embeddings -d '{}'",
    ],
)
def test_a_wrong_call_is_found(wrong: str, surface: Surface) -> None:
    [command] = commands_of(wrong)
    with pytest.raises(WrongCall):
        check_curl(command, surface)


@pytest.mark.parametrize(
    "body", ['{"model": "m", "input": "x", "colour": "red"}', '{"model": "m"}', '{"model": "m", "input": "x"']
)
def test_a_wrong_body_is_found(body: str, surface: Surface) -> None:
    call = ["curl", "http://127.0.0.1:8000/v1/embeddings", "-H", "content-type: application/json", "-d", body]
    with pytest.raises(ValueError, match="validation error"):
        check_curl(call, surface)


def test_wrong_data_is_found(surface: Surface, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_json('{"error": {"message": 5}}', surface)
    with pytest.raises(AssertionError, match="nothing has the keys"):
        check_json('{"colour": "red"}', surface)
    with pytest.raises(AssertionError, match="nothing reads"):
        check_yaml("colour: red", tmp_path)
