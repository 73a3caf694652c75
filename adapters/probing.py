"""Answers probes by PEFT's own path, one by one: what makes and checks them offline. A server never imports it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from adapters.base_model import NUMBER_TYPES
from adapters.probes import NumberType, Probe


def number_type_of(model: PeftModel) -> NumberType:
    """What the base model under an adapter computes in."""
    return NUMBER_TYPES[base_of(model).dtype]


def base_of(model: PeftModel) -> PreTrainedModel:
    """The transformers model under an adapter."""
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    return base


def make_probe(model: PeftModel, prompt_ids: Sequence[int], *, max_tokens: int, stop_ids: Sequence[int]) -> Probe:
    """A prompt with the greedy answer to it, up to its first stop token or `max_tokens`."""
    with answering(model):
        expected = greedy_answer(model, prompt_ids, max_tokens=max_tokens, stop_ids=stop_ids)
        mean = given_answer(model, prompt_ids, expected).mean_logprob
    return Probe(prompt_ids=tuple(prompt_ids), expected_ids=expected, mean_logprob=min(mean, 0.0))


@contextmanager
def answering(model: PeftModel) -> Iterator[None]:
    """The model without dropout and gradients; afterwards it is in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(mode=was_training)


def greedy_answer(
    model: PeftModel, prompt_ids: Sequence[int], *, max_tokens: int, stop_ids: Sequence[int] = ()
) -> tuple[int, ...]:
    """The likeliest tokens behind a prompt, the stop token included if there is one."""
    inputs = torch.tensor([list(prompt_ids)], device=model.device)
    made: torch.Tensor = model.generate(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            use_cache=True,
            max_new_tokens=max_tokens,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=stop_ids[0] if stop_ids else 0,
        ),
    )
    return tuple(made[0, len(prompt_ids) :].tolist())


def base_answer(model: PeftModel, prompt_ids: Sequence[int], *, max_tokens: int) -> tuple[int, ...]:
    """The same of the base model alone."""
    with model.disable_adapter():
        return greedy_answer(model, prompt_ids, max_tokens=max_tokens)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """What a model says of an answer that is given, in nats: its tokens' mean log-probability, and how much likelier
    the first choice is than its first token."""

    mean_logprob: float
    first_gap: float


def given_answer(model: PeftModel, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> GivenAnswer:
    """What the model says of an answer behind a prompt, in one pass over both."""
    ids = torch.tensor([[*prompt_ids, *answer_ids]], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]  # [virtual + T, V], or [T, V]
    of_answer = logits[-len(answer_ids) - 1 : -1].float().log_softmax(dim=-1)
    targets = torch.tensor(list(answer_ids), device=model.device)
    logprobs = of_answer.gather(1, targets[:, None]).double()
    return GivenAnswer(float(logprobs.mean()), float(of_answer[0].max() - logprobs[0, 0]))
