"""The command line: what it says, where it says it, and its exit codes, over a store and over a running server."""

import os
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from adapters.files import AdapterFiles
from client.chat import Conversation, run_chat
from client.connection import Connection
from client.errors import ServerRefused, ServerUnreachable
from hotprompt import app
from server.config import Settings
from tests.server.building import live_server, soft_prompt_files, tiny_settings
from tests.tiny import CHAT_TEMPLATE, save_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base("llama", tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture(params=["store", "server"])
def place(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The flags of a place with adapters: a store, and a server that runs."""
    store = tmp_path / "store"
    if request.param == "store":
        yield ["--store", str(store)]
        return
    with live_server(tiny_settings(base, store)) as (running, _):
        yield ["--url", running.url]


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _brief_files() -> AdapterFiles:
    """An adapter that asks for short answers, so that the history stays within the tiny context."""
    chat_format = {"template": CHAT_TEMPLATE, "sampling": {"max_tokens": 12, "temperature": 0}}
    return soft_prompt_files(1, manifest={"chat_format": chat_format})


def _good(*arguments: object) -> str:
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def _bad(*arguments: object, code: int = 1) -> str:
    """The one line that a failing command says on stderr."""
    result = _run(*arguments)
    assert result.exit_code == code, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("hotprompt: ")
    return line


def _write(files: AdapterFiles, path: Path) -> Path:
    path.mkdir()
    for name, content in files.by_name().items():
        (path / name).write_bytes(content)
    return path


def test_the_life_of_an_adapter(place: list[str], tmp_path: Path) -> None:
    first = _write(soft_prompt_files(1), tmp_path / "first")
    second = _write(soft_prompt_files(2), tmp_path / "second")
    assert _good("adapters", "list", *place) == "no adapters\n"
    digests = [_good("adapters", "add", "team", path, *place).split()[2] for path in (first, second)]
    assert digests[0] != digests[1]
    assert "2" in _good("adapters", "list", *place)
    shown = _good("adapters", "show", "team", *place)
    assert f"{digests[0]}, {digests[1]} (current)" in shown
    assert digests[0] in _good("adapters", "rollback", "team", *place)
    assert digests[1] in _good("adapters", "rollback", "team", digests[1], *place)
    _good("adapters", "alias", "prod", "team", *place)
    _good("adapters", "pin", "team", *place)
    shown = _good("adapters", "show", "prod", *place)
    assert "aliases      prod" in shown
    assert "pinned       yes" in shown
    _good("adapters", "pin", "team", "--off", *place)
    assert "prod" in _bad("adapters", "remove", "team", *place)
    _good("adapters", "remove", "prod", *place)
    _good("adapters", "remove", "team", *place)
    assert "team" in _bad("adapters", "show", "team", *place)


def test_mistakes_are_one_line_each(place: list[str], tmp_path: Path) -> None:
    good = _write(soft_prompt_files(1), tmp_path / "good")
    assert "'../evil'" in _bad("adapters", "add", "../evil", good, *place)
    assert "not a directory" in _bad("adapters", "add", "team", tmp_path / "nowhere", *place)
    (good / "adapter_model.safetensors").write_bytes(b"\x80\x02 a pickle")
    assert "adapter_model.safetensors" in _bad("adapters", "add", "team", good, *place)
    assert "no adapter is named" in _bad("adapters", "remove", "nobody", *place)


def test_verify_finds_damage_and_another_base(base: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    _good("adapters", "add", "team", _write(soft_prompt_files(1), tmp_path / "first"), "--store", store)
    assert "whole, belongs to tiny-llama" in _good("adapters", "verify", "--store", store, "--base", base)
    [weights] = store.glob("versions/*/adapter_model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = _run("adapters", "verify", "team", "--store", store)
    assert result.exit_code == 1
    assert "WRONG" in result.stdout


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert "exclude" in _bad("adapters", "list", "--store", tmp_path, "--url", "http://x", code=2)
    assert "learning_rat" in _bad("train", "--name", "x", "--data", "y", "--set", "learning_rat=1", code=2)
    assert _run("serve", "--no-such-flag").exit_code == 2
    result = _run("serve", "--port", "notaport", "--device", "tpu")
    assert result.exit_code == 2
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["--port", "--device"]


def test_no_server_is_one_line() -> None:
    assert "--url http://127.0.0.1:9" in _bad("adapters", "list", "--url", "http://127.0.0.1:9")


def test_training_data_mistakes_are_told_before_training(base: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n')
    result = _run("train", "--base", base, "--data", rows, "--name", "x", "--store", tmp_path / "store")
    assert result.exit_code == 1
    assert "rows.jsonl" in result.stderr
    assert "line 2" in result.stderr
    assert "output" in result.stderr


def test_every_setting_of_serve_has_its_flag() -> None:
    help_text = _good("serve", "--help")
    for field in Settings.model_fields:
        if not field.endswith("_keys"):
            assert f"--{field.replace('_', '-')[:20]}" in help_text, field


def test_chat_in_a_pipe_streams_answers_and_keeps_the_history(base: Path, tmp_path: Path) -> None:
    _good("adapters", "add", "brief", _write(_brief_files(), tmp_path / "brief"), "--store", tmp_path)
    with live_server(tiny_settings(base, tmp_path)) as (running, _), Connection(f"{running.url}/v1") as connection:
        conversation = Conversation(connection, "brief")
        output = StringIO()
        lines = iter(["hello", "", "/help", "again", "/exit", "never"])
        run_chat(conversation, Console(file=output, width=200), lambda: next(lines))
        assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2
        assert _printable(conversation.messages[1]["content"]) in _printable(output.getvalue())
        assert "/exit ends the chat" in output.getvalue()
        with pytest.raises(ServerRefused, match="nobody"):
            run_chat(Conversation(connection, "nobody"), Console(file=output), lambda: "hello")
    with Connection(running.url) as connection, pytest.raises(ServerUnreachable):
        run_chat(Conversation(connection, "tiny-llama"), Console(file=output), lambda: "hello")


def _printable(text: str) -> str:
    """Without control characters, which do not reach the terminal."""
    return "".join(character for character in text if character.isprintable())


def test_keys_are_sent(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOTPROMPT_ADMIN_KEYS", "secret")
    monkeypatch.setitem(os.environ, "HOTPROMPT_API_KEYS", "other")
    with live_server(tiny_settings(base, tmp_path)) as (running, _):
        assert "key" in _bad("adapters", "list", "--url", running.url)
        assert "no adapters" in _good("adapters", "list", "--url", running.url, "--api-key", "secret")
