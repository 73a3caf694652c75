"""A run's settings as the config of one of PEFT's methods. Makes no module and reads no file."""

from collections.abc import Callable, Mapping

from peft import (
    IA3Config,
    LoraConfig,
    MultitaskPromptTuningConfig,
    MultitaskPromptTuningInit,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
)

from adapters.base_model import BaseModel
from training.config import TrainConfig
from training.methods import Method

_FAN_IN_FAN_OUT = ("gpt2",)
"""Model types whose linear modules hold their weight the other way round."""


def peft_config(config: TrainConfig, base: BaseModel, *, num_virtual_tokens: int) -> PeftConfig:
    """What PEFT makes the adapter from. Starts that PEFT does not know begin at random, and are set afterwards."""
    return _MAKERS[config.method](config, base, num_virtual_tokens)


def _prompt_tuning(config: TrainConfig, base: BaseModel, num_virtual_tokens: int) -> PeftConfig:
    uses_text = config.prompt_tuning_init == "text" and config.init_adapter is None
    inits = {"text": PromptTuningInit.TEXT, "vocab": PromptTuningInit.SAMPLE_VOCAB}
    init = PromptTuningInit.RANDOM if config.init_adapter else inits.get(config.prompt_tuning_init)
    if config.prompt_tuning_init == "labels":
        init = PromptTuningInit.SAMPLE_VOCAB  # for the rows that no label fills
    return PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=num_virtual_tokens,
        prompt_tuning_init=init or PromptTuningInit.RANDOM,
        prompt_tuning_init_text=config.init_text if uses_text else None,
        tokenizer_name_or_path=str(base.path) if uses_text else None,
    )


def _multitask(config: TrainConfig, base: BaseModel, num_virtual_tokens: int) -> PeftConfig:
    uses_text = config.prompt_tuning_init == "text" and config.init_adapter is None
    return MultitaskPromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=num_virtual_tokens,
        num_tasks=config.num_tasks,
        prompt_tuning_init=MultitaskPromptTuningInit.TEXT if uses_text else MultitaskPromptTuningInit.RANDOM,
        prompt_tuning_init_text=config.init_text if uses_text else None,
        tokenizer_name_or_path=str(base.path) if uses_text else None,
    )


def _p_tuning(config: TrainConfig, base: BaseModel, num_virtual_tokens: int) -> PeftConfig:
    return PromptEncoderConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=num_virtual_tokens,
        encoder_hidden_size=config.encoder_hidden_size or base.identity.hidden_size,
    )


def _prefix_tuning(config: TrainConfig, base: BaseModel, num_virtual_tokens: int) -> PeftConfig:
    del base
    return PrefixTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=num_virtual_tokens,
        init_weights="zero" if config.prefix_tuning_init == "zero" else None,
    )


def _lora(config: TrainConfig, base: BaseModel, num_virtual_tokens: int) -> PeftConfig:
    del num_virtual_tokens
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.target_modules) if config.target_modules else "all-linear",
        fan_in_fan_out=base.identity.model_type in _FAN_IN_FAN_OUT,
    )


def _ia3(config: TrainConfig, base: BaseModel, num_virtual_tokens: int) -> PeftConfig:
    """PEFT's own choice of modules for the base's type."""
    del config, num_virtual_tokens
    return IA3Config(task_type=TaskType.CAUSAL_LM, fan_in_fan_out=base.identity.model_type in _FAN_IN_FAN_OUT)


_MAKERS: Mapping[Method, Callable[[TrainConfig, BaseModel, int], PeftConfig]] = {
    "prompt_tuning": _prompt_tuning,
    "p_tuning": _p_tuning,
    "prefix_tuning": _prefix_tuning,
    "multitask_prompt_tuning": _multitask,
    "lora": _lora,
    "ia3": _ia3,
}
