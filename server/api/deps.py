"""What routes are given: one record of the app's parts, and the key checks as dependencies. Knows no route.

They are coroutines although they wait for nothing: FastAPI hands plain functions to a pool of threads, one by one.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from adapters.registry import AdapterRegistry
from server.api.auth import KeyRing
from server.engine.async_engine import AsyncEngine
from server.engine.errors import EngineStopping
from server.text.completion import Completions
from server.text.embeddings import Embeddings
from server.text.model_names import ModelResolver
from server.text.structure.compiler import GrammarCompiler
from server.text.token_view import TokenView


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one app, made by `create_app`; `started` is in seconds since the epoch."""

    engine: AsyncEngine
    registry: AdapterRegistry
    resolver: ModelResolver
    grammars: GrammarCompiler
    completions: Completions
    embeddings: Embeddings
    token_view: TokenView
    keys: KeyRing
    shutdown_grace_seconds: float
    started: int


async def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(parts_of)]
AuthorizationHeader = Annotated[str | None, Header()]


async def require_chat_key(parts: PartsDep, authorization: AuthorizationHeader = None) -> None:
    """Refuse who may not chat."""
    parts.keys.check_chat(authorization)


async def require_admin_key(parts: PartsDep, authorization: AuthorizationHeader = None) -> None:
    """Refuse who may not change adapters."""
    parts.keys.check_admin(authorization)


async def tenant_salt_of(parts: PartsDep, authorization: AuthorizationHeader = None) -> bytes:
    """What keeps the cached prompts of the key that asks apart from other keys'."""
    return parts.keys.tenant_salt(authorization)


async def refuse_when_stopping(parts: PartsDep) -> None:
    """Refuse new work while the server drains."""
    if parts.engine.is_draining:
        raise EngineStopping("the server is stopping")


TenantDep = Annotated[bytes, Depends(tenant_salt_of)]

CHAT = [Depends(require_chat_key)]
NEW_CHAT = [Depends(require_chat_key), Depends(refuse_when_stopping)]
CHANGE = [Depends(require_admin_key), Depends(refuse_when_stopping)]
