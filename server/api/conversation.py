"""A chat request's wire types in the terms of the text floor. Knows no route."""

from typing import Any

from adapters.chat_format import RenderOptions
from server.protocol.chat import ChatCompletionRequest, PromptFields
from server.protocol.messages import ChatMessage
from server.protocol.sampling import SamplingFields
from server.text.request import ChatPrompt, CompletionRequest, Sampling


def to_completion_request(body: ChatCompletionRequest, tenant_salt: bytes) -> CompletionRequest:
    """The whole request."""
    max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    num_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return CompletionRequest(
        model=body.model,
        prompt=to_chat_prompt(body),
        sampling=to_sampling(body, max_tokens=max_tokens, num_logprobs=num_logprobs),
        n=body.n or 1,
        tenant_salt=tenant_salt,
    )


def to_chat_prompt(body: PromptFields) -> ChatPrompt:
    """What the model is shown."""
    variables: dict[str, bool | str] = {}
    if body.chat_template_kwargs is not None:
        variables |= body.chat_template_kwargs.model_dump(exclude_none=True)
    if body.reasoning_effort is not None:
        variables["reasoning_effort"] = body.reasoning_effort
    continues = bool(body.continue_final_message)
    opens_turn = not continues if body.add_generation_prompt is None else body.add_generation_prompt
    options = RenderOptions(variables=variables, add_generation_prompt=opens_turn, continue_final_message=continues)
    return ChatPrompt(tuple(_message(message) for message in body.messages), options)


def to_sampling(body: SamplingFields, *, max_tokens: int | None, num_logprobs: int | None) -> Sampling:
    """How tokens are chosen."""
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        min_p=body.min_p or 0,
        presence_penalty=body.presence_penalty or 0,
        frequency_penalty=body.frequency_penalty or 0,
        repetition_penalty=body.repetition_penalty or 1,
        logit_bias=body.logit_bias or {},
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        seed=None if body.seed is None else body.seed % (1 << 63),
        stop=tuple(body.stop or ()),
        ignore_eos=bool(body.ignore_eos),
        num_logprobs=num_logprobs,
    )


def _message(message: ChatMessage) -> dict[str, Any]:
    """Only what is there: templates ask whether a field is defined."""
    fields: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.name is not None:
        fields["name"] = message.name
    if message.reasoning_content is not None:
        fields["reasoning_content"] = message.reasoning_content
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": call.function.model_dump()} for call in message.tool_calls
        ]
    return fields
