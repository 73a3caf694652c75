"""POST /tokenize, /detokenize and /v1/chat/completions/render: what the model sees. Knows no tokenizer."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from server.api.asker import asker_of
from server.api.conversation import to_chat_prompt
from server.api.deps import NEW_CHAT, Parts, PartsDep
from server.api.guarded_route import GuardedRoute
from server.api.prompt_field import name_prompt
from server.protocol.chat import ChatCompletionRequest
from server.protocol.tokens import (
    DetokenizeRequest,
    DetokenizeResponse,
    RenderedChat,
    TokenizeChat,
    TokenizeRequest,
    TokenizeResponse,
    TokenizeText,
)

router = APIRouter(route_class=GuardedRoute)


@router.post("/tokenize", dependencies=NEW_CHAT, response_model=TokenizeResponse)
async def tokenize(body: TokenizeRequest, request: Request, parts: PartsDep) -> Response:
    """The token ids of a text, or of a conversation in the model's chat format."""
    if isinstance(body, TokenizeText):
        name_prompt(request, "prompt")
    return await _answered(parts, lambda: _tokenized(body, parts))


@router.post("/detokenize", dependencies=NEW_CHAT, response_model=DetokenizeResponse)
async def detokenize(body: DetokenizeRequest, parts: PartsDep) -> Response:
    """The text of token ids, special tokens written out."""
    return await _answered(
        parts, lambda: DetokenizeResponse(prompt=parts.token_view.detokenize(body.model, body.tokens))
    )


@router.post("/v1/chat/completions/render", dependencies=NEW_CHAT, response_model=RenderedChat)
async def render(body: ChatCompletionRequest, request: Request, parts: PartsDep) -> Response:
    """What the model would see of a chat request; nothing is generated."""
    asker = asker_of(request, body.user)
    return await _answered(parts, lambda: _rendered(body, parts, asker))


def _tokenized(body: TokenizeRequest, parts: Parts) -> TokenizeResponse:
    view = parts.token_view
    if isinstance(body, TokenizeChat):
        token_ids = view.render(body.model, to_chat_prompt(body), add_special_tokens=body.add_special_tokens).token_ids
    else:
        token_ids = view.tokenize(body.model, body.prompt, add_special_tokens=body.add_special_tokens is not False)
    return TokenizeResponse(
        count=len(token_ids),
        max_model_len=parts.engine.max_model_len,
        tokens=token_ids,
        token_strs=view.names(token_ids) if body.return_token_strs else None,
    )


def _rendered(body: ChatCompletionRequest, parts: Parts, asker: str) -> RenderedChat:
    seen = parts.token_view.render(body.model, to_chat_prompt(body), asker=asker)
    return RenderedChat(
        model=body.model,
        prompt=seen.text,
        token_ids=seen.token_ids,
        num_virtual_tokens=seen.num_virtual_tokens,
        max_model_len=parts.engine.max_model_len,
        eos_token=parts.token_view.eos_token,
    )


async def _answered(parts: Parts, work: Callable[[], BaseModel]) -> Response:
    """The answer, made and written in a worker thread; one of the places for requests is held meanwhile."""
    with parts.engine.place():
        content = await asyncio.to_thread(lambda: work().model_dump_json().encode())
    return Response(content, media_type="application/json")
