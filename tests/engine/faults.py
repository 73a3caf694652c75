"""A runner whose results break the engine's own books: what no isolation of sequences catches."""

import threading
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from adapters.injections import Injection
from server.engine.batch import Batch, StepResult
from server.engine.constraint import TokenConstraint
from server.engine.engine import Runner


class FaultyRunner:
    """Computes as `runner` does. Each of the next `num_faults` steps gives hidden states that nobody asked for, which
    ends the engine's thread with a KeyError. While `gate` is clear, steps wait; with `holds`, a fault clears it.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.num_faults = 0
        self.holds = False
        self.gate = threading.Event()
        self.gate.set()

    def run(
        self, batch: Batch, injections: Mapping[int, Injection], constraints: Mapping[int, TokenConstraint]
    ) -> StepResult:
        self.gate.wait()
        result = self._runner.run(batch, injections, constraints)
        if self.num_faults == 0:
            return result
        self.num_faults -= 1
        if self.holds:
            self.gate.clear()
        return replace(result, hidden_sums={batch.items[0].sequence.request_id: np.zeros(1)})

    def require_fit(self, injection: Injection) -> None:
        self._runner.require_fit(injection)
