"""The base model, frozen, with a trainable soft prompt before it. Knows no data and no training loop."""

from dataclasses import dataclass

from peft import PeftModel, PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from transformers import PreTrainedModel, set_seed

from adapters.base_model import BaseModel
from training.config import DEFAULT_NUM_VIRTUAL_TOKENS, TrainConfig

_INITS = {
    "text": PromptTuningInit.TEXT,
    "vocab": PromptTuningInit.SAMPLE_VOCAB,
    "random": PromptTuningInit.RANDOM,
}


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How many numbers are trained, out of how many."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total


def add_soft_prompt(weights: PreTrainedModel, base: BaseModel, config: TrainConfig) -> PeftModel:
    """PEFT's prompt tuning over frozen weights, initialised as the configuration says; the prompt is float32."""
    set_seed(config.seed)
    uses_text = config.prompt_tuning_init == "text"
    peft_config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=num_virtual_tokens(base, config),
        prompt_tuning_init=_INITS[config.prompt_tuning_init],
        prompt_tuning_init_text=config.init_text if uses_text else None,
        tokenizer_name_or_path=str(base.path) if uses_text else None,
    )
    return get_peft_model(weights, peft_config)


def num_virtual_tokens(base: BaseModel, config: TrainConfig) -> int:
    """The configured length, or that of the initial text in tokens."""
    if config.num_virtual_tokens is not None:
        return config.num_virtual_tokens
    if config.prompt_tuning_init == "text":
        return len(base.tokenizer(config.init_text)["input_ids"])
    return DEFAULT_NUM_VIRTUAL_TOKENS


def max_positions(weights: PreTrainedModel) -> int | None:
    """How many tokens, virtual ones counted, the base model was made for; None where nothing says so (ALiBi)."""
    limit: int | None = getattr(weights.config.get_text_config(), "max_position_embeddings", None)
    return limit


def count_parameters(model: PeftModel) -> ParameterCount:
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return ParameterCount(trainable, sum(parameter.numel() for parameter in model.parameters()))
