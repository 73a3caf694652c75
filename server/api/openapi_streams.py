"""What the events of streamed answers are made of, by the request's body. Knows no route."""

from typing import Any

from pydantic import BaseModel

from server.protocol.chat import ChatCompletionChunk, ChatCompletionRequest
from server.protocol.completions import Completion, CompletionRequest
from server.protocol.response_objects import ResponseEvent
from server.protocol.responses import ResponsesRequest

STREAMED: dict[Any, type[BaseModel]] = {
    ChatCompletionRequest: ChatCompletionChunk,
    CompletionRequest: Completion,
    ResponsesRequest: ResponseEvent,
}
"""Every body with a field `stream` is in here."""
