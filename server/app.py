"""The application: routes, middleware and error handlers around opened services. Knows no model and no socket."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import anyio.lowlevel
from fastapi import FastAPI
from transformers import PreTrainedTokenizerFast

from adapters.chat_format import HUMAN_ASSISTANT_TEMPLATE, default_chat_format
from adapters.registry import AdapterRegistry
from adapters.template_renderer import TemplateRenderer
from server.api import (
    adapter_card,
    adapter_export,
    adapter_jobs,
    adapters,
    chat,
    completions,
    embeddings,
    health,
    lora_adapters,
    metrics,
    models,
    page,
    responses,
    schema,
    tokens,
)
from server.api.answer_headers import AnswerHeadersMiddleware
from server.api.auth import KeyRing
from server.api.body_limit import BodyLimitMiddleware
from server.api.cross_origin import CrossOriginMiddleware
from server.api.deps import Parts
from server.api.foreign_origins import ForeignOriginsMiddleware
from server.api.json_guard import JsonGuardMiddleware
from server.api.limits import RateLimits
from server.api.observing import Observer, ObservingMiddleware
from server.api.request_id import RequestIdMiddleware
from server.api.turns import TurnsMiddleware
from server.config import Settings
from server.engine.async_engine import AsyncEngine
from server.engine.errors import EngineError
from server.error_handlers import install_error_handlers
from server.first_use import spare_the_first_request
from server.following import store_followed
from server.jobs import MAX_RUNNING, AdapterJobs
from server.keys import read_callers
from server.page.files import read_page
from server.services import Services
from server.sources.fetcher import Fetcher
from server.sources.locations import AllowedSources
from server.sources.roots import AdapterRoots
from server.supervising import EngineSupervisor
from server.telemetry.http_counts import HttpCounts
from server.telemetry.page import MetricsPage
from server.telemetry.request_log import log_request
from server.telemetry.snapshot import Sources
from server.telemetry.tracing import Tracing
from server.text.adapter_use import AdapterUse
from server.text.completion import Completions
from server.text.embeddings import Embeddings
from server.text.model_names import ModelResolver
from server.text.prompts import PromptMaker
from server.text.serving_stats import ServingStats
from server.text.spoken_tags import with_spoken_tags
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.errors import StructureUnsupported
from server.text.token_view import TokenView
from server.upkeep import check_versions, repair_store
from server.verifying import AdapterVerifier

logger = logging.getLogger(__name__)


def create_app(services: Services, settings: Settings, *, tracing: Tracing | None = None) -> FastAPI:
    """The app around services that it starts and stops with itself, and tracing that it closes.

    Raises SettingsError for a wrong key file.
    """
    app = FastAPI(
        title="hotprompt",
        lifespan=_lifespan(services, settings, tracing),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would lead to wherever the Host header says
    )
    http_counts = HttpCounts()
    app.state.parts = _parts(services, settings, http_counts)
    for router in (
        chat.router,
        completions.router,
        responses.router,
        embeddings.router,
        tokens.router,
        models.router,
        adapter_jobs.router,  # before the adapters, whose names its path would be
        adapters.router,
        adapter_card.router,
        adapter_export.router,
        lora_adapters.router,
        health.router,
        metrics.router,
        schema.router,
        page.make_router(read_page()),
    ):
        app.include_router(router)
    install_error_handlers(app)
    _add_middleware(app, settings, http_counts, tracing)
    return app


def _lifespan(
    services: Services, settings: Settings, tracing: Tracing | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What is started before the first request, and closed after the last."""
    warm = partial(_warm, services.engine, services.registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        services.engine.start()
        await anyio.lowlevel.checkpoint()  # it loads its back end at its first use: not within the first request
        is_over = threading.Event()
        store = services.registry.store
        await asyncio.to_thread(repair_store, store)
        checking = asyncio.create_task(asyncio.to_thread(check_versions, store, is_over))
        try:
            async with store_followed(app.state.parts):
                await warm()
                await _prepare(app.state.parts.grammars)
                await spare_the_first_request(app, app.state.parts.prompts)
                async with app.state.parts.supervisor.watching(warm):
                    yield
        finally:
            await app.state.parts.jobs.close()
            is_over.set()
            await checking
            await services.engine.stop(grace_seconds=settings.shutdown_grace_seconds)
            app.state.parts.grammars.close()
            app.state.parts.templates.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    return lifespan


def _add_middleware(app: FastAPI, settings: Settings, http_counts: HttpCounts, tracing: Tracing | None) -> None:
    """From the innermost to the outermost."""
    app.add_middleware(JsonGuardMiddleware)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(AnswerHeadersMiddleware)
    app.add_middleware(ForeignOriginsMiddleware, allowed=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(CrossOriginMiddleware, origins=settings.cors_origins)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(TurnsMiddleware)
    observers: list[Observer] = [lambda observed: http_counts.add(observed.answered), log_request]
    if tracing is not None:
        observers.append(tracing.trace)
    app.add_middleware(ObservingMiddleware, observers=observers, keeps_prompts=settings.log_prompts)


def _parts(services: Services, settings: Settings, http_counts: HttpCounts) -> Parts:
    resolver = ModelResolver(services.registry)
    callers = read_callers(settings)
    own_format = default_chat_format(services.base.tokenizer)
    templates = TemplateRenderer({own_format.template, HUMAN_ASSISTANT_TEMPLATE})
    prompts = PromptMaker(
        services.base,
        resolver,
        max_model_len=services.engine.max_model_len,
        vocab_size=services.engine.vocab_size,
        stop_token_ids=services.stop_token_ids,
        renderer=templates,
    )
    tokenizer = services.base.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerFast), "build_services takes no other"
    spoken = with_spoken_tags(tokenizer)
    grammars = GrammarCompiler(spoken, services.engine.vocab_size, stop_token_ids=services.stop_token_ids)
    limits = RateLimits(callers)
    use, stats = AdapterUse(), ServingStats()
    roots = AdapterRoots(settings.adapter_roots, max_weights_bytes=settings.max_adapter_size)
    allowed = AllowedSources(settings.adapter_sources)
    fetcher = Fetcher(roots, allowed, max_weights_bytes=settings.max_adapter_size, num_threads=MAX_RUNNING)
    hidden_size = services.base.identity.hidden_size
    supervisor = EngineSupervisor(services.engine)
    return Parts(
        engine=services.engine,
        supervisor=supervisor,
        registry=services.registry,
        resolver=resolver,
        prompts=prompts,
        templates=templates,
        grammars=grammars,
        completions=Completions(
            services.engine, prompts, grammars, spoken.backend_tokenizer, limits.charge, use, stats
        ),
        embeddings=Embeddings(services.engine, prompts, resolver, limits.charge, use, stats, hidden_size=hidden_size),
        token_view=TokenView(services.base, resolver, prompts),
        verifier=AdapterVerifier(services.engine, services.numbers),
        keeps_mismatches=settings.on_probe_mismatch == "keep",
        keys=KeyRing(callers),
        limits=limits,
        use=use,
        metrics=MetricsPage(Sources(services.engine, supervisor, services.registry, use, stats, http_counts)),
        roots=roots,
        max_weights_bytes=settings.max_adapter_size,
        jobs=AdapterJobs(fetcher),
        started=int(time.time()),
    )


async def _warm(engine: AsyncEngine, registry: AdapterRegistry) -> None:
    """Compute the virtual tokens of the pinned adapters; one that cannot be served is left out with a warning."""
    for adapter in await asyncio.to_thread(registry.load_pinned):
        try:
            await engine.prefill(adapter.injection, is_pinned=True)
        except EngineError as error:
            logger.warning("the pinned adapter %r cannot be served: %s", adapter.manifest.name, error)


async def _prepare(grammars: GrammarCompiler) -> None:
    """Spare the first request with a form the second that the tokenizer's table takes."""
    try:
        await grammars.prepare()
    except StructureUnsupported as error:
        logger.warning("requests for structured output and tools will be refused: %s", error)
