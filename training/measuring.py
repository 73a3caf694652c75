"""Which way a base, or an adapter on it, is measured on held-out rows. Computes nothing itself."""

from collections.abc import Callable

from peft import PeftModel

from training.evaluate import Evaluation, Evaluator, InBatches, Subject
from training.one_by_one import OneByOne


def measure_base(evaluator: Evaluator, model: PeftModel, *, advance: Callable[[int], None]) -> Evaluation:
    """Of the base alone. `advance` is told of rows that are done."""
    with model.disable_adapter():
        return evaluator.evaluate(None, advance=advance)


def measure_adapter(evaluator: Evaluator, model: PeftModel, *, advance: Callable[[int], None]) -> Evaluation:
    """Of the adapter on its base."""
    return evaluator.measure(_subject(evaluator, model), advance=advance)


def _subject(evaluator: Evaluator, model: PeftModel) -> Subject:
    """Weight deltas lie in the base's own layers; given keys and values are measured row by row, without padding."""
    config = model.active_peft_config
    if not config.is_prompt_learning:
        return InBatches(evaluator.model, None)
    if config.peft_type == "PREFIX_TUNING":
        return OneByOne(model)
    return InBatches(evaluator.model, model.get_prompt(batch_size=1)[0].detach())
