"""How servers are started, told that they are ready, weighed and ended."""

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from adapters.base_model import open_base_model
from adapters.store import AdapterStore
from benchmarks.errors import ServerFailed
from benchmarks.launching import Launch, launch_of
from benchmarks.load import Target
from benchmarks.process import free_port, running
from benchmarks.servers import (
    HOTPROMPT,
    HOTPROMPT_INT8,
    HOTPROMPT_LONG,
    HOTPROMPT_LORA,
    TRANSFORMERS,
    VLLM,
    VLLM_LORA,
    VLLM_LORA_ALL,
    Server,
)
from benchmarks.workplace import Workplace
from tests.tiny import HIDDEN_SIZE, rows_of

_READY = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
sys.stdout.write(f"{child.pid}\\n")
sys.stdout.flush()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def workplace(tiny_base: Path, tmp_path: Path) -> Workplace:
    base = open_base_model(str(tiny_base), home=tmp_path)
    (tmp_path / "work").mkdir()
    return Workplace(base=base, dtype="float32", peers=tmp_path / "peers", directory=tmp_path / "work")


def _small(program: str) -> tuple[Launch, int]:
    port = free_port()
    target = Target(f"http://127.0.0.1:{port}", lambda _: {})
    command = (sys.executable, "-c", program, str(port))
    return Launch(command=command, environment=os.environ, ready_path="/ready", base_model="m", target=target), port


async def test_a_server_is_awaited_weighed_and_ended_with_all_that_it_started(tmp_path: Path) -> None:
    launch, _ = _small(_READY)
    async with running(launch, tmp_path / "log") as server:
        child = int((tmp_path / "log").read_text().splitlines()[0])
        assert server.ready_seconds > 0
        with_child = server.resident_mib()
        assert with_child > 10
    assert not Path(f"/proc/{server.pid}").exists()
    assert not _is_alive(child)
    assert server.resident_mib() == 0


def _is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


async def test_a_server_that_ends_says_why_in_one_line(tmp_path: Path) -> None:
    launch, _ = _small("import sys; sys.exit('no such model')")
    with pytest.raises(ServerFailed, match="exit code 1: no such model"):
        async with running(launch, tmp_path / "log"):
            pass


async def test_a_server_that_ends_while_it_is_measured_is_told(tmp_path: Path) -> None:
    launch, _ = _small(_READY)
    with pytest.raises(ServerFailed, match="while it was measured"):
        await _kill_it_while_it_runs(launch, tmp_path / "log")


async def _kill_it_while_it_runs(launch: Launch, log: Path) -> None:
    async with running(launch, log) as server:
        os.kill(server.pid, 9)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)


def test_hotprompt_is_this_interpreters_and_no_setting_leaks_in(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPROMPT_API_KEYS", "secret")
    monkeypatch.setenv("HOTPROMPT_HOME", "home")
    launch = launch_of(HOTPROMPT_INT8, workplace, 1234, tokens=64)
    assert launch.command[:4] == (sys.executable, "-m", "hotprompt", "serve")
    assert _flag(launch, "--port") == "1234"
    assert _flag(launch, "--dtype") == "float32"
    assert _flag(launch, "--quantization") == "int8"
    assert "HOTPROMPT_API_KEYS" not in launch.environment
    assert launch.environment["HOTPROMPT_HOME"] == "home"
    assert launch.base_model == "tiny-llama"


def test_a_server_without_adapters_has_a_fresh_store_each_time(workplace: Workplace) -> None:
    stores = {_flag(launch_of(HOTPROMPT, workplace, 1, tokens=64), "--store") for _ in range(2)}
    assert len(stores) == 2
    assert not any(Path(store).exists() for store in stores)


def test_adapters_are_in_the_store_before_the_start_and_are_made_once(workplace: Workplace) -> None:
    store = Path(_flag(launch_of(HOTPROMPT_LONG, workplace, 1, tokens=64), "--store"))
    [record] = AdapterStore(store).names()
    assert (record.name,) == workplace.adapter_names(HOTPROMPT_LONG)
    adapter = AdapterStore(store).read(record.name, record.current)
    assert rows_of(adapter).shape == (100, HIDDEN_SIZE)
    assert _flag(launch_of(HOTPROMPT_LONG, workplace, 1, tokens=64), "--store") == str(store)


def test_the_cache_has_room_for_so_many_adapters_beside_16_requests(workplace: Workplace) -> None:
    server = Server(label="small", kind="hotprompt", adapters=1, cache_room=1_000)
    token_bytes = 2 * 3 * 2 * 16 * torch.float32.itemsize  # keys and values, 3 layers, 2 heads of width 16
    blocks = 1_000 * 2 + 16 * 12  # 20 virtual tokens take 2 blocks, 20 + 98 + 64 tokens take 12
    assert int(_flag(launch_of(server, workplace, 1, tokens=64), "--kv-cache-memory")) == blocks * 16 * token_bytes


def test_peers_are_started_from_their_own_directories(workplace: Workplace, tmp_path: Path) -> None:
    vllm = launch_of(VLLM, workplace, 5, tokens=64)
    assert vllm.command[:2] == (str(tmp_path / "peers" / "vllm" / "bin" / "vllm"), "serve")
    assert vllm.environment["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert vllm.environment["PATH"].startswith(str(tmp_path / "peers" / "vllm" / "bin"))
    assert "--enable-lora" not in vllm.command
    transformers = launch_of(TRANSFORMERS, workplace, 5, tokens=64)
    assert "--continuous-batching" in transformers.command
    assert "ignore_eos" not in transformers.target.exact_fields(64)


def test_vllm_gets_eight_lora_adapters_of_rank_eight(workplace: Workplace) -> None:
    launch = launch_of(VLLM_LORA, workplace, 5, tokens=64)
    start = launch.command.index("--lora-modules") + 1
    modules = dict(part.split("=") for part in launch.command[start:])
    assert tuple(modules) == workplace.adapter_names(VLLM_LORA)
    assert len(modules) == 8
    weights = {(Path(path) / "adapter_model.safetensors").read_bytes() for path in modules.values()}
    assert len(weights) == 8
    assert _flag(launch, "--max-lora-rank") == "8"
    assert '"r": 8' in (Path(modules["adapter-00000"]) / "adapter_config.json").read_text()


def test_lora_adapters_on_every_linear_module_are_files_of_their_own(workplace: Workplace) -> None:
    default, every = workplace.loras(VLLM_LORA), workplace.loras(VLLM_LORA_ALL)
    assert every == workplace.loras(HOTPROMPT_LORA)  # the same for both servers
    assert set(default.values()).isdisjoint(every.values())
    with safe_open(str(every["adapter-00000"] / "adapter_model.safetensors"), "pt") as tensors:
        changed = {name.split(".")[-3] for name in tensors.keys()}  # noqa: SIM118
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def _flag(launch: Launch, name: str) -> str:
    return launch.command[launch.command.index(name) + 1]
