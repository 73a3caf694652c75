"""A chat request's wire types in the terms of the text floor. Knows no route."""

from adapters.chat_format import RenderOptions
from adapters.tool_turns import FunctionTool, ToolCall, Turn
from server.protocol.chat import ChatCompletionRequest, PromptFields
from server.protocol.messages import ChatMessage
from server.protocol.sampling import SamplingFields
from server.text.request import ChatPrompt, CompletionRequest, Sampling
from server.text.request_notes import RequestNotes
from server.text.structure.structures import Choice, Form, Grammar, JsonObject, JsonSchema, Regex, Structure, ToolCalls
from server.text.tools.definitions import ToolChoice, ToolChoiceMode


def to_completion_request(
    body: ChatCompletionRequest, tenant_salt: bytes, asker: str, notes: RequestNotes
) -> CompletionRequest:
    """The whole request."""
    max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    num_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return CompletionRequest(
        model=body.model,
        prompt=to_chat_prompt(body),
        sampling=to_sampling(body, max_tokens=max_tokens, num_logprobs=num_logprobs),
        structure=to_structure(body),
        n=body.n or 1,
        asker=asker,
        notes=notes,
        tenant_salt=tenant_salt,
    )


def to_chat_prompt(body: PromptFields) -> ChatPrompt:
    """What the model is shown."""
    variables: dict[str, object] = {}
    if body.chat_template_kwargs is not None:
        variables |= body.chat_template_kwargs.model_dump(exclude_none=True)
    if body.reasoning_effort is not None:
        variables["reasoning_effort"] = body.reasoning_effort
    continues = bool(body.continue_final_message)
    opens_turn = not continues if body.add_generation_prompt is None else body.add_generation_prompt
    options = RenderOptions(variables=variables, add_generation_prompt=opens_turn, continue_final_message=continues)
    tools = _tools(body) if _choice(body).mode is not ToolChoiceMode.NONE else ()
    return ChatPrompt(tuple(_turn(message) for message in body.messages), tools, options)


def to_structure(body: ChatCompletionRequest) -> Structure | None:
    """What the answer must look like. Raises StructureInvalid."""
    form = _form(body)
    if body.tools is None:
        return form
    parallel = body.parallel_tool_calls is not False
    return ToolCalls.asked(_tools(body), _choice(body), parallel=parallel, form=form) or form


def _form(body: ChatCompletionRequest) -> Form | None:
    """What its text must look like."""
    form, outputs = body.response_format, body.structured_outputs
    if form is not None and form.json_schema is not None:
        return JsonSchema(form.json_schema.json_schema, bool(form.json_schema.strict))
    if form is not None and form.type == "json_object":
        return JsonObject()
    if outputs is None:
        return None
    if outputs.regex is not None:
        return Regex(outputs.regex)
    return Choice(tuple(outputs.choice)) if outputs.choice is not None else Grammar(outputs.grammar or "")


def _tools(body: PromptFields) -> tuple[FunctionTool, ...]:
    functions = [tool.function for tool in body.tools or ()]
    return tuple(
        FunctionTool(function.name, function.description, function.parameters, bool(function.strict))
        for function in functions
    )


def _choice(body: PromptFields) -> ToolChoice:
    """Without one, tools may be called."""
    choice = body.tool_choice
    if choice is None:
        return ToolChoice(ToolChoiceMode.AUTO)
    if choice.function is not None:
        return ToolChoice(ToolChoiceMode.REQUIRED, choice.function.name)
    return ToolChoice(ToolChoiceMode(choice.type))


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


def _turn(message: ChatMessage) -> Turn:
    return Turn(
        message.role,
        message.text or "",
        name=message.name,
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
        reasoning=message.reasoning_content,
    )
