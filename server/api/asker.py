"""Who asks, for names whose versions share their traffic. Knows no adapter."""

from fastapi import Request


def asker_of(request: Request, user: str | None) -> str:
    """The request's own `user`, or where it names none, the id of this one request."""
    asker: str = user or request.state.request_id
    return asker
