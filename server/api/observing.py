"""Middleware that notes when a request came and how it was answered, and tells who wants to know. Knows no route."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.answered_by import NOTES_STATE
from server.telemetry.observed import Observed
from server.text.request_notes import RequestNotes

Observer = Callable[[Observed], None]
CLIENT_GONE = 499
"""What proxies log for a client that hung up before it was answered."""


class ObservingMiddleware:
    """The outermost one: what the others take is in its times."""

    def __init__(self, app: ASGIApp, observers: Sequence[Observer], *, keeps_prompts: bool = False) -> None:
        self._app = app
        self._observers = observers
        self._keeps_prompts = keeps_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        notes = RequestNotes(keeps_prompts=self._keeps_prompts)
        scope.setdefault("state", {})[NOTES_STATE] = notes
        answer = _Answer()

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            answer.status = answer.status or 500  # the server's last resort answers outside of this
            raise
        finally:
            observed = Observed.of(scope, notes, status=answer.status or CLIENT_GONE)
            for observer in self._observers:
                observer(observed)


@dataclass(slots=True)
class _Answer:
    status: int | None = None
