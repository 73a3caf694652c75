"""What a completion is asked with, in the terms of text. Knows no wire types and no engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from adapters.chat_format import RenderOptions
from adapters.tool_turns import FunctionTool, Turn
from server.text.request_notes import RequestNotes
from server.text.structure.structures import Structure

Charge = Callable[[bytes, int], None]
"""Told the tenant salt of a request and how many tokens were computed for it."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, the functions that may be called in it, and how it is rendered."""

    turns: tuple[Turn, ...]
    tools: tuple[FunctionTool, ...] = ()
    options: RenderOptions = field(default_factory=RenderOptions)


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text that is continued as it stands; `add_special_tokens`: the tokenizer's own before it, such as BOS."""

    text: str
    add_special_tokens: bool = True


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids that are continued as they stand."""

    token_ids: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. None means: what the adapter asks for, and else the server's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """0 keeps all tokens."""
    min_p: float = 0
    presence_penalty: float = 0
    frequency_penalty: float = 0
    repetition_penalty: float = 1
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to logits, by token id."""
    max_tokens: int | None = None
    """0 makes no answer."""
    min_tokens: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Beside these, the stop strings of the adapter's chat format end the answer."""
    ignore_eos: bool = False
    num_logprobs: int | None = None
    """For each token its log-probability and those of so many likeliest ones; None for none of it."""
    num_prompt_logprobs: int | None = None
    """The same for the tokens of a prompt that is echoed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One prompt, answered `n` times."""

    model: str
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    structure: Structure | None = None
    """What the answer must look like; with tools, the calls that it may or must make."""
    n: int = 1
    echo: bool = False
    """Whether the prompt stands before each answer; a conversation cannot."""
    asker: str | None = None
    """Who asks: where a name's versions share its traffic, the same asker always gets the same one."""
    notes: RequestNotes = field(default_factory=RequestNotes)
    """Where what becomes of the request is entered; the same for all prompts that are answered together."""
    tenant_salt: bytes = b""
    """The cached prompts of one tenant are not found by another; adapters' virtual tokens are everybody's."""
