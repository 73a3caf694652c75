"""Conversations become token ids with all but answers masked, and batches of them. Reads no file, knows no model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from adapters.errors import ChatFormatError
from training.conversation import Conversation
from training.errors import DataError
from training.model_format import ModelFormat

IGNORED_LABEL = -100
"""The label that the cross entropy leaves out."""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation in tokens up to its last answer, cut at the run's max_length: a long prompt leaves no answer.

    `answer` is the whole text. `earlier` has the labels of the answers that stand inside the prompt, by position.
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    answer: str
    earlier: Mapping[int, int] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)

    @property
    def labels(self) -> list[int]:
        """What is learnt at each position: the token that should stand there, or IGNORED_LABEL."""
        return [self.earlier.get(i, IGNORED_LABEL) for i in range(len(self.prompt_ids))] + self.answer_ids

    @property
    def is_lost(self) -> bool:
        """Whether nothing is left to learn."""
        return not self.answer_ids and not self.earlier

    def features(self) -> dict[str, list[int]]:
        """What a causal language model is trained on: `input_ids`, and `labels` at the answers' positions only."""
        return {"input_ids": self.prompt_ids + self.answer_ids, "labels": self.labels}


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """The examples of rows, and how many of them were cut, lost all their answers by it, or never had one.

    `num_separate` rows became an example for each answer, since their chat template shows earlier turns otherwise.
    """

    examples: list[Example]
    num_cut: int
    num_empty: int
    num_separate: int

    @property
    def answered(self) -> list[Example]:
        """Those with a last answer left to measure."""
        return [example for example in self.examples if example.answer_ids]

    @property
    def num_lost(self) -> int:
        return sum(example.is_lost for example in self.examples)

    @property
    def longest(self) -> int:
        return max(example.length for example in self.examples)


def encode_rows(rows: Sequence[Conversation], model_format: ModelFormat, *, max_length: int) -> EncodedRows:
    """Prompts as the model sees them, answers with EOS, cut at `max_length`.

    A row whose prompt alone fills `max_length` teaches nothing, but keeps its place in the order.
    Raises DataError with every row that the chat template refuses, ChatFormatError when it refuses them all.
    """
    examples: list[Example] = []
    problems: list[str] = []
    refusals: list[ChatFormatError] = []
    num_cut = num_empty = num_separate = 0
    for row in rows:
        try:
            whole = encode_conversation(row, model_format)
        except DataError as error:
            problems.extend(error.problems)
            continue
        except ChatFormatError as error:
            problems.append(f"{row.place}, {error}")
            refusals.append(error)
            continue
        num_separate += len(whole) > 1
        num_empty += not whole[-1].answer.strip()
        num_cut += any(example.length > max_length for example in whole)
        examples.extend(_cut(example, max_length) for example in whole)
    if len(refusals) == len(rows):
        raise refusals[0]
    if problems:
        raise DataError(problems)
    return EncodedRows(examples, num_cut, num_empty, num_separate)


def encode_conversation(row: Conversation, model_format: ModelFormat) -> list[Example]:
    """One example with every answer of a conversation labelled, or one for each answer.

    Each answer follows its prompt exactly as the server renders and cuts that prompt into tokens. They fit into one
    example where each prompt goes on where the answer before it ended; a template that shows earlier turns otherwise
    (without their thoughts, say) gives an example for each. Raises ChatFormatError and DataError.
    """
    turns = [_turn(row, index, model_format) for index in row.turns]
    earlier: dict[int, int] = {}
    for turn, following in pairwise(turns):
        if not _goes_on(turn, following.prompt_ids):
            return turns
        earlier |= dict(enumerate(turn.answer_ids, start=len(turn.prompt_ids)))
    return [Example(turns[-1].prompt_ids, turns[-1].answer_ids, turns[-1].answer, earlier)]


def _goes_on(turn: Example, following: list[int]) -> bool:
    """Whether a later prompt begins with this turn. Something else than EOS may stand behind the answer: a line break,
    say; there the label alone says EOS, which is what the model is to say there."""
    start, end = len(turn.prompt_ids), turn.length
    return (
        len(following) >= end
        and following[:start] == turn.prompt_ids
        and following[start : end - 1] == turn.answer_ids[:-1]
    )


def _turn(row: Conversation, index: int, model_format: ModelFormat) -> Example:
    """The prompt before one answer, and the answer."""
    prompt = model_format.prompt(row.messages[:index], row.tools)
    answer = _answer(row, index, prompt.text, model_format)
    return Example(prompt.token_ids, model_format.tokens(answer + model_format.eos_token), answer)


def _answer(row: Conversation, index: int, before: str, model_format: ModelFormat) -> str:
    """What the assistant says in one turn: its text; with calls or thoughts, what the template makes of them."""
    message = row.messages[index]
    if "tool_calls" not in message and "reasoning_content" not in message:
        return str(message["content"])
    whole = model_format.whole(row.messages[: index + 1], row.tools)
    if not whole.startswith(before):
        raise DataError([f"{row.place}: the chat template does not let message {index} follow the prompt before it"])
    return whole[len(before) :].rstrip().removesuffix(model_format.eos_token)


def _cut(example: Example, max_length: int) -> Example:
    kept = example.answer_ids[: max(0, max_length - len(example.prompt_ids))]
    earlier = {position: label for position, label in example.earlier.items() if position < max_length}
    return Example(example.prompt_ids[:max_length], kept, example.answer, earlier)


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
