"""Chooses prompts of a run's rows, and makes the probes that travel with its adapter. Writes no file."""

from collections.abc import Iterator, Sequence

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from adapters.chat_format import ChatFormat
from adapters.errors import ChatFormatError
from adapters.probes import Probes
from adapters.probing import base_of, make_probe, number_type_of
from training.examples import Example
from training.model import max_positions, virtual_tokens_of

NUM_PROBES = 8
ANSWER_TOKENS = 16
LONGEST_PROMPT = 512
"""In tokens: probes are replayed by every server that the adapter is uploaded to."""

_QUESTIONS = (
    "Hello!",
    "What is your name?",
    "Name three colours.",
    "What is the capital of France?",
    "Count from one to five.",
    "Write one sentence about the sea.",
    "Is this sentence in English?",
    "Say goodbye.",
)
"""What data of fewer than eight rows is filled up with."""


def make_probes(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, examples: Sequence[Example]
) -> Probes | None:
    """Eight probes from rows spread over the data, by PEFT's own path; None where no prompt fits the base model."""
    stop_ids = _stop_ids(model, tokenizer)
    prompts = choose_prompts(_prompts(tokenizer, chat_format, examples), longest=_longest_prompt(model))
    if not prompts:
        return None
    return Probes(
        dtype=number_type_of(model),
        chat_format=chat_format.fingerprint,
        items=tuple(make_probe(model, ids, max_tokens=ANSWER_TOKENS, stop_ids=stop_ids) for ids in prompts),
    )


def choose_prompts(prompts: Sequence[tuple[int, ...]], *, longest: int) -> list[tuple[int, ...]]:
    """Up to eight different prompts that are not over the length, evenly spread over those that there are."""
    fitting = list(dict.fromkeys(prompt for prompt in prompts if 0 < len(prompt) <= longest))
    if len(fitting) <= NUM_PROBES:
        return fitting
    return [fitting[index * len(fitting) // NUM_PROBES] for index in range(NUM_PROBES)]


def _prompts(
    tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, examples: Sequence[Example]
) -> list[tuple[int, ...]]:
    prompts = list(dict.fromkeys(tuple(example.prompt_ids) for example in examples if example.answer_ids))
    short = [prompt for prompt in prompts if len(prompt) <= LONGEST_PROMPT]
    return prompts if len(short) >= NUM_PROBES else [*prompts, *_questions(tokenizer, chat_format)]


def _questions(tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat) -> Iterator[tuple[int, ...]]:
    for question in _QUESTIONS:
        try:
            yield tuple(chat_format.encode([{"role": "user", "content": question}], tokenizer))
        except ChatFormatError:  # a template may take rows of one kind only
            return


def _longest_prompt(model: PeftModel) -> int:
    """What is left of the base model's positions, and no more than a probe should have."""
    limit = max_positions(base_of(model))
    if limit is None:
        return LONGEST_PROMPT
    return min(LONGEST_PROMPT, limit - virtual_tokens_of(model) - ANSWER_TOKENS)


def _stop_ids(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    config = base_of(model).generation_config
    configured = config.eos_token_id if config is not None else None
    others = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys(id_ for id_ in [tokenizer.eos_token_id, *others] if id_ is not None))
