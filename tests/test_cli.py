"""The command line: what it says, where it says it, and its exit codes, over a store and over a running server."""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adapters.files import AdapterFiles
from adapters.store import AdapterStore
from hotprompt import app
from server.config import Settings
from tests.adapters.making import large_lora_files
from tests.adapters.probed import probed_files
from tests.client.answering import answering
from tests.server.building import live_server, soft_prompt_files, tiny_settings
from tests.server.sources.hub_server import small_hub
from tests.tiny import CHAT_TEMPLATE, save_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base("llama", tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture(params=["store", "server"])
def place(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The flags of a place with adapters: a store, and a server that runs."""
    store = tmp_path / "store"
    if request.param == "store":
        AdapterStore(store)
        yield ["--store", str(store)]
        return
    with live_server(tiny_settings(base, store)) as (running, _):
        yield ["--url", running.url]


def _run(*arguments: object, typed: str = "") -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)


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
    _good("adapters", "canary", "team", digests[0], 5, *place)
    assert f"{digests[0]} (canary for 5 %), {digests[1]} (current)" in _good("adapters", "show", "team", *place)
    assert "DIGEST" in _bad("adapters", "canary", "team", digests[0], *place, code=2)
    assert "already" in _bad("adapters", "canary", "team", digests[1], 5, *place)
    assert digests[1] in _good("adapters", "canary", "team", "--off", *place)
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


def test_a_server_fetches_what_it_may(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(base, tmp_path / "store", adapter_sources=("hf://org",))
    with small_hub(monkeypatch) as hub, live_server(settings) as (running, _):
        hub.put_adapter("org/support", soft_prompt_files(1))
        place = ["--url", running.url]
        assert _good("adapters", "add", "support", "hf://org/support@v2", *place).startswith("support is ")
        assert "no such revision" in _bad("adapters", "add", "support", "hf://org/support@v9", *place)
        assert "--adapter-sources" in _bad("adapters", "add", "support", "s3://team/support", *place)
        assert "a source is" in _bad("adapters", "add", "support", "https://x/support", *place)
    assert "--url" in _bad("adapters", "add", "support", "hf://org/support", "--store", tmp_path / "store", code=2)


def test_mistakes_are_one_line_each(place: list[str], tmp_path: Path) -> None:
    good = _write(soft_prompt_files(1), tmp_path / "good")
    assert "'../evil'" in _bad("adapters", "add", "../evil", good, *place, code=2)
    assert "nowhere: not a directory" in _bad("adapters", "add", "team", tmp_path / "nowhere", *place, code=2)
    (good / "adapter_model.safetensors").write_bytes(b"\x80\x02 a pickle")
    assert "adapter_model.safetensors" in _bad("adapters", "add", "team", good, *place)
    assert "no adapter is named" in _bad("adapters", "remove", "nobody", *place)


def test_an_adapter_moves_to_another_place_in_a_tar(place: list[str], tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    for seed in (1, 2):
        _good("adapters", "add", "team", _write(soft_prompt_files(seed), tmp_path / str(seed)), "--store", origin)
    first, second = (version.digest for version in AdapterStore(origin).record("team").versions)
    tar = tmp_path / "team.tar"
    _good("adapters", "export", "team", tar, "--store", origin)
    assert f"team is {second[:12]}" in _good("adapters", "import", tar, *place)
    _good("adapters", "export", f"team@{first[:8]}", tar, "--store", origin)
    assert f"other is {first[:12]}" in _good("adapters", "import", tar, "--name", "other", *place)
    assert second[:12] in _good("adapters", "show", "team", *place)
    assert "'../x'" in _bad("adapters", "import", tar, "--name", "../x", *place, code=2)
    assert "no adapter is named" in _bad("adapters", "export", "nobody", tar, "--store", origin)
    assert "cannot be written" in _bad("adapters", "export", "team", tmp_path / "no" / "x.tar", "--store", origin)
    back = tmp_path / "back.tar"
    _good("adapters", "export", f"other@{first[:12]}", back, *place)
    assert f"again is {first[:12]}" in _good("adapters", "import", back, "--name", "again", "--store", origin)
    assert "no adapter is named" in _bad("adapters", "export", "nobody", back, *place)
    assert "hex digits" in _bad("adapters", "export", "other@x", back, *place, code=2)
    tar.write_bytes(tar.read_bytes()[:-700])
    assert "tar: ends too early" in _bad("adapters", "import", tar, *place)
    assert "tar: cannot be read" in _bad("adapters", "import", tmp_path / "nowhere.tar", *place)


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


def test_verify_replays_probes_of_a_store_and_of_a_directory(base: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    good = _write(probed_files(seed=1), tmp_path / "good")
    bad = _write(replace(probed_files(seed=1), weights=soft_prompt_files(9).weights), tmp_path / "bad")
    _good("adapters", "add", "team", good, "--store", store)
    for what in (["team", "--store", store], [good]):
        said = _good("adapters", "verify", *what, "--base", base).splitlines()
        assert "whole, belongs to tiny-llama" in said[0]
        assert said[-1].split()[1:] == ["verified", "float32", "8", "of", "8", "8", "0.0000"]
    result = _run("adapters", "verify", bad, "--base", base)
    assert result.exit_code == 1
    assert "mismatch" in result.stdout
    assert "probe 0: " in result.stdout
    assert "unverified" not in _good("adapters", "verify", bad)  # without a base model only the files are read


def test_verify_says_wrong_of_an_adapter_that_no_server_of_the_base_can_apply(base: Path, tmp_path: Path) -> None:
    directory = _write(large_lora_files(rank=2, num_bytes=4096), tmp_path / "lora")
    _good("adapters", "verify", directory)
    result = _run("adapters", "verify", directory, "--base", base)
    assert result.exit_code == 1
    assert "WRONG" in result.stdout
    assert "the adapter's change of model.layers.0.mlp.up_proj has shape" in result.stdout
    _good("adapters", "add", "team", directory, "--store", tmp_path / "store")
    assert _run("adapters", "verify", "team", "--store", tmp_path / "store", "--base", base).exit_code == 1


def test_verify_asks_a_running_server(base: Path, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    store.publish("good", probed_files(seed=1))
    store.publish("bad", replace(probed_files(seed=1), weights=soft_prompt_files(9).weights))
    with live_server(tiny_settings(base, tmp_path / "store")) as (running, _):
        assert " verified " in _good("adapters", "verify", "good", "--url", running.url)
        result = _run("adapters", "verify", "--url", running.url)
        assert result.exit_code == 1
        assert [line.split()[1] for line in result.stdout.splitlines()[1:]] == ["mismatch", "verified"]
        assert "exclude" in _bad("adapters", "verify", "--url", running.url, "--base", base, code=2)


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert "exclude" in _bad("adapters", "list", "--store", tmp_path, "--url", "http://x", code=2)
    assert "learning_rat" in _bad("train", "--name", "x", "--data", "y", "--set", "learning_rat=1", code=2)
    assert _run("serve", "--no-such-flag").exit_code == 2
    result = _run("serve", "--port", "notaport", "--device", "tpu")
    assert result.exit_code == 2
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["--port", "--device"]


def test_serve_tells_a_port_in_use_and_an_unknown_base(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} (--host 127.0.0.1): Address already in use" in _bad("serve", "--port", port)
    flags = ["--store", tmp_path / "store", "--port", 0]
    assert f"--base {tmp_path}/none: no such directory" in _bad("serve", "--base", tmp_path / "none", *flags)


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


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
TALKS = [
    {
        "messages": [
            {"role": "user", "content": f"Add {n} and 2."},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": str(n + 2)},
            {"role": "assistant", "content": f"It is {n + 2}."},
            {"role": "user", "content": "Once more."},
            {"role": "assistant", "content": "Good.", "tool_calls": [CALL]},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "strict": True}}],
    }
    for n in range(2)
]
"""Several answers, calls among them; the template of the tiny base ends earlier ones without an EOS."""


def _written(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _same_figures(here: Path, there: Path) -> None:
    """Every figure of two reports to rounding, and every answer to the letter."""
    ours, theirs = (json.loads(file.read_text()) for file in (here, there))
    assert ours["rows"] == theirs["rows"]
    assert ours["metrics"].keys() == theirs["metrics"].keys() >= {"loss", "perplexity", "exact_match"}
    for name, pair in ours["metrics"].items():
        for side in ("base", "adapter", "difference"):
            assert theirs["metrics"][name][side] == pytest.approx(pair[side], rel=1e-4, abs=1e-6), (name, side)


def test_evaluating_here_and_through_a_server_gives_the_same_answers(base: Path, tmp_path: Path) -> None:
    labelled = [{"instruction": f"colour {n}", "output": "red" if n % 2 else "green"} for n in range(6)]
    data = _written(tmp_path / "rows.jsonl", labelled)
    store = tmp_path / "store"
    AdapterStore(store).publish("mine", soft_prompt_files(3))
    flags = ["--data", data, "--max-new-tokens", 6]
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    picture = tmp_path / "confusion.svg"
    with live_server(tiny_settings(base, store)) as (running, _):
        url = ["--url", running.url]
        printed = _good("evaluate", "mine", *url, *flags, "--report", there, "--confusion", picture)
        assert "nobody" in _bad("evaluate", "nobody", *url, *flags)
        badly = [TALKS[0] | {"tools": [{"type": "function", "function": {"name": "not a name"}}]}, *TALKS]
        refused = _bad("evaluate", "mine", *url, "--data", _written(tmp_path / "badly.jsonl", badly))
        assert "badly.jsonl, line 1" in refused
        assert "name" in refused
        talks = ["--data", _written(tmp_path / "talks.jsonl", TALKS), "--max-new-tokens", 6]
        talked = _good("evaluate", "mine", *url, *talks, "--report", tmp_path / "talked_there.json")
    assert "label accuracy" in printed
    assert "<svg" in picture.read_text()
    assert "ROUGE-L" in talked
    local = ["--store", store, "--base", base, "--dtype", "float32"]
    _good("evaluate", "mine", *local, *flags, "--report", here)
    _good("evaluate", "mine", *local, *talks, "--report", tmp_path / "talked_here.json")
    _same_figures(here, there)
    _same_figures(tmp_path / "talked_here.json", tmp_path / "talked_there.json")
    assert len({row["adapter"] for row in json.loads(here.read_text())["rows"]}) > 1
    assert "limit: " in _bad("evaluate", "mine", *flags, "--limit", 0, code=2)


def test_every_setting_of_serve_has_its_flag() -> None:
    help_text = _good("serve", "--help")
    for field in Settings.model_fields:
        if not field.endswith("_keys"):
            assert f"--{field.replace('_', '-')[:20]}" in help_text, field


@pytest.mark.parametrize("body", ["<html>", "", "[]", "{}", '{"data": [{}]}', '{"data": 1}', "null"])
def test_a_server_that_is_something_else_is_one_line(body: str) -> None:
    with answering(body) as url:
        assert "no hotprompt server" in _bad("adapters", "list", "--url", url)
        assert "no hotprompt server" in _bad("adapters", "show", "team", "--url", url)


@pytest.mark.parametrize("url", ["http://[::", "localhost:1", "ftp://x", "http://nowhere.invalid"])
def test_a_url_that_leads_nowhere_is_one_line(url: str) -> None:
    assert f"--url {url}: no answer" in _bad("adapters", "list", "--url", url)


def test_a_directory_named_by_mistake_is_not_made_into_a_store(tmp_path: Path) -> None:
    for command in (["list"], ["show", "a"], ["remove", "a"], ["verify"]):
        assert "there is no store" in _bad("adapters", *command, "--store", tmp_path / "typo", code=2)
    assert list(tmp_path.iterdir()) == []


def test_the_default_store_is_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = _write(soft_prompt_files(1), tmp_path / "first")
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path / "home"))
    assert _good("adapters", "list") == "no adapters\n"
    _good("adapters", "add", "team", adapter)
    assert (tmp_path / "home" / "store" / "names" / "team.json").exists()
    monkeypatch.setenv("HOTPROMPT_STORE", str(tmp_path / "elsewhere"))
    assert _good("adapters", "list") == "no adapters\n"


def test_one_damaged_adapter_does_not_hide_the_others(tmp_path: Path) -> None:
    place = ["--store", tmp_path / "store"]
    for number, name in enumerate(("good", "bad", "worse")):
        _good("adapters", "add", name, _write(soft_prompt_files(number), tmp_path / name), *place)
    store = AdapterStore(tmp_path / "store")
    (store.path_of(store.resolve("bad")[1]) / "adapter_config.json").unlink()
    (tmp_path / "store" / "names" / "worse.json").write_text("{")
    heading, good, worse, bad = _good("adapters", "list", *place).splitlines()
    assert [line.split()[0] for line in (heading, good, worse, bad)] == ["name", "good", "worse", "bad"]
    assert worse == "worse is DAMAGED: its record is damaged: remove the name, then publish the adapter again"
    assert bad.startswith("bad is DAMAGED: 'bad' version ")
    assert bad.endswith("; publish it again, roll back to another version, or remove the name")
    result = _run("adapters", "verify", *place)
    assert result.exit_code == 1
    assert [line.split(": ")[1] for line in sorted(result.stdout.splitlines())] == ["WRONG", "whole", "WRONG"]


def test_a_long_name_stays_on_its_line(tmp_path: Path) -> None:
    place = ["--store", tmp_path / "store"]
    _good("adapters", "add", "n" * 63, _write(soft_prompt_files(1), tmp_path / "first"), *place)
    assert f"{'n' * 63} " in _good("adapters", "list", *place)


def test_keys_are_sent(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOTPROMPT_ADMIN_KEYS", "secret")
    monkeypatch.setitem(os.environ, "HOTPROMPT_API_KEYS", "other")
    with live_server(tiny_settings(base, tmp_path)) as (running, _):
        assert "key" in _bad("adapters", "list", "--url", running.url)
        assert "no adapters" in _good("adapters", "list", "--url", running.url, "--api-key", "secret")
