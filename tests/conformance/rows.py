"""The rows of docs/openai.md: what tests prove of hotprompt, and what was read of its peers. Renders nothing.

Where each column comes from, the page itself says; "?" was not looked up.
"""

from dataclasses import dataclass

YES, NO, PARTLY, UNKNOWN = "✓", "✗", "~", "?"


@dataclass(frozen=True, slots=True)
class Peers:
    """One cell each: a mark, and words where a mark is not enough."""

    vllm: str
    sglang: str
    transformers: str
    llama_cpp: str


@dataclass(frozen=True, slots=True)
class Row:
    """A field or a route. Each proof is `program: feature` of a client program, or `path::test`.

    `refused`: the proofs show that a request with it is answered with 400.
    """

    name: str
    proofs: tuple[str, ...]
    peers: Peers
    refused: bool = False


ALL = Peers(YES, YES, YES, YES)
NOT_TRANSFORMERS = Peers(YES, YES, NO, YES)

_BY_GENERATION_CONFIG = Peers(YES, YES, "~ in generation_config", YES)

CHAT = (
    Row(
        "`stream`",
        ("openai_chat: stream", "openai_async: async, eight at once", "openai_chat.mjs: stream"),
        Peers(YES, YES, "✓ without `[DONE]`", YES),
    ),
    Row(
        "`stream_options.include_usage`",
        (
            "openai_chat: stream_options.include_usage",
            "langchain_chat: stream with usage, sync and async",
            "ai_sdk.mjs: streamText with usage",
        ),
        Peers(YES, YES, "~ always sent", YES),
    ),
    Row("`n`", ("openai_sampling: n", "langchain_chat: n", "openai_chat.mjs: n"), NOT_TRANSFORMERS),
    Row(
        "`stop`",
        ("openai_sampling: stop", "langchain_chat: stop", "ai_sdk.mjs: stopSequences"),
        Peers(YES, YES, "✓ but batched: ignored", YES),
    ),
    Row(
        "`max_tokens`, `max_completion_tokens`",
        ("openai_sampling: max_tokens, max_completion_tokens, ignore_eos",),
        ALL,
    ),
    Row("`min_tokens`", ("openai_sampling: min_tokens",), Peers(YES, UNKNOWN, "~ in generation_config", UNKNOWN)),
    Row(
        "`ignore_eos`",
        ("openai_sampling: max_tokens, max_completion_tokens, ignore_eos",),
        Peers(YES, UNKNOWN, "✗ 422", UNKNOWN),
    ),
    Row(
        "`temperature`, `top_p`",
        ("openai_sampling: temperature, top_p, top_k, min_p",),
        Peers(YES, YES, "✓ but batched: the first request's for all", YES),
    ),
    Row("`top_k`, `min_p`", ("openai_sampling: temperature, top_p, top_k, min_p",), _BY_GENERATION_CONFIG),
    Row(
        "`presence_penalty`",
        (
            "openai_sampling: presence_penalty, frequency_penalty, repetition_penalty",
            "langchain_chat: penalties and logit_bias",
        ),
        NOT_TRANSFORMERS,
    ),
    Row(
        "`frequency_penalty`",
        (
            "openai_sampling: presence_penalty, frequency_penalty, repetition_penalty",
            "langchain_chat: penalties and logit_bias",
        ),
        Peers(YES, YES, "✗ taken as `repetition_penalty` 1 + f", YES),
    ),
    Row(
        "`repetition_penalty`",
        ("openai_sampling: presence_penalty, frequency_penalty, repetition_penalty",),
        _BY_GENERATION_CONFIG,
    ),
    Row(
        "`logit_bias`",
        ("openai_sampling: logit_bias", "langchain_chat: penalties and logit_bias"),
        Peers(YES, YES, "✓ but batched: the first request's for all", YES),
    ),
    Row(
        "`logprobs`, `top_logprobs`",
        (
            "openai_sampling: logprobs, top_logprobs",
            "openai_sampling: logprobs in streams",
            "langchain_chat: logprobs",
            "openai_chat.mjs: logprobs, top_logprobs",
        ),
        Peers(YES, YES, NO, "✓ but not with tools in a stream"),
    ),
    Row(
        "`seed`",
        ("openai_sampling: seed", "ai_sdk.mjs: seed, topP, penalties"),
        Peers(YES, YES, "~ one generator for all", YES),
    ),
    Row(
        "`response_format` `json_schema`",
        (
            "openai_structured: response_format json_schema",
            "openai_structured: .parse() with pydantic",
            "openai_structured: .stream() with pydantic",
            "langchain_chat: with_structured_output by json_schema and function_calling",
            "pydantic_agents: NativeOutput and ToolOutput, whole and streamed",
            "instructor_models: modes TOOLS and JSON_SCHEMA",
            "openai_chat.mjs: .parse() with zod",
            "ai_sdk.mjs: Output.object, whole and streamed",
        ),
        NOT_TRANSFORMERS,
    ),
    Row(
        "`response_format` `json_object`",
        ("openai_structured: response_format json_object", "langchain_chat: with_structured_output by json_mode"),
        NOT_TRANSFORMERS,
    ),
    Row(
        "`structured_outputs` `regex`, `choice`, `grammar`",
        ("openai_structured: structured_outputs regex, choice, grammar",),
        Peers(YES, "✓ `regex`, `ebnf`", NO, "✓ GBNF"),
    ),
    Row(
        "`tools`",
        (
            "openai_tools: tool results in the next turn",
            "openai_tools: tool calls in streams",
            "openai_tools: .parse() with tools",
            "openai_tools: .stream() with tools",
            "langchain_chat: tools with a round trip",
            "pydantic_agents: tools with a round trip",
            "openai_tools.mjs: runTools()",
            "ai_sdk.mjs: tools with a round trip, whole and streamed",
        ),
        ALL,
    ),
    Row(
        "`tools` beside `response_format`",
        ("openai_tools: tools and response_format in one request",),
        Peers(UNKNOWN, UNKNOWN, "✗ `response_format` is ignored", UNKNOWN),
    ),
    Row(
        "`tool_choice`",
        (
            "openai_tools: tool_choice required",
            "openai_tools: tool_choice with a named function",
            "openai_tools: tool_choice none",
            "openai_tools: tool_choice auto",
        ),
        NOT_TRANSFORMERS,
    ),
    Row("`parallel_tool_calls`", ("openai_tools: parallel_tool_calls",), NOT_TRANSFORMERS),
    Row("`continue_final_message`", ("openai_chat: continue_final_message",), NOT_TRANSFORMERS),
    Row("`add_generation_prompt`", ("openai_chat: add_generation_prompt",), Peers(YES, UNKNOWN, "✗ 422", UNKNOWN)),
    Row(
        "text parts, `name`",
        ("openai_chat: text parts", "openai_chat: name"),
        Peers(UNKNOWN, UNKNOWN, "~ `name` is dropped", UNKNOWN),
    ),
    Row(
        "role `developer`",
        ("openai_chat: roles system and developer",),
        Peers(UNKNOWN, UNKNOWN, "~ if the template has it", UNKNOWN),
    ),
    Row(
        "`user`, `metadata`, `store: false`, `service_tier`, `modalities`",
        ("openai_chat: metadata, user, store: false, service_tier, modalities",),
        Peers("✗ ignored", UNKNOWN, "✗ ignored", UNKNOWN),
    ),
    Row(
        "images and audio",
        ("openai_errors: images and audio are refused",),
        Peers("✓ where the model has them", UNKNOWN, "✓ where the model has them, else dropped", UNKNOWN),
        refused=True,
    ),
    Row(
        "fields that are unknown",
        ("openai_errors: 400 names the field",),
        Peers("ignored", UNKNOWN, "422", UNKNOWN),
        refused=True,
    ),
)

ROUTES = (
    Row(
        "`POST /v1/completions`",
        ("openai_routes: /v1/completions", "openai_routes: /v1/completions logprobs"),
        Peers(YES, YES, "~ one string a request, no `n`, no `logprobs`", YES),
    ),
    Row("… `echo`", ("openai_routes: /v1/completions echo",), Peers(YES, YES, "✗ ignored", UNKNOWN)),
    Row(
        "… `echo` with `logprobs`, `max_tokens: 0`",
        ("openai_routes: /v1/completions echo with logprobs, max_tokens 0",),
        Peers(YES, UNKNOWN, "✗ ignored", UNKNOWN),
    ),
    Row(
        "… `suffix`",
        ("openai_routes: /v1/completions suffix is refused",),
        Peers("~ models that fill in the middle", UNKNOWN, "✗ put behind the answer as it is", UNKNOWN),
        refused=True,
    ),
    Row(
        "`POST /v1/responses`",
        (
            "openai_routes: /v1/responses",
            "openai_routes: /v1/responses stream",
            "openai_routes: /v1/responses text format",
            "openai_routes: /v1/responses tools with a round trip",
        ),
        ALL,
    ),
    Row("`POST /v1/embeddings`", ("openai_routes: /v1/embeddings",), NOT_TRANSFORMERS),
    Row(
        "`GET /v1/models` lists adapters",
        ("openai_chat: models",),
        Peers(YES, "~ their ids choose nothing", "no adapters", NO),
    ),
    Row("`GET /v1/models/{id}`", ("openai_chat: models",), Peers(NO, "~ the base only", NO, NO)),
    Row("`DELETE /v1/models/{id}`", ("tests/server/test_adapters_api.py::test_deleting",), Peers(NO, NO, NO, NO)),
    Row(
        "`POST /tokenize`, `/detokenize`",
        ("openai_routes: /tokenize, /detokenize",),
        NOT_TRANSFORMERS,
    ),
    Row(
        "`POST /v1/chat/completions/render`",
        ("openai_routes: /v1/chat/completions/render",),
        Peers("~ with `--enable-scale-out`", PARTLY, NO, "✓ `/apply-template`"),
    ),
)

BEHAVIOUR = (
    Row(
        "an unknown model is 404",
        ("openai_errors: 404 for an unknown model", "openai_chat.mjs: 404 for an unknown model", "ai_sdk.mjs: errors"),
        Peers(YES, UNKNOWN, "✗ fetched from the hub, or 400", UNKNOWN),
    ),
    Row(
        "400 names the field",
        ("openai_errors: 400 names the field", "openai_chat.mjs: 400 names the field"),
        Peers(UNKNOWN, UNKNOWN, "~ 422 for unknown ones; 19 of OpenAI's are ignored", UNKNOWN),
    ),
    Row(
        "API keys",
        ("openai_narrow: 401 for a wrong key", "openai_narrow.mjs: 401 for a wrong key"),
        Peers("✓ for some paths, `/tokenize` not among them", "✓ and an admin key", NO, YES),
    ),
    Row(
        "a key over its rate limit is 429 with Retry-After, and clients try again",
        ("openai_narrow: 429 with Retry-After from a key over its limit, and tried again",),
        Peers(NO, UNKNOWN, NO, UNKNOWN),
    ),
    Row(
        "a full server is 503 with Retry-After, and clients try again",
        (
            "openai_narrow: 503 with Retry-After from a full server",
            "openai_narrow: a refused request is tried again",
            "openai_narrow.mjs: a refused request is tried again",
            "ai_sdk_narrow.mjs: a refused request is tried again",
        ),
        Peers(NO, UNKNOWN, NO, UNKNOWN),
    ),
    Row(
        "who hangs up ends the request",
        (
            "openai_narrow: a stream that is closed ends its request",
            "openai_narrow: a call that is cancelled ends its request",
            "openai_narrow.mjs: a stream that is aborted ends its request",
            "ai_sdk_narrow.mjs: abortSignal ends a request",
        ),
        Peers(YES, YES, "✓ streams", YES),
    ),
    Row(
        "`x-request-id` is echoed",
        (
            "openai_errors: x-request-id",
            "tests/server/test_surface.py::test_a_good_request_id_is_echoed_and_another_replaced",
        ),
        Peers("~ with `--enable-request-id-headers`", UNKNOWN, YES, UNKNOWN),
    ),
)

SECTIONS = (("Chat completions", CHAT), ("Routes", ROUTES), ("Behaviour", BEHAVIOUR))
