"""POST /v1/responses: OpenAI's newer form of a chat, answered as a stream of typed events or whole. Stores nothing."""

from contextlib import aclosing

from fastapi import APIRouter, Request, Response

from server.api.answered_by import notes_of
from server.api.asker import asker_of
from server.api.conversation import to_completion_request
from server.api.deps import NEW_CHAT, Parts, PartsDep, TenantDep
from server.api.disconnect import unless_disconnected
from server.api.guarded_route import GuardedRoute
from server.api.prompt_field import prompt_is
from server.api.response_requests import to_chat_request
from server.api.response_stream import ResponseForm
from server.api.response_writing import ResponseWriter
from server.api.streaming import stream_response
from server.protocol.response_objects import ResponseObject
from server.protocol.responses import ResponsesRequest
from server.text.request import CompletionRequest

router = APIRouter(route_class=GuardedRoute)


@router.post("/v1/responses", dependencies=[*NEW_CHAT, prompt_is("input")], response_model=ResponseObject)
async def create_response(
    body: ResponsesRequest, request: Request, parts: PartsDep, tenant_salt: TenantDep
) -> ResponseObject | Response:
    """Answer a conversation; a client that hangs up ends the work within a step, streaming or not."""
    asked = to_completion_request(to_chat_request(body), tenant_salt, asker_of(request, body.user), notes_of(request))
    writer = ResponseWriter(body)
    if body.stream:
        return await stream_response(parts.completions.stream(asked), ResponseForm(writer), request)
    return await unless_disconnected(request, _whole(parts, asked, writer))


async def _whole(parts: Parts, asked: CompletionRequest, writer: ResponseWriter) -> ResponseObject:
    """The response as it is after the last delta of its stream."""
    async with aclosing(parts.completions.stream(asked)) as deltas:
        async for delta in deltas:
            writer.add(delta)
    return writer.response
