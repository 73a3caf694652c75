"""The base model, frozen, with a trainable adapter of PEFT's. Knows no training loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel, set_seed

from adapters.base_model import BaseModel
from adapters.files import MAX_FILE_BYTES
from adapters.tensor_file import WEIGHTS_FILE
from training.config import TrainConfig
from training.errors import ConfigError
from training.examples import Example
from training.methods import DEFAULT_NUM_VIRTUAL_TOKENS
from training.peft_configs import peft_config
from training.starts import (
    read_start,
    start_encoder_from_text,
    start_from_adapter,
    start_from_labels,
    start_from_text,
    start_tasks_alike,
)

_DELTAS = ("lora", "ia3")
_HEADER_ROOM = 1 << 20
_BYTES_PER_NUMBER = 4


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How many numbers are trained, out of how many."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total


def add_adapter(
    weights: PreTrainedModel, base: BaseModel, config: TrainConfig, examples: Sequence[Example]
) -> PeftModel:
    """One of PEFT's methods over frozen weights, started as the configuration says; what is trained is float32.

    `examples` are what a start from labels looks at. Raises ConfigError.
    """
    set_seed(config.seed)
    start = read_start(config)
    wanted = peft_config(config, base, num_virtual_tokens=num_virtual_tokens(base, config))
    try:
        model = get_peft_model(weights, wanted)
    except ValueError as error:  # target modules that the base does not have, or no choice of PEFT's for its type
        raise ConfigError([f"method: {config.method} on {base.name}: {error}"]) from error
    if start is not None:
        start_from_adapter(model, start, config, base)
    else:
        _start(model, base, config, examples)
    if config.method == "multitask_prompt_tuning":
        _choose_task(model, config.task_id)
    _check_size(model, config)
    return model


def _start(model: PeftModel, base: BaseModel, config: TrainConfig, examples: Sequence[Example]) -> None:
    """What PEFT's own configs cannot say of a start."""
    if config.method == "prompt_tuning" and config.prompt_tuning_init == "labels":
        start_from_labels(model, base.tokenizer, examples)
    elif config.method == "p_tuning" and config.starts_from_text:
        start_encoder_from_text(model, base.tokenizer, config.init_text)
    elif config.method == "prefix_tuning" and config.starts_from_text:
        start_from_text(model, base.tokenizer, config.init_text)
    elif config.method == "multitask_prompt_tuning":
        start_tasks_alike(model)


def remove_adapter(model: PeftModel) -> None:
    """Leave the base as it was before `add_adapter`: only weight deltas lie in it."""
    if not model.active_peft_config.is_prompt_learning:
        tuner: Any = model.base_model
        tuner.unload()


def num_virtual_tokens(base: BaseModel, config: TrainConfig) -> int:
    """The configured length, or that of the adapter or the text that it starts from; 0 of a method without any."""
    if config.method in _DELTAS:
        return 0
    if config.num_virtual_tokens is not None:
        return config.num_virtual_tokens
    start = read_start(config)
    if start is not None:
        return start[1].manifest.num_virtual_tokens
    if config.starts_from_text:
        return len(base.tokenizer(config.init_text)["input_ids"])
    return DEFAULT_NUM_VIRTUAL_TOKENS


def max_positions(weights: PreTrainedModel) -> int | None:
    """How many tokens, virtual ones counted, the base model was made for; None where nothing says so (ALiBi)."""
    limit: int | None = getattr(weights.config.get_text_config(), "max_position_embeddings", None)
    return limit


def virtual_tokens_of(model: PeftModel) -> int:
    """0 of weight deltas."""
    return int(getattr(model.active_peft_config, "num_virtual_tokens", None) or 0)


def count_parameters(model: PeftModel) -> ParameterCount:
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return ParameterCount(trainable, sum(parameter.numel() for parameter in model.parameters()))


def _choose_task(model: PeftModel, task: int) -> None:
    """Let the encoder compose one task's prompt: all rows of a run are of that task, and PEFT's paths name none."""
    encoder: Any = model.prompt_encoder[model.active_adapter]
    encoder.forward = partial(_of_task, encoder.forward, task)


def _of_task(compose: Any, task: int, indices: torch.Tensor, task_ids: torch.Tensor | None = None) -> Any:
    del task_ids
    return compose(indices, torch.tensor([task], device=indices.device))


def _check_size(model: PeftModel, config: TrainConfig) -> None:
    """Raises ConfigError for an adapter that would be too large to publish; P-tuning saves less than it trains."""
    size = count_parameters(model).trainable * _BYTES_PER_NUMBER
    limit = MAX_FILE_BYTES[WEIGHTS_FILE] - _HEADER_ROOM
    if config.method != "p_tuning" and size > limit:
        raise ConfigError([f"method: {config.method} would train {size:,} bytes here, over the limit of {limit:,}"])
