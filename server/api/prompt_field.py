"""What a request calls its prompt, so that errors name that field. Knows no route."""

from typing import Any

from fastapi import Depends, Request

from server.error_bodies import PROMPT_FIELD_STATE


def name_prompt(request: Request, field: str) -> None:
    """What is wrong with this request's prompt is told of that field, and not of `messages`."""
    setattr(request.state, PROMPT_FIELD_STATE, field)


def prompt_is(field: str) -> Any:
    """The same, as a dependency of a route."""

    async def note(request: Request) -> None:
        name_prompt(request, field)

    return Depends(note)
