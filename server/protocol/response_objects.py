"""Answers of the Responses API on the wire: the response, and the items that it is made of. Knows no route."""

from typing import Literal

from pydantic import ConfigDict

from server.protocol.base import ResponseBody
from server.protocol.response_items import ItemStatus
from server.protocol.responses import FunctionChoice, FunctionTool, ReasoningOptions, TextOptions
from server.protocol.usage import TokenLogprob


class OutputText(ResponseBody):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[()] = ()
    logprobs: list[TokenLogprob]


class OutputMessage(ResponseBody):
    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class OutputFunctionCall(ResponseBody):
    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class OutputReasoningText(ResponseBody):
    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class OutputReasoning(ResponseBody):
    id: str
    type: Literal["reasoning"] = "reasoning"
    status: ItemStatus
    summary: tuple[()] = ()
    content: list[OutputReasoningText]


OutputItem = OutputReasoning | OutputMessage | OutputFunctionCall


class InputTokensDetails(ResponseBody):
    """What was not found in the prefix cache was left there."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(ResponseBody):
    """0: tokens of reasoning are counted among the others, and not apart."""

    reasoning_tokens: int = 0


class ResponseUsage(ResponseBody):
    """Virtual tokens of an adapter are in none of the counts."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class IncompleteDetails(ResponseBody):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseErrorBody(ResponseBody):
    code: str
    message: str


class ResponseEvent(ResponseBody):
    """One event of a stream; what it has beside these depends on its type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int


class ResponseObject(ResponseBody):
    """One response, whole or on its way. Beside the output it says what it was asked with."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: ResponseStatus
    error: ResponseErrorBody | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    reasoning: ReasoningOptions
    temperature: float | None
    text: TextOptions
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice
    tools: list[FunctionTool]
    top_logprobs: int
    top_p: float | None
    user: str | None
    background: Literal[False] = False
    previous_response_id: None = None
    service_tier: Literal["default"] = "default"
    store: Literal[False] = False
    truncation: Literal["disabled"] = "disabled"
