"""Does before the first request what libraries leave to it, and would hold the event loop. Knows no route, no model."""

import asyncio
from contextlib import suppress

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from adapters.errors import ChatFormatError
from adapters.tool_turns import Turn
from server.engine.errors import PromptTooLong
from server.text.prompts import PromptMaker
from server.text.request import ChatPrompt


async def spare_the_first_request(app: FastAPI, prompts: PromptMaker) -> None:
    """Nothing of it is a request: no count, no limit and no log hears of it."""
    _build_routes(app)
    await asyncio.to_thread(_render, prompts)
    "".encode("unicode_escape")  # the log's own; Python loads an encoding when it is first used


def _build_routes(app: FastAPI) -> None:
    """FastAPI works out what the routes of an included router need when a path is first compared with them: 20 ms."""
    for _ in iter_route_contexts(app.routes):
        pass


def _render(prompts: PromptMaker) -> None:
    """Compile the base model's chat template, and use its tokenizer. A template may refuse so short a conversation."""
    with suppress(ChatFormatError, PromptTooLong):
        prompts.encode(ChatPrompt((Turn("user", "Hello!"),)), prompts.format_of(None))
