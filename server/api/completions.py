"""POST /v1/completions: prompts that are no conversations, answered as a stream or whole. Knows no tokens."""

import asyncio
import time
from dataclasses import replace
from functools import partial

from fastapi import APIRouter, Request, Response

from server.api.answered_by import notes_of
from server.api.asker import asker_of
from server.api.completion_writing import CompletionChunks, CompletionHead, whole_completion
from server.api.conversation import to_sampling
from server.api.deps import NEW_CHAT, PartsDep, TenantDep
from server.api.disconnect import unless_disconnected
from server.api.guarded_route import GuardedRoute
from server.api.plain_prompts import to_plain_prompt
from server.api.prompt_field import prompt_is
from server.api.random_ids import random_id
from server.api.streaming import ChunkForm, stream_response
from server.protocol.completions import DEFAULT_MAX_TOKENS, Completion, CompletionRequest
from server.text.request import CompletionRequest as Asked
from server.text.request_notes import RequestNotes

router = APIRouter(route_class=GuardedRoute)


@router.post("/v1/completions", dependencies=[*NEW_CHAT, prompt_is("prompt")], response_model=Completion)
async def create_completion(
    body: CompletionRequest, request: Request, parts: PartsDep, tenant_salt: TenantDep
) -> Completion | Response:
    """Go on with one or several prompts; a client that hangs up ends the work within a step, streaming or not."""
    asked = to_requests(body, tenant_salt, asker_of(request, body.user), notes_of(request))
    head = CompletionHead(
        id=f"cmpl-{random_id()}",
        created=int(time.time()),
        model=body.model,
        include_usage=body.include_usage,
        include_logprobs=body.logprobs is not None,
    )
    if body.stream:
        form = ChunkForm(partial(CompletionChunks, head))
        return await stream_response(parts.completions.stream_many(asked), form, request)
    made = await unless_disconnected(request, parts.completions.complete_many(asked))
    return await asyncio.to_thread(whole_completion, head, made)  # it may have thousands of tokens


def to_requests(body: CompletionRequest, tenant_salt: bytes, asker: str, notes: RequestNotes) -> list[Asked]:
    """One request of the text floor for each prompt."""
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    sampling = replace(
        to_sampling(body, max_tokens=max_tokens, num_logprobs=body.logprobs),
        num_prompt_logprobs=body.logprobs if body.echo else None,
    )
    return [
        Asked(
            model=body.model,
            prompt=to_plain_prompt(prompt),
            sampling=sampling,
            n=body.n or 1,
            echo=bool(body.echo),
            asker=asker,
            notes=notes,
            tenant_salt=tenant_salt,
        )
        for prompt in body.prompt
    ]
