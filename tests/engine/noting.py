"""Notes the logits that an engine samples from, step by step."""

from collections import defaultdict
from collections.abc import Sequence as Items

import torch

from adapters.injections import Injection
from server.engine.batch import Batch
from server.engine.engine import Engine
from server.engine.forward import Forward
from server.engine.step_inputs import KVPlacement, StepInputs
from tests.engine.build import runner_of


class Noting:
    """A forward pass that keeps the logits of each request that samples, step by step."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.device = forward.device
        self.input_dtype = forward.input_dtype
        self.logits_of: defaultdict[int, list[torch.Tensor]] = defaultdict(list)

    def require_fit(self, injection: Injection) -> None:
        self._forward.require_fit(injection)

    def write_kv(self, placements: Items[KVPlacement]) -> None:
        self._forward.write_kv(placements)

    def logits(self, batch: Batch, inputs: StepInputs, rows: Items[int]) -> torch.Tensor:
        logits = self._forward.logits(batch, inputs, rows)
        for item, row in zip([item for item in batch.items if item.samples], logits, strict=True):
            self.logits_of[item.sequence.request_id].append(row)
        return logits

    def logits_and_hidden(
        self, batch: Batch, inputs: StepInputs, rows: Items[int], hidden_rows: Items[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._forward.logits_and_hidden(batch, inputs, rows, hidden_rows)


def noting_of(engine: Engine) -> Noting:
    """Put one into an engine."""
    runner = runner_of(engine)
    noting = Noting(runner._forward)
    runner._forward = noting
    return noting
