"""POST /v1/chat/completions: one request, answered as a stream or whole. Knows no tokens."""

import time
from collections.abc import AsyncGenerator
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from server.api.deps import NEW_CHAT, Parts, PartsDep, TenantDep
from server.api.disconnect import unless_disconnected
from server.api.streaming import ChunkHead, DeltaStreamResponse, usage_info
from server.protocol.chat import AssistantMessage, ChatCompletion, ChatCompletionRequest, Choice
from server.text.completion import Completion, CompletionRequest, TextDelta

router = APIRouter()


@router.post("/v1/chat/completions", dependencies=NEW_CHAT, response_model=ChatCompletion)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, parts: PartsDep, tenant_salt: TenantDep
) -> ChatCompletion | Response:
    """Answer a chat; a client that hangs up ends the work within a step, streaming or not."""
    asked = to_completion_request(body, tenant_salt)
    head = ChunkHead(
        id=f"chatcmpl-{uuid4().hex}",
        created=int(time.time()),
        model=body.model,
        include_usage=body.stream_options is not None and body.stream_options.include_usage,
    )
    if body.stream:
        return await _stream(head, parts.completions.stream(asked), request, parts)
    return _whole(head, await unless_disconnected(request, parts.completions.complete(asked)))


def to_completion_request(body: ChatCompletionRequest, tenant_salt: bytes) -> CompletionRequest:
    """The wire's request in the terms of `server.text`."""
    return CompletionRequest(
        model=body.model,
        messages=tuple({"role": message.role, "content": message.text} for message in body.messages),
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        seed=None if body.seed is None else body.seed % (1 << 63),
        stop=tuple(body.stop or ()),
        ignore_eos=bool(body.ignore_eos),
        tenant_salt=tenant_salt,
    )


async def _stream(
    head: ChunkHead, deltas: AsyncGenerator[TextDelta], request: Request, parts: Parts
) -> DeltaStreamResponse:
    """The response, once the first delta is there: until then, what is refused is refused with its own status."""
    try:
        first = await unless_disconnected(request, _next(deltas))
    except BaseException:
        await deltas.aclose()
        raise
    return DeltaStreamResponse(head, first, deltas, shutdown_grace_seconds=parts.shutdown_grace_seconds)


async def _next(deltas: AsyncGenerator[TextDelta]) -> TextDelta:
    return await anext(deltas)


def _whole(head: ChunkHead, completion: Completion) -> ChatCompletion:
    choice = Choice(message=AssistantMessage(content=completion.text), finish_reason=completion.finish.reason.value)
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        choices=[choice],
        usage=usage_info(completion.finish.usage),
    )
