"""What routes are given: one record of the app's parts, and the key checks as dependencies. Knows no route.

They are coroutines although they wait for nothing: FastAPI hands plain functions to a pool of threads, one by one. They
take the request alone, and not each other: FastAPI works through a tree of dependencies node by node, 15 µs each.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from adapters.registry import AdapterRegistry
from adapters.template_renderer import TemplateRenderer
from server.api.answer_headers import on_answer
from server.api.asked_model import asked_model
from server.api.auth import KeyRing
from server.api.limits import RateLimits
from server.engine.async_engine import AsyncEngine
from server.engine.errors import EngineStopping
from server.jobs import AdapterJobs
from server.keys import Caller
from server.sources.roots import AdapterRoots
from server.supervising import EngineSupervisor
from server.telemetry.page import MetricsPage
from server.text.adapter_use import AdapterUse
from server.text.completion import Completions
from server.text.embeddings import Embeddings
from server.text.model_names import ModelResolver
from server.text.prompts import PromptMaker
from server.text.structure.compiler import GrammarCompiler
from server.text.token_view import TokenView
from server.verifying import AdapterVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one app, made by `create_app`; `started` is in seconds since the epoch."""

    engine: AsyncEngine
    supervisor: EngineSupervisor
    registry: AdapterRegistry
    resolver: ModelResolver
    prompts: PromptMaker
    templates: TemplateRenderer
    grammars: GrammarCompiler
    completions: Completions
    embeddings: Embeddings
    token_view: TokenView
    verifier: AdapterVerifier
    keeps_mismatches: bool
    keys: KeyRing
    limits: RateLimits
    use: AdapterUse
    metrics: MetricsPage
    roots: AdapterRoots
    max_weights_bytes: int
    jobs: AdapterJobs
    started: int


def parts_behind(request: Request) -> Parts:
    """The parts of the app that answers a request."""
    parts: Parts = request.app.state.parts
    return parts


def caller_behind(request: Request) -> Caller:
    """Whose key the request has; its digest is compared once, however many ask."""
    if not hasattr(request.state, "caller"):
        request.state.caller = parts_behind(request).keys.caller(request.headers.get("authorization"))
    caller: Caller = request.state.caller
    return caller


async def parts_of(request: Request) -> Parts:
    return parts_behind(request)


async def caller_of(request: Request) -> Caller:
    return caller_behind(request)


PartsDep = Annotated[Parts, Depends(parts_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]


async def require_chat_key(request: Request) -> None:
    """Refuse who may not chat."""
    parts_behind(request).keys.check_chat(caller_behind(request), request.headers.get("authorization"))


async def require_admin_key(request: Request) -> None:
    """Refuse who may not change adapters."""
    parts_behind(request).keys.check_admin(caller_behind(request), request.headers.get("authorization"))


async def require_allowed_model(request: Request) -> None:
    """Refuse a model that this key may not use as one that does not exist, without looking whether it does."""
    caller, resolver = caller_behind(request), parts_behind(request).resolver
    if caller.models is None:
        return
    model = await asked_model(request)
    if model is not None and not caller.may_use(resolver.name_of(model)):
        raise resolver.not_found(model)


async def count_request(request: Request) -> None:
    """Refuse who has used up this minute's requests or tokens; count the request of whoever has not."""
    account = parts_behind(request).limits.account(caller_behind(request))
    on_answer(request, account.headers)
    account.enter()


async def tenant_salt_of(request: Request) -> bytes:
    """What keeps the cached prompts of the key that asks apart from other keys', and what its tokens are charged to."""
    return caller_behind(request).digest


async def refuse_when_stopping(request: Request) -> None:
    """Refuse new work while the server drains."""
    if parts_behind(request).engine.is_draining:
        raise EngineStopping("the server is stopping")


async def require_writable_store(request: Request) -> None:
    """Refuse a change where the server may only read its store, before anything is computed for it."""
    await asyncio.to_thread(parts_behind(request).registry.store.require_writable)


TenantDep = Annotated[bytes, Depends(tenant_salt_of)]

CHAT = [Depends(require_chat_key), Depends(require_allowed_model)]
NEW_CHAT = [
    Depends(require_chat_key),
    Depends(refuse_when_stopping),
    Depends(count_request),
    Depends(require_allowed_model),
]
ADMIN = [Depends(require_admin_key)]
CHANGE = [Depends(require_admin_key), Depends(refuse_when_stopping), Depends(require_writable_store)]
