"""GrammarTrials: tries a grammar out in a process that can be ended. Knows no structure and no tokenizer."""

import logging
import select
import subprocess
import sys
import threading

from server.text.structure import trial_program
from server.text.structure.trial_program import message, read_message

logger = logging.getLogger(__name__)

_START_SECONDS = 30.0


class GrammarTrials:
    """Processes that are started when they are needed, and kept. Used by several threads at once."""

    def __init__(self) -> None:
        self._idle: list[_Trial] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def problem_of(self, grammar: str, seconds: float) -> str:
        """Why a grammar cannot be compiled, as llguidance says it or in words of our own; empty if it can.

        `seconds` is wall time; half of it may be computing, the rest is for a busy machine.
        """
        trial = self._take() or _Trial()
        try:
            problem = trial.answer(grammar, seconds)
        except TimeoutError:
            trial.end()
            return f"takes longer to compile than {round(seconds * 1000)} ms"
        except (OSError, EOFError):
            trial.end()
            return "is too deep or too large to be compiled"
        self._keep(trial)
        return problem

    def close(self) -> None:
        """End the processes; those in use end when their grammar is done."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for trial in idle:
            trial.end()

    def _take(self) -> "_Trial | None":
        """A process that is idle and alive, if there is one."""
        with self._lock:
            while self._idle:
                trial = self._idle.pop()
                if trial.is_alive:
                    return trial
                trial.end()
        return None

    def _keep(self, trial: "_Trial") -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(trial)
                return
        trial.end()


class _Trial:
    """One process. Used by one thread at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", trial_program.__file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._is_ready = False

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def answer(self, grammar: str, seconds: float) -> str:
        """What the program says of a grammar. Raises TimeoutError, EOFError or OSError if it came to an end."""
        if not self._is_ready:
            self._read(_START_SECONDS)
            self._is_ready = True
        assert self._process.stdin is not None
        self._process.stdin.write(message(f"{seconds / 2}\n{grammar}"))
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
                logger.debug("a trial ended before it had read its grammar")

    def _read(self, seconds: float) -> str:
        """The next message. It is short, so once it begins it is all there."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise TimeoutError
        answer = read_message(self._process.stdout)
        if answer is None:
            raise EOFError
        return answer
