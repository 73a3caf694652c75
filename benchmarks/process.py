"""A server in a process of its own: started, waited for, weighed and ended. Knows no kind of server."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.errors import ServerFailed
from benchmarks.launching import Launch

START_SECONDS = 900
END_SECONDS = 60
_POLL_SECONDS = 0.02
_KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that runs and is ready, and the seconds from its start until it was."""

    pid: int
    launch: Launch
    ready_seconds: float

    def resident_mib(self) -> float:
        """Resident memory of the server and of every process that it started, in MiB."""
        return sum(_resident_kib(pid) for pid in _with_descendants(self.pid)) / _KIB_PER_MIB


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@asynccontextmanager
async def running(launch: Launch, log: Path) -> AsyncIterator[ServerProcess]:
    """Start a server, wait until it is ready, and end it and all that it started when the block is left.

    Raises ServerFailed when it ends before it is ready, or is not ready in 15 minutes.
    """
    with open(log, "wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            launch.command, env=dict(launch.environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        await _wait_until_ready(process, launch, log)
        yield ServerProcess(process.pid, launch, time.perf_counter() - started)
        if process.poll() is not None:
            raise ServerFailed(f"ended while it was measured: {_last_line(log)}")
    finally:
        _end(process)


async def _wait_until_ready(process: subprocess.Popen[bytes], launch: Launch, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerFailed(f"ended with exit code {process.returncode}: {_last_line(log)}")
            with suppress(httpx.TransportError):
                if (await client.get(launch.target.url + launch.ready_path)).status_code == 200:
                    return
            await asyncio.sleep(_POLL_SECONDS)
    raise ServerFailed(f"is not ready after {START_SECONDS} s: {_last_line(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for what is left of the group; returns when the next server has the machine to itself."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + END_SECONDS
    while any(map(_resident_kib, _with_descendants(process.pid))) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1][:300]} ({log.name})" if lines else f"it wrote nothing ({log.name})"


def _with_descendants(pid: int) -> list[int]:
    """A process, and those of the session that it leads: all that it started."""
    members = [pid]
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int(entry.name) != pid and os.getsid(int(entry.name)) == pid:
                members.append(int(entry.name))
    return members


def _resident_kib(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
