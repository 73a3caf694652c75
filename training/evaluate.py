"""Held-out loss and exact match of a base model, with a soft prompt or without. Changes nothing and writes no file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from training.examples import Collator, Example
from training.loss import summed_answer_loss
from training.model import max_positions

_SPARE_TOKENS = 8
"""How much longer than the expected answer a generated one may be: other tokens may spell the same text."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`loss` in nats per answer token; `exact_match` is the share of rows whose greedy answer is the expected one."""

    loss: float
    exact_match: float


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Measures a model on held-out examples. `max_new_tokens` None follows the length of the expected answers."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    batch_size: int
    max_new_tokens: int | None

    def evaluate(self, soft_prompt: torch.Tensor | None, *, advance: Callable[[int], None]) -> Evaluation:
        """Measure the bare model (None), or with a soft prompt `[num_virtual_tokens, hidden_size]`.

        `advance` is told of every batch that is done, in rows.
        """
        self.model.eval()
        loss, num_tokens, num_exact = 0.0, 0, 0
        with torch.no_grad():
            for batch in self._batches():
                batch_loss, batch_tokens = self._loss(batch, soft_prompt)
                loss += batch_loss
                num_tokens += batch_tokens
                num_exact += self._num_exact(batch, soft_prompt)
                advance(len(batch))
        return Evaluation(loss / num_tokens, num_exact / len(self.examples))

    def _batches(self) -> Iterator[list[Example]]:
        """Batches of rows of like length, longest first, so that memory runs out at once or not at all."""
        ordered = sorted(self.examples, key=lambda example: example.length, reverse=True)
        for start in range(0, len(ordered), self.batch_size):
            yield ordered[start : start + self.batch_size]

    def _loss(self, batch: list[Example], soft_prompt: torch.Tensor | None) -> tuple[float, int]:
        inputs = Collator(pad_id=self._stop_ids[0])([example.features() for example in batch])
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        embeddings = self.model.get_input_embeddings()(inputs["input_ids"])
        mask = inputs["attention_mask"]
        num_virtual_tokens = 0
        if soft_prompt is not None:
            num_virtual_tokens = len(soft_prompt)
            rows = soft_prompt.to(embeddings).expand(len(batch), -1, -1)
            embeddings = torch.cat([rows, embeddings], dim=1)
            mask = torch.cat([mask.new_ones(len(batch), num_virtual_tokens), mask], dim=1)
        total, count = summed_answer_loss(
            self.model,
            labels=inputs["labels"],
            num_virtual_tokens=num_virtual_tokens,
            inputs_embeds=embeddings,
            attention_mask=mask,
        )
        return float(total), count

    def _num_exact(self, batch: list[Example], soft_prompt: torch.Tensor | None) -> int:
        answers = generate_greedily(
            self.model,
            soft_prompt,
            [example.prompt_ids for example in batch],
            max_new_tokens=self._num_new_tokens(batch, 0 if soft_prompt is None else len(soft_prompt)),
            stop_ids=self._stop_ids,
        )
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return sum(text.strip() == example.answer.strip() for text, example in zip(texts, batch, strict=True))

    def _num_new_tokens(self, batch: list[Example], num_virtual_tokens: int) -> int:
        """As many as an exact answer can need, and no more than the base model has positions for."""
        wanted = self.max_new_tokens or max(len(example.answer_ids) for example in batch) + _SPARE_TOKENS
        limit = max_positions(self.model)
        if limit is None:
            return wanted
        return min(wanted, limit - num_virtual_tokens - max(len(example.prompt_ids) for example in batch))

    @property
    def _stop_ids(self) -> list[int]:
        """The tokenizer's EOS, and what else the base model ends an answer with."""
        configured = self.model.generation_config.eos_token_id
        others = configured if isinstance(configured, list) else [configured]
        return list(dict.fromkeys(id_ for id_ in [self.tokenizer.eos_token_id, *others] if id_ is not None))


def generate_greedily(
    model: PreTrainedModel,
    soft_prompt: torch.Tensor | None,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: list[int],
) -> list[list[int]]:
    """The answers to token-id prompts, in one batch, without the stop token.

    Padding stands before the soft prompt, not between it and the text, so that every row has the positions that it has
    alone: absolute, rotary and ALiBi positions alike.
    """
    embed = model.get_input_embeddings()
    rows = [embed(torch.tensor([prompt], device=model.device))[0] for prompt in prompts]  # each [length, hidden]
    if soft_prompt is not None:
        rows = [torch.cat([soft_prompt.to(row), row]) for row in rows]
    width = max(len(row) for row in rows)
    inputs_embeds = torch.stack([torch.cat([row.new_zeros(width - len(row), row.shape[1]), row]) for row in rows])
    attention_mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    generated: torch.Tensor = model.generate(  # type: ignore[operator]
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            use_cache=True,
            max_new_tokens=max_new_tokens,
            eos_token_id=stop_ids,
            pad_token_id=stop_ids[0],
        ),
    )
    return [_before_stop(answer, stop_ids) for answer in generated.tolist()]


def _before_stop(ids: list[int], stop_ids: list[int]) -> list[int]:
    end = next((position for position, id_ in enumerate(ids) if id_ in stop_ids), len(ids))
    return ids[:end]
