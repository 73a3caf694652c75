"""What is told of settings at the start: each with where it came from, no secret, and a warning for what is unsafe."""

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from server.config import Settings, load_settings
from server.start_print import print_start
from server.told_settings import is_loopback, told_settings, unsafe_settings

SECRET = "sk-a-secret-that-nobody-may-see"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HOTPROMPT_PORT", "1")
    monkeypatch.setenv("HOTPROMPT_MAX_NUM_SEQS", "8")
    monkeypatch.setenv("HOTPROMPT_API_KEYS", f"{SECRET}-1,{SECRET}-2")
    return load_settings(port="9000", kv_cache_memory="512MiB")


def test_each_setting_is_told_with_where_it_came_from(given: Settings) -> None:
    told = {setting.name: (setting.value, setting.source) for setting in told_settings(given, {"port"})}
    assert told.keys() == Settings.model_fields.keys()
    assert told["port"] == ("9000", "--port")
    assert told["max_num_seqs"] == ("8", "HOTPROMPT_MAX_NUM_SEQS")
    assert told["api_keys"] == ("2 set", "HOTPROMPT_API_KEYS")
    assert told["admin_keys"] == ("none", "default")
    assert told["kv_cache_memory"][0] == "512 MiB"
    assert told["shutdown_grace_seconds"] == ("30", "default")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_a_table_and_the_log_gets_lines_and_neither_a_secret(
    given: Settings, caplog: pytest.LogCaptureFixture, *, is_terminal: bool
) -> None:
    output = io.StringIO()
    with caplog.at_level(logging.INFO):
        print_start(given, {"port"}, Console(file=output, width=200, force_terminal=is_terminal))
    shown = output.getvalue() if is_terminal else caplog.text
    other = caplog.text if is_terminal else output.getvalue()
    assert "max_num_seqs" in shown
    assert "HOTPROMPT_MAX_NUM_SEQS" in shown
    assert "max_num_seqs" not in other
    assert SECRET not in output.getvalue() + caplog.text


def test_a_server_for_this_machine_alone_needs_no_warning() -> None:
    assert unsafe_settings(Settings()) == []


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"host": "0.0.0.0"}, "may chat and change adapters"),
        ({"host": "::", "admin_keys": SECRET}, "whoever reaches this address may chat;"),
        ({"cors_origins": "https://chat.example"}, "pages of these origins may change adapters"),
        ({"cors_origins": "http://chat.example:80", "admin_keys": SECRET}, "come unencrypted"),
        ({"api_keys": f"{SECRET},short"}, "HOTPROMPT_API_KEYS: key 2 is shorter than 16"),
        ({"adapter_roots": "/"}, "--adapter-roots /: "),
        ({"adapter_roots": str(Path.home())}, "whatever lies there"),
        ({"adapter_sources": "hf://"}, "any repository of the hub"),
        ({"on_probe_mismatch": "keep"}, "--on-probe-mismatch keep"),
    ],
)
def test_each_unsafe_setting_is_warned_of(settings: dict[str, str], warned: str) -> None:
    [problem] = unsafe_settings(load_settings(**settings))
    assert warned in problem


def test_a_public_address_with_both_kinds_of_keys_needs_no_warning(tmp_path: Path) -> None:
    settings = {"host": "0.0.0.0", "api_keys": SECRET, "admin_keys": f"{SECRET}-2", "adapter_roots": str(tmp_path)}
    origins = "http://localhost:3000,http://[::1]:3000,https://chat.example"
    assert unsafe_settings(load_settings(**settings, cors_origins=origins)) == []


def test_a_key_file_that_everybody_may_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys: [{{name: one, key: {SECRET}}}]")
    path.chmod(0o644)
    assert any("chmod 600" in problem for problem in unsafe_settings(load_settings(key_file=str(path))))
    path.chmod(0o600)
    assert unsafe_settings(load_settings(key_file=str(path))) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_addresses_are_known(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected
