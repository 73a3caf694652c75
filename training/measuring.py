"""Which way a base, or an adapter on it, is measured on held-out rows. Computes nothing itself."""

from collections.abc import Callable, Sequence

import torch
from peft import PeftModel

from training.batch_loss import BatchLoss
from training.evaluate import Evaluation, Evaluator, InBatches, Subject
from training.examples import IGNORED_LABEL, Collator, Example
from training.one_by_one import OneByOne

_ROWS_PER_BATCH = 16


def measure_base(evaluator: Evaluator, model: PeftModel, *, advance: Callable[[int], None]) -> Evaluation:
    """Of the base alone. `advance` is told of rows that are done."""
    with model.disable_adapter():
        return evaluator.evaluate(None, advance=advance)


def measure_adapter(evaluator: Evaluator, model: PeftModel, *, advance: Callable[[int], None]) -> Evaluation:
    """Of the adapter on its base."""
    return evaluator.measure(_subject(evaluator, model), advance=advance)


def held_out_loss(loss: BatchLoss, examples: Sequence[Example], *, device: torch.device) -> float:
    """Mean cross entropy in nats per answer token, the way training computes it; nothing is generated."""
    total, tokens = 0.0, 0
    collate = Collator(pad_id=0)
    ordered = sorted(examples, key=lambda example: example.length)
    with torch.no_grad():
        for start in range(0, len(ordered), _ROWS_PER_BATCH):
            features = [example.features() for example in ordered[start : start + _ROWS_PER_BATCH]]
            batch = {name: tensor.to(device) for name, tensor in collate(features).items()}
            total += sum(piece.item() for piece in loss.pieces(batch))
            tokens += int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())
    return total / max(tokens, 1)


def _subject(evaluator: Evaluator, model: PeftModel) -> Subject:
    """Weight deltas lie in the base's own layers; given keys and values are measured row by row, without padding."""
    config = model.active_peft_config
    if not config.is_prompt_learning:
        return InBatches(evaluator.model, None)
    if config.peft_type == "PREFIX_TUNING":
        return OneByOne(model)
    return InBatches(evaluator.model, model.get_prompt(batch_size=1)[0].detach())
