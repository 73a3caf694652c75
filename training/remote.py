"""What a running server's models answer to held-out examples, and how likely they find the expected answers. Knows no
template and no metric."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from training.evaluate import MeasuredRow
from training.examples import IGNORED_LABEL, Example
from training.row_losses import RowLoss
from training.server_connection import ServerConnection

_AT_ONCE = 8
"""Requests that wait at the same time: the server computes them in one batch."""
_SPARE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class RemoteModels:
    """The models of a running server, asked with token ids: each sees exactly what it would see on this machine.

    `max_length` is as many tokens as a prompt and its answer may have, virtual tokens not counted.
    """

    connection: ServerConnection
    max_length: int

    def measure(
        self,
        model: str,
        examples: Sequence[Example],
        *,
        max_new_tokens: int | None,
        advance: Callable[[int], None],
    ) -> list[MeasuredRow]:
        """Ask a model for the last answer of each example, greedily, and for the log-probabilities of all its labels.

        Eight examples at a time. Raises TrainingError.
        """
        limit = max_new_tokens or max(len(example.answer_ids) for example in examples) + _SPARE_TOKENS
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            measured = []
            for row in pool.map(lambda example: self._measured(model, example, limit), examples):
                measured.append(row)
                advance(1)
        return measured

    def _measured(self, model: str, example: Example, max_new_tokens: int) -> MeasuredRow:
        room = self.max_length - len(example.prompt_ids)
        reply = self._completion(model, example.prompt_ids, max_tokens=min(max_new_tokens, room), temperature=0)
        question, answer = self._question(model, example), str(reply["text"])
        return MeasuredRow(question, example.answer, answer, self._loss(model, example))

    def _question(self, model: str, example: Example) -> str:
        reply = self.connection.ask("POST", "/detokenize", json={"model": model, "tokens": example.prompt_ids})
        try:
            return str(reply["prompt"])
        except (LookupError, TypeError):
            raise self.connection.not_ours() from None

    def _loss(self, model: str, example: Example) -> RowLoss:
        logprobs = [value for ids, positions in _scored(example) for value in self._logprobs(model, ids, positions)]
        return RowLoss(-sum(logprobs), len(logprobs))

    def _logprobs(self, model: str, ids: list[int], positions: list[int]) -> list[float]:
        """Of the tokens at these positions, each after all before it and the model's virtual tokens."""
        reply = self._completion(model, ids, max_tokens=0, echo=True, logprobs=0)
        try:
            told = reply["logprobs"]["token_logprobs"]
            return [float(told[position]) for position in positions]
        except (LookupError, TypeError, ValueError):
            raise self.connection.not_ours() from None

    def _completion(self, model: str, ids: list[int], **settings: object) -> dict[str, Any]:
        body = {"model": model, "prompt": ids, **settings}
        reply = self.connection.ask("POST", "/v1/completions", json=body)
        try:
            choice: dict[str, Any] = reply["choices"][0]
            choice["text"]
        except (LookupError, TypeError):
            raise self.connection.not_ours() from None
        return choice


def _scored(example: Example) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids, and the positions in them that are labels. Where a label is another token than the text goes on with,
    it is scored in a text of its own, that ends with it."""
    ids, labels = example.prompt_ids + example.answer_ids, example.labels
    labelled = [position for position in range(1, len(ids)) if labels[position] != IGNORED_LABEL]
    as_read = [position for position in labelled if labels[position] == ids[position]]
    if as_read:
        yield ids[: as_read[-1] + 1], as_read
    for position in labelled:
        if labels[position] != ids[position]:
            yield [*ids[:position], labels[position]], [position]
