"""`hotprompt chat` as a process in a terminal: prompt, Markdown, Ctrl-C, Ctrl-D, the history's file."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select

import pytest

from tests.server.building import WAIT_SECONDS, live_server, tiny_settings, wait_until
from tests.tiny import save_tiny_base


@dataclass(slots=True)
class _Terminal:
    """A process and the terminal that it runs in."""

    process: "subprocess.Popen[bytes]"
    descriptor: int
    seen: bytes = field(default=b"")

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def wait_for(self, *texts: str) -> None:
        """Until one after the other has come."""
        deadline = time.monotonic() + 60
        between = b"(?s:.*)"
        while not re.search(between.join(re.escape(text.encode()) for text in texts), self.seen):
            assert time.monotonic() < deadline, self.seen
            if select([self.descriptor], [], [], 1)[0]:
                self.seen += os.read(self.descriptor, 65536)


@contextmanager
def _terminal(home: Path, *arguments: str) -> Iterator[_Terminal]:
    ours, theirs = pty.openpty()
    environment = os.environ | {"HOTPROMPT_HOME": str(home), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    command = [sys.executable, "-m", "hotprompt", "chat", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            yield _Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_a_chat_in_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("readline")
    base = save_tiny_base("llama", tmp_path / "tiny-llama")
    home = tmp_path / "home"
    with (
        live_server(tiny_settings(base, tmp_path / "store")) as (running, _),
        _terminal(home, "--url", running.url, "--model", "tiny-llama") as terminal,
    ):
        terminal.wait_for("/help tells", "> ")
        terminal.type("hello\n")
        wait_until(lambda: running.engine.stats().num_running == 1)
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("(stopped)", "> ")
        wait_until(lambda: running.engine.stats().num_running == 0)
        terminal.type("/nonsense\n")
        terminal.wait_for("there is no /nonsense", "> ")  # typed before the prompt, Ctrl-D would be the terminal's own
        terminal.type("\x04")
        assert terminal.process.wait(WAIT_SECONDS) == 0
    history = home / "chat_history"
    assert history.read_text().splitlines()[-2:] == ["hello", "/nonsense"]
    assert history.stat().st_mode & 0o777 == 0o600
