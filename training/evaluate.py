"""Held-out loss and exact match of a base model, with a soft prompt or without. Changes nothing and writes no file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from training.examples import Collator, Example
from training.model import max_positions
from training.row_losses import RowLoss, row_losses

_SPARE_TOKENS = 8
"""How much longer than the expected answer a generated one may be: other tokens may spell the same text."""


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One held-out row with the answer that was given. `loss` is None where nobody could work it out."""

    question: str
    expected: str
    answer: str
    loss: RowLoss | None

    @property
    def is_exact(self) -> bool:
        """Whether the answer is the expected one, blanks at both ends aside."""
        return self.answer.strip() == self.expected.strip()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`loss` in nats per answer token; `exact_match` is the share of rows whose greedy answer is the expected one."""

    loss: float
    exact_match: float
    rows: tuple[MeasuredRow, ...]
    """In the order of the examples."""


class Subject(Protocol):
    """A model that can be measured: a base, or a base with an adapter."""

    @property
    def num_virtual_tokens(self) -> int: ...

    def losses(self, batch: Sequence[Example], *, pad_id: int) -> list[RowLoss]:
        """Of each example."""
        ...

    def answers(self, batch: Sequence[Example], *, max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """Greedy, without the stop token."""
        ...


@dataclass(frozen=True, slots=True)
class InBatches:
    """A transformers model as it is, or with a soft prompt `[num_virtual_tokens, hidden_size]` before each row."""

    model: PreTrainedModel
    soft_prompt: torch.Tensor | None

    @property
    def num_virtual_tokens(self) -> int:
        return 0 if self.soft_prompt is None else len(self.soft_prompt)

    def losses(self, batch: Sequence[Example], *, pad_id: int) -> list[RowLoss]:
        inputs = Collator(pad_id)([example.features() for example in batch])
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        embeddings = self.model.get_input_embeddings()(inputs["input_ids"])
        mask = inputs["attention_mask"]
        if self.soft_prompt is not None:
            rows = self.soft_prompt.to(embeddings).expand(len(batch), -1, -1)
            embeddings = torch.cat([rows, embeddings], dim=1)
            mask = torch.cat([mask.new_ones(len(batch), self.num_virtual_tokens), mask], dim=1)
        return row_losses(
            self.model,
            labels=inputs["labels"],
            num_virtual_tokens=self.num_virtual_tokens,
            inputs_embeds=embeddings,
            attention_mask=mask,
        )

    def answers(self, batch: Sequence[Example], *, max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        prompts = [example.prompt_ids for example in batch]
        return generate_greedily(
            self.model, self.soft_prompt, prompts, max_new_tokens=max_new_tokens, stop_ids=stop_ids
        )


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
        return self.measure(InBatches(self.model, soft_prompt), advance=advance)

    def measure(self, subject: Subject, *, advance: Callable[[int], None]) -> Evaluation:
        """Measure whatever answers; `model` is its base."""
        self.model.eval()
        rows: dict[int, MeasuredRow] = {}
        with torch.no_grad():
            for numbers in self._batches():
                batch = [self.examples[number] for number in numbers]
                rows |= zip(numbers, self._measured(subject, batch), strict=True)
                advance(len(batch))
        losses = [row.loss for row in rows.values() if row.loss is not None]
        return Evaluation(
            sum(loss.total for loss in losses) / sum(loss.tokens for loss in losses),
            sum(row.is_exact for row in rows.values()) / len(rows),
            tuple(rows[number] for number in range(len(rows))),
        )

    def _batches(self) -> Iterator[list[int]]:
        """Rows by number, of like length, longest first, so that memory runs out at once or not at all."""
        ordered = sorted(range(len(self.examples)), key=lambda number: self.examples[number].length, reverse=True)
        for start in range(0, len(ordered), self.batch_size):
            yield ordered[start : start + self.batch_size]

    def _measured(self, subject: Subject, batch: list[Example]) -> Iterator[MeasuredRow]:
        losses = subject.losses(batch, pad_id=self.stop_ids[0])
        max_new_tokens = self._num_new_tokens(batch, subject.num_virtual_tokens)
        answers = subject.answers(batch, max_new_tokens=max_new_tokens, stop_ids=self.stop_ids)
        for example, loss, answer in zip(batch, losses, answers, strict=True):
            question = str(self.tokenizer.decode(example.prompt_ids))
            text = str(self.tokenizer.decode(answer, skip_special_tokens=True))
            yield MeasuredRow(question, example.answer, text, loss)

    def _num_new_tokens(self, batch: list[Example], num_virtual_tokens: int) -> int:
        """As many as an exact answer can need, and no more than the base model has positions for."""
        wanted = self.max_new_tokens or max(len(example.answer_ids) for example in batch) + _SPARE_TOKENS
        limit = max_positions(self.model)
        if limit is None:
            return wanted
        return min(wanted, limit - num_virtual_tokens - max(len(example.prompt_ids) for example in batch))

    @property
    def stop_ids(self) -> list[int]:
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
    return [before_stop(answer, stop_ids) for answer in generated.tolist()]


def before_stop(ids: list[int], stop_ids: list[int]) -> list[int]:
    """An answer without its stop token and what stands behind it."""
    end = next((position for position, id_ in enumerate(ids) if id_ in stop_ids), len(ids))
    return ids[:end]
