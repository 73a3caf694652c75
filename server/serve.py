"""`hotprompt serve`: the socket, the services, the app, and uvicorn with an orderly end. Knows no route."""

import asyncio
import logging
import socket
import time
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from adapters.errors import BaseModelError, StoreFailure
from server.accepting import PacedListener
from server.app import create_app
from server.collector import FullCollections, spare_the_collector
from server.config import Settings
from server.connections import Connection, ReadingTurns, cut_silent
from server.engine.async_engine import AsyncEngine
from server.engine.errors import CacheTooSmall, ModelUnsupported
from server.keys import read_callers
from server.services import build_services
from server.telemetry.tracing import open_tracing

MAX_HEADER_BYTES = 64 * 1024
BACKLOG = 2048
FLUSH_SECONDS = 5
"""What connections get to take their last bytes, after the engine has stopped."""
TICKS_A_SECOND = 10
"""How often uvicorn calls `on_tick`."""

logger = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start; the message is one line and names the flag to change."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish, and return.

    The port is taken, and the key file read, before the model is loaded. Raises SettingsError and StartError.
    """
    read_callers(settings)  # only to refuse a wrong file at once: the app reads it for itself
    tracing = open_tracing(settings)
    listener = open_listener(settings.host, settings.port)
    with listener:
        try:
            services = build_services(settings)
        except (BaseModelError, StoreFailure, ModelUnsupported, CacheTooSmall) as error:
            raise StartError(str(error)) from error
        app = create_app(services, settings, tracing=tracing)
        server = DrainingServer(uvicorn_config(app), services.engine, grace_seconds=settings.shutdown_grace_seconds)
        begin_to_listen(listener)
        spare_the_collector()
        server.run(sockets=[listener])


def open_listener(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises StartError when the address is in use or is not this machine's."""
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        flag = f"--host {host}" if isinstance(error, socket.gaierror) else f"--port {port} (--host {host})"
        raise StartError(f"{flag}: {error.strerror}") from error


def begin_to_listen(listener: socket.socket) -> None:
    """Let connections wait for the server. Raises StartError when another server took the port meanwhile."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise StartError(f"--port {listener.getsockname()[1]}: {error.strerror}") from error


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn runs the app. h11 and not httptools: only it bounds the size of a request's headers."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_graceful_shutdown=FLUSH_SECONDS,
    )


def url_of(host: str, port: int) -> str:
    """Where a browser on this machine finds a server that listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class DrainingServer(uvicorn.Server):
    """A uvicorn that, told to end, goes on answering while the requests that run now finish.

    In that time `/ready` and new requests get 503 from the draining engine. When nothing runs any more, or the grace
    period is over, or a second signal comes, the engine stops (what is left hears so) and the server ends. Signals are
    not raised again afterwards, so that an orderly end is exit code 0.
    """

    def __init__(self, config: uvicorn.Config, engine: AsyncEngine, *, grace_seconds: float) -> None:
        super().__init__(config)
        self._engine = engine
        self._grace_seconds = grace_seconds
        self._collections = FullCollections()
        self._listening: list[PacedListener] = []
        self._signals = 0
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Only count: a signal may come in the middle of anything, so the loop's next tick acts on it."""
        self._signals += 1

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        factory = partial(
            Connection,
            ReadingTurns(),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for listener in sockets or []:
            self._listening.append(PacedListener(listener, factory, backlog=BACKLOG))
            url = url_of(*listener.getsockname()[:2])
            logger.info("serving on %s : open it in a browser to chat; for clients, the base URL is %s/v1", url, url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self._listening:
            listening.close()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server."""
        ends = await super().on_tick(counter)
        state = self.server_state
        if counter % TICKS_A_SECOND == 0:
            cut_silent(state.connections, now=asyncio.get_running_loop().time())
        self._collections.tick(num_requests=state.total_requests, is_idle=not state.tasks)
        if self._signals == 0:
            return ends
        if self._deadline is None:
            logger.info("stopping: running requests get %g s to finish", self._grace_seconds)
            self._engine.begin_drain()
            self._deadline = time.monotonic() + self._grace_seconds
        if self.server_state.tasks and self._signals == 1 and time.monotonic() < self._deadline:
            return ends
        await self._engine.stop(grace_seconds=0)
        self.should_exit = True
        return True
