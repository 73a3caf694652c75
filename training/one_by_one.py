"""OneByOne: measures any adapter by PEFT's own path, a row at a time. Slow, and right for every kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from adapters.probing import answering, greedy_answer
from training.evaluate import before_stop
from training.examples import IGNORED_LABEL, Example
from training.row_losses import RowLoss


@dataclass(frozen=True, slots=True)
class OneByOne:
    """A Subject. Padding beside given keys and values would move positions, so nothing is padded."""

    model: PeftModel

    @property
    def num_virtual_tokens(self) -> int:
        return int(getattr(self.model.active_peft_config, "num_virtual_tokens", None) or 0)

    def losses(self, batch: Sequence[Example], *, pad_id: int) -> list[RowLoss]:
        del pad_id
        with answering(self.model):
            return [self._loss(example) for example in batch]

    def answers(self, batch: Sequence[Example], *, max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        with answering(self.model):
            return [
                before_stop(
                    list(greedy_answer(self.model, example.prompt_ids, max_tokens=max_new_tokens, stop_ids=stop_ids)),
                    stop_ids,
                )
                for example in batch
            ]

    def _loss(self, example: Example) -> RowLoss:
        features = example.features()
        ids = torch.tensor([features["input_ids"]], device=self.model.device)
        labels = torch.tensor(features["labels"][1:], device=self.model.device)
        logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        logits = logits[-ids.shape[1] : -1]  # of the text alone, also where virtual tokens have logits too
        wanted = labels != IGNORED_LABEL
        total = cross_entropy(logits[wanted].float(), labels[wanted], reduction="sum")
        return RowLoss(float(total), int(wanted.sum()))
