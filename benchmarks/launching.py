"""How each kind of server is started: command, environment, where it tells that it is ready. Starts none."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch

from benchmarks.errors import WrongUsage
from benchmarks.kv_size import block_tokens, bytes_per_token
from benchmarks.load import Target
from benchmarks.servers import LORA_RANK, Server, ServerKind
from benchmarks.workplace import Workplace

PROMPT_TOKENS = 98

_REQUESTS_BESIDE = 16
_LEAST_CACHE_BYTES = 1 << 20
_PEER_MODEL_LEN = 2048
_KEPT_SETTING = "HOTPROMPT_HOME"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A command and its environment, the path that answers 200 once it is ready, and how requests name its models."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_path: str
    base_model: str
    target: Target


def launch_of(server: Server, workplace: Workplace, port: int, *, tokens: int) -> Launch:
    """How to start a server on a port of this machine, for requests of up to `tokens` output tokens."""
    return _LAUNCHES[server.kind](server, workplace, port, tokens)


def _hotprompt(server: Server, workplace: Workplace, port: int, tokens: int) -> Launch:
    flags = ["--base", str(workplace.base.path), "--store", str(workplace.store(server)), "--dtype", workplace.dtype]
    if server.cache_room is not None:
        flags += ["--kv-cache-memory", str(_cache_bytes(server, workplace, server.cache_room, tokens))]
    return Launch(
        command=(sys.executable, "-m", "hotprompt", "serve", "--port", str(port), *flags, *server.flags),
        environment=_environment(),
        ready_path="/ready",
        base_model=workplace.base.path.resolve().name,
        target=Target(_url(port), _ignore_eos),
    )


def _vllm(server: Server, workplace: Workplace, port: int, tokens: int) -> Launch:  # noqa: ARG001
    flags = ["--served-model-name", "base", "--dtype", workplace.dtype, "--max-model-len", str(_PEER_MODEL_LEN)]
    if server.adapters:
        loras = [f"{name}={path}" for name, path in workplace.loras(server).items()]
        most = ["--max-loras", str(server.adapters), "--max-lora-rank", str(LORA_RANK)]
        flags += ["--enable-lora", *most, "--lora-modules", *loras]
    program = _program(workplace.peers, server)
    return Launch(
        command=(str(program), "serve", str(workplace.base.path), "--port", str(port), "--host", "127.0.0.1", *flags),
        environment=_environment(
            program, VLLM_CPU_KVCACHE_SPACE="2", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", HF_HUB_OFFLINE="1"
        ),
        ready_path="/health",
        base_model="base",
        target=Target(_url(port), _ignore_eos),
    )


def _transformers(server: Server, workplace: Workplace, port: int, tokens: int) -> Launch:  # noqa: ARG001
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flags = ["--continuous-batching", "--dtype", workplace.dtype, "--device", device, "--cb-num-blocks", "64"]
    program = _program(workplace.peers, server)
    return Launch(
        command=(str(program), "serve", str(workplace.base.path), "--port", str(port), *flags),
        environment=_environment(program, HF_HUB_OFFLINE="1"),
        ready_path="/health",
        base_model=str(workplace.base.path),
        target=Target(_url(port), _no_end_token),
    )


_LAUNCHES: Mapping[ServerKind, Callable[[Server, Workplace, int, int], Launch]] = {
    "hotprompt": _hotprompt,
    "vllm": _vllm,
    "transformers": _transformers,
}


def _ignore_eos(tokens: int) -> Mapping[str, Any]:  # noqa: ARG001
    return {"ignore_eos": True}


def _no_end_token(tokens: int) -> Mapping[str, Any]:
    """transformers refuses `ignore_eos` and `stream_options`; it always sends usage."""
    config = {"eos_token_id": -1, "do_sample": False, "max_new_tokens": tokens}
    return {"generation_config": json.dumps(config)}


def _environment(program: Path | None = None, **more: str) -> dict[str, str]:
    """The caller's environment without settings of a hotprompt server, and with a peer's own programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTPROMPT_")}
    if _KEPT_SETTING in os.environ:
        kept[_KEPT_SETTING] = os.environ[_KEPT_SETTING]
    if program is not None:
        kept["PATH"] = f"{program.parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept | more


def _program(peers: Path | None, server: Server) -> Path:
    if peers is None:
        raise WrongUsage(f"--peers: needed to measure {server.label}")
    return peers / server.kind / "bin" / server.kind


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _cache_bytes(server: Server, workplace: Workplace, adapters: int, tokens: int) -> int:
    """KV of the virtual tokens of so many adapters and of 16 whole requests, in whole blocks."""
    dtype: torch.dtype = getattr(torch, workplace.dtype)
    size = block_tokens(dtype)
    adapter_blocks = ceil(server.virtual_tokens / size)
    request_blocks = ceil((server.virtual_tokens + PROMPT_TOKENS + tokens) / size)
    blocks = adapters * adapter_blocks + _REQUESTS_BESIDE * request_blocks
    return max(_LEAST_CACHE_BYTES, blocks * size * bytes_per_token(workplace.base.path, dtype))
