"""Settings: flags before environment before defaults, and mistakes that name their flag and limit."""

from pathlib import Path

import pytest

from server.config import SettingsError, load_settings, parse_size


def test_flags_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().port == 8000
    monkeypatch.setenv("HOTPROMPT_PORT", "9000")
    monkeypatch.setenv("HOTPROMPT_API_KEYS", "a, b")
    settings = load_settings(host=None)
    assert (settings.port, settings.host) == (9000, "127.0.0.1")
    assert [key.get_secret_value() for key in settings.api_keys] == ["a", "b"]
    assert load_settings(port="9001").port == 9001
    assert "a" not in repr(settings.api_keys)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 512 << 20), ("2GiB", 2 << 30), ("1.5GB", 1_500_000_000), ("1048576", 1 << 20), ("3k", 3000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_each_mistake_is_a_line_with_flag_and_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPROMPT_MAX_NUM_SEQS", "0")
    with pytest.raises(SettingsError) as caught:
        load_settings(port="70000", device="tpu", kv_cache_memory="much", quantization="int4")
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for said in ("--port 70000", "65535", "--device tpu", "--kv-cache-memory much", "512MiB", "--quantization int4"):
        assert any(said in line for line in lines), said
    assert any("HOTPROMPT_MAX_NUM_SEQS" in line for line in lines)


def test_adapter_roots_are_directories_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_settings().adapter_roots == ()
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("HOTPROMPT_ADAPTER_ROOTS", f"{tmp_path}, {tmp_path / 'b'}")
    assert load_settings().adapter_roots == (tmp_path, tmp_path / "b")
    for wrong in ("adapters", f"{tmp_path},", str(tmp_path / "nowhere")):
        with pytest.raises(SettingsError, match="--adapter-roots"):
            load_settings(adapter_roots=wrong)


def test_memory_and_queue_have_defaults_and_limits() -> None:
    settings = load_settings()
    assert (settings.adapter_memory, settings.max_num_waiting) == (1 << 30, 1024)
    settings = load_settings(adapter_memory="64MiB", max_num_waiting="3")
    assert (settings.adapter_memory, settings.max_num_waiting) == (64 << 20, 3)
    assert settings.max_adapter_size == 512 << 20
    with pytest.raises(SettingsError, match=r"--max-adapter-size .*"):
        load_settings(max_adapter_size="1KiB")
    with pytest.raises(SettingsError, match=r"--adapter-memory .*\n--max-num-waiting 0: "):
        load_settings(adapter_memory="-1", max_num_waiting="0")


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="--max-num-batched-tokens"):
        load_settings(max_num_seqs="64", max_num_batched_tokens="32")
