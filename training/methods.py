"""The methods of training: their names, default rates, and which settings mean something to each. Reads nothing."""

from collections.abc import Mapping
from typing import Literal

DEFAULT_INIT_TEXT = "Read the message and give the answer that is asked for, in the same form as in the examples."
DEFAULT_NUM_VIRTUAL_TOKENS = 20
"""Length of a soft prompt that starts from the vocabulary or at random."""

Method = Literal["prompt_tuning", "p_tuning", "prefix_tuning", "multitask_prompt_tuning", "lora", "ia3"]

REFUSED_METHODS: Mapping[str, str] = {
    "freeze": (
        "is not made: it trains whole layers of the base, and what changes in them is of full rank, so each adapter "
        "would be as large as its layers and could not be mixed with others in one batch; use lora, with "
        "target_modules naming the modules of these layers (layers.29.mlp.down_proj) and a higher lora_r"
    )
}
"""Methods that are asked for and not made here, and what to use instead."""
DEFAULT_LEARNING_RATES: Mapping[str, float] = {
    "prompt_tuning": 2e-2,
    "p_tuning": 3e-4,
    "prefix_tuning": 1.5e-2,
    "multitask_prompt_tuning": 3e-2,
    "lora": 2e-3,
    "ia3": 1e-2,
}
METHODS_OF_KEYS: Mapping[str, tuple[Method, ...]] = {
    "prompt_tuning_init": ("prompt_tuning", "p_tuning", "multitask_prompt_tuning"),
    "prompt_tuning_init_text": ("prompt_tuning", "p_tuning", "multitask_prompt_tuning", "prefix_tuning"),
    "prefix_tuning_init": ("prefix_tuning",),
    "num_virtual_tokens": ("prompt_tuning", "p_tuning", "prefix_tuning", "multitask_prompt_tuning"),
    "num_tasks": ("multitask_prompt_tuning",),
    "task_id": ("multitask_prompt_tuning",),
    "encoder_hidden_size": ("p_tuning",),
    "init_adapter": ("prompt_tuning", "prefix_tuning", "multitask_prompt_tuning", "lora", "ia3"),
    "lora_r": ("lora",),
    "lora_alpha": ("lora",),
    "target_modules": ("lora",),
}
"""What keys of one method mean nothing to others."""
