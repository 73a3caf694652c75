"""A request's notes, and the header that tells which version of which adapter answers. Knows no route and no model."""

from collections.abc import Mapping

from fastapi import Request

from server.api.answer_headers import on_answer
from server.text.request_notes import RequestNotes

ADAPTER_HEADER = "x-hotprompt-adapter"
NOTES_STATE = "notes"


def notes_of(request: Request) -> RequestNotes:
    """Where the floors below enter what becomes of this request.

    `name@digest` goes on the answer, if it is known when that begins, whatever name the request used.
    """
    notes: RequestNotes = getattr(request.state, NOTES_STATE)

    def header() -> Mapping[str, str]:
        return {} if notes.adapter is None else {ADAPTER_HEADER: str(notes.adapter)}

    on_answer(request, header)
    return notes
