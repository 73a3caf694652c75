"""KillableProcesses: programs that answer messages, and are ended when they do not. Knows no program."""

import logging
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

from adapters.framing import message, read_message

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[1]
_START_SECONDS = 30.0


class KillableProcesses:
    """Processes of one module, started when they are needed, and kept. Used by several threads at once.

    The module's first message says that it has started; then it answers each message with one.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def ask(self, text: str, seconds: float) -> str:
        """The answer of a process, which is killed when it takes longer.

        Raises TimeoutError; OSError or EOFError when the process has come to an end.
        """
        process = self._take() or _Process(self._module)
        try:
            answer = process.answer(text, seconds)
        except BaseException:
            process.end()
            raise
        self._keep(process)
        return answer

    def close(self) -> None:
        """End the processes; those in use end when they have answered."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _take(self) -> "_Process | None":
        """A process that is idle and alive, if there is one."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                process.end()
        return None

    def _keep(self, process: "_Process") -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(process)
                return
        process.end()


def _environment() -> dict[str, str]:
    """This process's own, without its keys, and with the way to these modules."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTPROMPT_")}
    path = [str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path)}


class _Process:
    """One process. Used by one thread at a time."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._is_ready = False

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def answer(self, text: str, seconds: float) -> str:
        """Raises TimeoutError, EOFError or OSError. The time to start is not counted."""
        if not self._is_ready:
            self._read(_START_SECONDS)
            self._is_ready = True
        assert self._process.stdin is not None
        self._process.stdin.write(message(text))
        self._process.stdin.flush()
        return self._read(seconds)

    def end(self) -> None:
        """Kill the process and take note of its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:  # what was still to be written finds nobody
                logger.debug("a process ended before it had read its message")

    def _read(self, seconds: float) -> str:
        """The next message. Once it begins it is all there, or on its way."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise TimeoutError
        answer = read_message(self._process.stdout)
        if answer is None:
            raise EOFError
        return answer
