"""Text deltas to server-sent events in OpenAI's chunk form. Knows no engine and no request body."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio.lowlevel
import orjson
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from server.errors import error_body, log_failure
from server.protocol.chat import ChatCompletionChunk, ChunkChoice, Delta, UsageInfo
from server.text.completion import TextDelta, Usage

PING_SECONDS = 15
SEND_TIMEOUT_SECONDS = 30

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkHead:
    """What all chunks of one answer have in common."""

    id: str
    created: int
    model: str
    include_usage: bool


class DeltaStreamResponse(EventSourceResponse):
    """Streams deltas, and closes their generator however the stream ends, even if it never begins."""

    def __init__(
        self, head: ChunkHead, first: TextDelta, rest: AsyncGenerator[TextDelta], *, shutdown_grace_seconds: float
    ) -> None:
        super().__init__(
            _events(head, first, rest),
            headers={"Cache-Control": "no-cache"},
            sep="\n",
            ping=PING_SECONDS,
            send_timeout=SEND_TIMEOUT_SECONDS,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=shutdown_grace_seconds,
        )
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()


def usage_info(usage: Usage) -> UsageInfo:
    """The usage of one request on the wire."""
    return UsageInfo.model_validate(
        {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        }
    )


async def _events(head: ChunkHead, first: TextDelta, rest: AsyncGenerator[TextDelta]) -> AsyncGenerator[bytes]:
    """Role, content, finish reason, usage if it was asked for, [DONE]; after an error nothing more, not even [DONE].

    There is a checkpoint before every event: on a connection that has gone, sending never waits, and a generator with
    ready data would hold the event loop until its end.
    """
    yield _event(_chunk(head, Delta(role="assistant", content="")))
    content = _ContentEvents(head)
    delta = first
    try:
        while True:
            await anyio.lowlevel.checkpoint()
            if delta.text:
                yield content.event(delta.text)
            if delta.finish is not None:
                break
            delta = await anext(rest)
    except Exception as error:
        log_failure(error)
        yield _event(orjson.dumps(error_body(error).model_dump()))
        return
    yield _event(_chunk(head, Delta(), delta.finish.reason.value))
    if head.include_usage:
        yield _event(_chunk(head, None, usage=usage_info(delta.finish.usage)))
    await anyio.lowlevel.checkpoint()
    yield DONE


class _ContentEvents:
    """Content chunks from a prefix and a suffix that are made once: twenty times faster than a model for each."""

    _MARK = "\ue000"

    def __init__(self, head: ChunkHead) -> None:
        # The text is the only thing that differs: what stands before and after it is cut out of one chunk.
        event = _event(_chunk(head, Delta(content=self._MARK)))
        self._prefix, _, self._suffix = event.rpartition(orjson.dumps(self._MARK))

    def event(self, text: str) -> bytes:
        return self._prefix + orjson.dumps(text) + self._suffix


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _chunk(
    head: ChunkHead, delta: Delta | None, finish_reason: str | None = None, usage: UsageInfo | None = None
) -> bytes:
    """One chunk as JSON; without a delta it has no choices. If asked for, `usage` is in each, if only as null."""
    choices = [] if delta is None else [ChunkChoice.model_validate({"delta": delta, "finish_reason": finish_reason})]
    chunk = ChatCompletionChunk(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage)
    fields = chunk.model_dump(exclude=set() if head.include_usage else {"usage"})
    for choice in fields["choices"]:
        choice["delta"] = {name: value for name, value in choice["delta"].items() if value is not None}
    return orjson.dumps(fields)
