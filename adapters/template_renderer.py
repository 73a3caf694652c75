"""TemplateRenderer: known templates are rendered here, all others where they can be stopped. Knows no adapter."""

import dataclasses
import hashlib
import json
import logging
import threading
import time
from collections.abc import Set

from adapters.errors import ChatFormatError, ChatTemplateBusy, ChatTemplateOverrun
from adapters.killable import KillableProcesses
from adapters.rendering import Rendering, render_here

logger = logging.getLogger(__name__)

MAX_PROCESSES = 2
RENDER_SECONDS = 1.0
"""Of wall time; half of it may be computing (`template_program`), the rest is for a busy machine."""
WAIT_SECONDS = 1.0
"""For a process, while others render."""
REST_SECONDS = 10.0
"""How long a template that was stopped is not tried again: it must not hold the processes from others."""
_MAX_STOPPED = 256


class TemplateRenderer:
    """Renders the templates of `trusted` in the calling thread, and others in a process with limits of time and memory.

    Used by several threads at once.
    """

    def __init__(self, trusted: Set[str]) -> None:
        self._trusted = trusted
        self._processes = KillableProcesses("adapters.template_program")
        self._places = threading.BoundedSemaphore(MAX_PROCESSES)
        self._stopped: dict[bytes, float] = {}  # digests of templates, and when they may be tried again
        self._lock = threading.Lock()

    def __call__(self, rendering: Rendering) -> str:
        """The text. Raises ChatFormatError, ChatTemplateOverrun, ChatTemplateBusy."""
        if rendering.template in self._trusted:
            return render_here(rendering)
        self._refuse_stopped(rendering.template)
        if not self._places.acquire(timeout=WAIT_SECONDS):
            raise ChatTemplateBusy("other chat templates are being rendered")
        try:
            return self._render_apart(rendering)
        finally:
            self._places.release()

    def close(self) -> None:
        """End the processes."""
        self._processes.close()

    def _render_apart(self, rendering: Rendering) -> str:
        fields = {field.name: getattr(rendering, field.name) for field in dataclasses.fields(rendering)}
        try:
            answer = json.loads(self._processes.ask(json.dumps(fields), RENDER_SECONDS))
        except (TimeoutError, OSError, EOFError):  # it was killed, by us or by its own limits
            answer = {"overrun": True}
        if "text" in answer:
            return str(answer["text"])
        if "problem" in answer:
            raise ChatFormatError(answer["problem"])
        self._stop(rendering.template)
        raise ChatTemplateOverrun("messages: the chat template takes too long, or too much memory")

    def _refuse_stopped(self, template: str) -> None:
        with self._lock:
            until = self._stopped.get(_digest(template), 0.0)
        if time.monotonic() < until:
            raise ChatTemplateOverrun("messages: the chat template took too long, or too much memory, a moment ago")

    def _stop(self, template: str) -> None:
        logger.warning("a chat template was stopped: it took too long, or too much memory")
        now = time.monotonic()
        with self._lock:
            self._stopped = {known: until for known, until in self._stopped.items() if until > now}
            if len(self._stopped) < _MAX_STOPPED:
                self._stopped[_digest(template)] = now + REST_SECONDS


def _digest(template: str) -> bytes:
    return hashlib.sha256(template.encode()).digest()
