"""GET /v1/adapters/{name}/card: the model card of one version, as Markdown. Renders nothing."""

from fastapi import APIRouter, Response

from adapters.errors import AdapterNotFound
from adapters.store import read_card
from server.api.deps import CHAT, CallerDep, PartsDep
from server.api.guarded_route import GuardedRoute

router = APIRouter(route_class=GuardedRoute)

MEDIA_TYPE = "text/markdown; charset=utf-8"
_MARKDOWN_BODY = {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}


class _MarkdownResponse(Response):
    media_type = MEDIA_TYPE


@router.get(
    "/v1/adapters/{name}/card",
    dependencies=CHAT,
    response_class=_MarkdownResponse,
    responses={200: _MARKDOWN_BODY},
)
def get_card(name: str, parts: PartsDep, caller: CallerDep) -> Response:
    """The README.md of the version that a name, an alias or `name@digest` stands for; 404 where it has none."""
    adapter, digest = parts.registry.store.resolve(name)
    if not caller.may_use(adapter):
        raise parts.resolver.not_found(name)
    card = read_card(parts.registry.store, digest)
    if card is None:
        raise AdapterNotFound(f"this version of {adapter!r} has no model card (README.md)")
    return _MarkdownResponse(card, headers={"x-content-type-options": "nosniff"})
