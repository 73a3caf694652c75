"""Long lists as JSON, written where this is called: FastAPI itself would check and write them on the event loop."""

from collections.abc import Iterable, Sequence

from fastapi import Response
from pydantic import BaseModel


def list_response(entries: Iterable[BaseModel], **more: Sequence[BaseModel]) -> Response:
    """200 with OpenAI's list object, and more lists beside `data`.

    Written entry by entry, so that other threads get their turn in between.
    """
    lists = [("data", entries), *more.items()]
    fields = b",".join(b'"%s":[%s]' % (name.encode(), _joined(listed)) for name, listed in lists)
    return Response(b'{"object":"list",' + fields + b"}", media_type="application/json")


def _joined(entries: Iterable[BaseModel]) -> bytes:
    return b",".join(entry.model_dump_json().encode() for entry in entries)
