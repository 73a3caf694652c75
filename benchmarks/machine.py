"""Facts of the machine and of the versions that a measurement was made with. Measures nothing."""

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("hotprompt", "torch", "transformers", "peft")
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_PEER_PACKAGES = {"vllm": "vllm", "transformers": "transformers"}
_PROGRAM = "import sys; from importlib.metadata import version; sys.stdout.write(version(sys.argv[1]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Everything that a reader needs to judge a figure; memory in GiB, versions by package or peer."""

    date: str
    commit: str
    cpu: str
    cores: int
    memory_gib: float
    accelerator: str
    system: str
    python: str
    versions: Mapping[str, str]
    peer_versions: Mapping[str, str]
    thread_settings: Mapping[str, str]


def machine_facts(*, peers: Path | None, installed: frozenset[str]) -> Machine:
    """Read the facts of this machine, now."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={name: _version(name) for name in _PACKAGES},
        peer_versions={peer: _peer_version(peers, peer) for peer in sorted(installed) if peers is not None},
        thread_settings={name: os.environ[name] for name in _THREAD_SETTINGS if name in os.environ},
    )


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of this code, with a plus sign when files differ from it."""
    commit = _said_by("git", "rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit}+" if _said_by("git", "status", "--porcelain", "--untracked-files=no") else commit


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _peer_version(peers: Path, peer: str) -> str:
    return _said_by(str(peers / peer / "bin" / "python"), "-c", _PROGRAM, _PEER_PACKAGES[peer]) or "unknown"


def _said_by(*command: str) -> str:
    """What a command writes, run where this code lies; empty when it fails."""
    try:
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()
