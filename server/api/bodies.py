"""Long lists as JSON, written where this is called: FastAPI itself would check and write them on the event loop."""

from collections.abc import Iterable

from fastapi import Response
from pydantic import BaseModel


def list_response(entries: Iterable[BaseModel]) -> Response:
    """200 with OpenAI's list object. Written entry by entry, so that other threads get their turn in between."""
    data = b",".join(entry.model_dump_json().encode() for entry in entries)
    return Response(b'{"object":"list","data":[' + data + b"]}", media_type="application/json")
