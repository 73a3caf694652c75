"""POST /v1/embeddings: texts or token ids to vectors. Knows no tokens and no model."""

import asyncio
import base64

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from server.api.answered_by import notes_of
from server.api.asker import asker_of
from server.api.deps import NEW_CHAT, PartsDep, TenantDep
from server.api.disconnect import unless_disconnected
from server.api.guarded_route import GuardedRoute
from server.api.plain_prompts import to_plain_prompt
from server.api.prompt_field import prompt_is
from server.protocol.embeddings import EmbeddingList, EmbeddingsRequest, EmbeddingsUsage
from server.text.embeddings import Embedded
from server.text.embeddings import EmbeddingsRequest as Asked

router = APIRouter(route_class=GuardedRoute)


@router.post("/v1/embeddings", dependencies=[*NEW_CHAT, prompt_is("input")], response_model=EmbeddingList)
async def create_embeddings(
    body: EmbeddingsRequest, request: Request, parts: PartsDep, tenant_salt: TenantDep
) -> Response:
    """One vector of length 1 for each input; a client that hangs up ends the work within a step."""
    asked = Asked(
        model=body.model,
        inputs=tuple(map(to_plain_prompt, body.input)),
        dimensions=body.dimensions,
        asker=asker_of(request, body.user),
        notes=notes_of(request),
        tenant_salt=tenant_salt,
    )
    embedded = await unless_disconnected(request, parts.embeddings.embed(asked))
    content = await asyncio.to_thread(_content, embedded, body)  # there may be thousands of them
    return Response(content, media_type="application/json")


def _content(embedded: Embedded, body: EmbeddingsRequest) -> bytes:
    """The JSON of an EmbeddingList, written row by row, so that other threads get their turn in between."""
    write = _base64 if body.encoding_format == "base64" else _floats
    rows = (
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, write(vector))
        for index, vector in enumerate(embedded.vectors)
    )
    usage = EmbeddingsUsage(prompt_tokens=embedded.num_tokens, total_tokens=embedded.num_tokens)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        b",".join(rows),
        orjson.dumps(body.model),
        orjson.dumps(usage.model_dump()),
    )


def _floats(vector: NDArray[np.float32]) -> bytes:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def _base64(vector: NDArray[np.float32]) -> bytes:
    return b'"' + base64.b64encode(vector.astype("<f4").tobytes()) + b'"'
