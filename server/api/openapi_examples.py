"""Examples of request bodies, for the OpenAPI document. Knows no route: keys are method and path as text."""

from typing import Any

BASE = "smollm2-135m-instruct"
ADAPTER = "movie-sentiment"

_QUESTION = [{"role": "user", "content": "Name three colours."}]
_REVIEW = [{"role": "user", "content": "A film to fall asleep in."}]
_WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_COLOURS = {"type": "object", "properties": {"colours": {"type": "array", "items": {"type": "string"}}}}

EXAMPLES: dict[str, dict[str, Any]] = {
    "POST /v1/chat/completions": {
        "the base model": {"model": BASE, "messages": _QUESTION, "max_tokens": 50},
        "an adapter, streamed": {
            "model": ADAPTER,
            "messages": _REVIEW,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        "a tool": {
            "model": BASE,
            "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": _WEATHER}}],
            "tool_choice": "required",
        },
        "an answer of a form": {
            "model": BASE,
            "messages": _QUESTION,
            "response_format": {"type": "json_schema", "json_schema": {"name": "colours", "schema": _COLOURS}},
        },
    },
    "POST /v1/chat/completions/render": {"a chat": {"model": ADAPTER, "messages": _REVIEW}},
    "POST /v1/completions": {
        "a text": {"model": BASE, "prompt": "Once upon a time", "max_tokens": 30},
        "several texts, streamed": {"model": BASE, "prompt": ["One", "Two"], "n": 2, "logprobs": 2, "stream": True},
        "token ids": {"model": BASE, "prompt": [72, 101, 108, 108, 111], "echo": True},
        "how likely a text is": {"model": BASE, "prompt": "Once upon", "max_tokens": 0, "echo": True, "logprobs": 1},
    },
    "POST /v1/responses": {
        "a text": {"model": BASE, "instructions": "Answer in one word.", "input": "Name a colour."},
        "a conversation, streamed": {"model": ADAPTER, "input": _REVIEW, "max_output_tokens": 20, "stream": True},
    },
    "POST /v1/embeddings": {
        "texts": {"model": BASE, "input": ["a film", "a book"]},
        "a short vector as bytes": {"model": BASE, "input": "a film", "dimensions": 32, "encoding_format": "base64"},
    },
    "POST /tokenize": {
        "a text": {"model": BASE, "prompt": "Name three colours.", "return_token_strs": True},
        "a chat": {"model": ADAPTER, "messages": _REVIEW},
    },
    "POST /detokenize": {"token ids": {"model": BASE, "tokens": [72, 101, 108, 108, 111]}},
    "POST /v1/load_lora_adapter": {
        "a directory": {"lora_name": "support", "lora_path": "/srv/adapters/support"},
        "a new version": {"lora_name": "support", "lora_path": "/srv/adapters/support-2", "load_inplace": True},
    },
    "POST /v1/unload_lora_adapter": {"an adapter": {"lora_name": "support"}},
    "PATCH /v1/adapters/{name}": {
        "back to the version before": {"rollback": True},
        "another version for one in twenty": {"canary": {"digest": "5f1c08ab92de", "percent": 5}},
        "one version for all again": {"canary": None},
        "always in memory, with one more name": {"pinned": True, "alias": "sentiment"},
    },
}
"""Every route with a JSON body is in here."""
