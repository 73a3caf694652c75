"""`hotprompt serve` in a process of its own, on a free port, as anyone would start it. Knows no client."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.conformance.programs import ADAPTER, ROOT

START_SECONDS = 240
END_SECONDS = 60
HOTPROMPT = (sys.executable, "-m", "hotprompt")

_ADDRESS = re.compile(r"serving on (http://\S+)")


def environment(**settings: str) -> Mapping[str, str]:
    """This process's variables without settings of hotprompt, but for its home, and of the clients."""
    own = ("HOTPROMPT_", "OPENAI_", "LANGCHAIN_", "LANGSMITH_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own) or name == "HOTPROMPT_HOME"}
    return kept | settings


def make_store(store: Path) -> None:
    """A store with the example adapter."""
    files = ROOT / "examples" / "adapters" / ADAPTER
    command = [*HOTPROMPT, "adapters", "add", ADAPTER, str(files), "--store", str(store)]
    subprocess.run(command, cwd=ROOT, env=dict(environment()), check=True, timeout=120)


@contextmanager
def serving(store: Path, log: Path, *flags: str, **settings: str) -> Iterator[str]:
    """The address of a server that is ready. It ends with the block, and must end well."""
    command = [*HOTPROMPT, "serve", "--store", str(store), "--port", "0", *flags]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=dict(environment(**settings)), stdout=output, stderr=output)
    try:
        yield _wait_until_ready(process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        address = _ADDRESS.search(log.read_text())
        if address is not None and httpx.get(f"{address[1]}/ready").status_code == 200:
            return address[1]
        time.sleep(0.1)
