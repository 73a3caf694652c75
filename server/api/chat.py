"""POST /v1/chat/completions: one request, answered as a stream or whole. Knows no tokens."""

import time
from functools import partial

from fastapi import APIRouter, Request, Response

from server.api.answered_by import notes_of
from server.api.asker import asker_of
from server.api.chunks import ChunkHead, ChunkWriter
from server.api.conversation import to_completion_request
from server.api.deps import NEW_CHAT, PartsDep, TenantDep
from server.api.disconnect import unless_disconnected
from server.api.guarded_route import GuardedRoute
from server.api.random_ids import random_id
from server.api.streaming import ChunkForm, stream_response
from server.api.wire import choice_logprobs, finish_name, usage_info
from server.protocol.chat import AssistantMessage, ChatCompletion, ChatCompletionRequest, Choice
from server.protocol.tools import FunctionCall, ToolCall
from server.text.deltas import Choice as MadeChoice
from server.text.deltas import Completion

router = APIRouter(route_class=GuardedRoute)


@router.post("/v1/chat/completions", dependencies=NEW_CHAT, response_model=ChatCompletion)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, parts: PartsDep, tenant_salt: TenantDep
) -> ChatCompletion | Response:
    """Answer a chat; a client that hangs up ends the work within a step, streaming or not."""
    asked = to_completion_request(body, tenant_salt, asker_of(request, body.user), notes_of(request))
    head = ChunkHead(
        id=f"chatcmpl-{random_id()}",
        created=int(time.time()),
        model=body.model,
        include_usage=body.include_usage,
        include_logprobs=bool(body.logprobs),
    )
    if body.stream:
        form = ChunkForm(partial(ChunkWriter, head))
        return await stream_response(parts.completions.stream(asked), form, request)
    return _whole(head, await unless_disconnected(request, parts.completions.complete(asked)))


def _whole(head: ChunkHead, completion: Completion) -> ChatCompletion:
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        choices=[_choice(head, index, choice) for index, choice in enumerate(completion.choices)],
        usage=usage_info(completion.usage),
        system_fingerprint=completion.fingerprint,
    )


def _choice(head: ChunkHead, index: int, made: MadeChoice) -> Choice:
    assert made.finish_reason is not None, "a whole answer has ended"
    calls = [
        ToolCall(id=f"call_{random_id()}", function=FunctionCall(name=call.name, arguments=call.arguments))
        for call in made.calls
    ]
    message = AssistantMessage(
        content=made.text if made.text or not calls else None,
        reasoning_content=made.reasoning or None,
        tool_calls=calls or None,
    )
    return Choice(
        index=index,
        message=message,
        logprobs=choice_logprobs(made.tokens) if head.include_logprobs else None,
        finish_reason=finish_name(made.finish_reason, has_calls=bool(calls)),
    )
