"""The header that tells which version of which adapter answers. Knows no route and no model."""

from fastapi import Request

from adapters.naming import AdapterReference
from server.api.answer_headers import on_answer
from server.text.request import TellAdapter

ADAPTER_HEADER = "x-hotprompt-adapter"


def noting_adapter(request: Request) -> TellAdapter:
    """What puts `name@digest` on the answer, if it is known when that begins, whatever name the request used."""

    def note(adapter: AdapterReference | None) -> None:
        if adapter is not None:
            on_answer(request, lambda: {ADAPTER_HEADER: str(adapter)})

    return note
