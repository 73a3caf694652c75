"""Finds the sequence that breaks a step, so that its neighbours go on. Knows no model and no tensors."""

import logging
from collections.abc import Callable

from server.engine.batch import Batch, StepResult

logger = logging.getLogger(__name__)


def run_isolated(run: Callable[[Batch], StepResult], batch: Batch) -> StepResult:
    """Run a batch; where it raises, run its halves, down to the sequence that is to blame.

    Costs nothing while nothing fails. `run` must be safe to repeat for the same sequences.
    """
    try:
        return run(batch)
    except Exception as error:
        if len(batch.items) <= 1:
            logger.exception("a sequence cannot be computed")
            return StepResult({}, {item.sequence.request_id: error for item in batch.items})
    left, right = (run_isolated(run, half) for half in batch.halves())
    return StepResult(
        left.tokens | right.tokens,
        left.failures | right.failures,
        left.logprobs | right.logprobs,
        {**left.hidden_sums, **right.hidden_sums},
        {**left.prompt_logprobs, **right.prompt_logprobs},
    )
