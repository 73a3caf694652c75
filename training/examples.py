"""Rows become token ids with their prompt masked out, and batches of them. Reads no file and knows no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from adapters.chat_format import ChatFormat
from training.data import Row

IGNORED_LABEL = -100
"""The label that the cross entropy leaves out."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row in tokens, cut at the run's max_length: a long prompt leaves no answer. `answer` is the whole text."""

    prompt_ids: list[int]
    answer_ids: list[int]
    answer: str

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)

    def features(self) -> dict[str, list[int]]:
        """What a causal language model is trained on: `input_ids`, and `labels` at the answer's positions only."""
        return {
            "input_ids": self.prompt_ids + self.answer_ids,
            "labels": [IGNORED_LABEL] * len(self.prompt_ids) + self.answer_ids,
        }


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """The examples of a data file, and how many of them were cut, lost all their answer by it, or never had one."""

    examples: list[Example]
    num_cut: int
    num_empty: int

    @property
    def answered(self) -> list[Example]:
        """Those with something left to learn or to measure."""
        return [example for example in self.examples if example.answer_ids]

    @property
    def num_lost(self) -> int:
        return len(self.examples) - len(self.answered)

    @property
    def longest(self) -> int:
        return max(example.length for example in self.examples)


def encode_rows(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, *, max_length: int
) -> EncodedRows:
    """Prompt as the chat format renders it, answer with EOS, cut at `max_length`.

    A row whose prompt alone fills `max_length` teaches nothing, but keeps its place in the order.
    Raises ChatFormatError.
    """
    examples = []
    num_cut = 0
    for row in rows:
        prompt_ids = chat_format.encode([{"role": "user", "content": row.question}], tokenizer)
        answer_ids = tokenizer(row.output + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        kept = answer_ids[: max(0, max_length - len(prompt_ids))]
        num_cut += len(kept) < len(answer_ids)
        examples.append(Example(prompt_ids[:max_length], kept, row.output))
    num_empty = sum(not row.output.strip() for row in rows)
    return EncodedRows(examples, num_cut, num_empty)


@dataclass(frozen=True, slots=True)
class Collator:
    """Features as one batch, padded on the right: a soft prompt must stand directly before its text."""

    pad_id: int

    def __call__(self, features: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels`, each `[batch, longest]`."""
        width = max(len(feature["input_ids"]) for feature in features)
        ids = [_padded(feature["input_ids"], width, self.pad_id) for feature in features]
        labels = [_padded(feature["labels"], width, IGNORED_LABEL) for feature in features]
        mask = [_padded([1] * len(feature["input_ids"]), width, 0) for feature in features]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor(labels),
        }


def length_groups(batch: dict[str, torch.Tensor], *, rows_per_group: int) -> Iterator[dict[str, torch.Tensor]]:
    """The rows of a batch in groups of like length, shortest first, without the padding that a group does not need."""
    lengths = batch["attention_mask"].sum(dim=1)
    for rows in lengths.argsort(stable=True).split(rows_per_group):
        width = int(lengths[rows].max())
        yield {name: tensor[rows, :width] for name, tensor in batch.items()}


def _padded(values: list[int], width: int, filler: int) -> list[int]:
    return values + [filler] * (width - len(values))
