"""Our own reading of PEFT's adapter_config.json: a whitelist of plain values. Never handed to peft, opens no file."""

import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import AdapterInvalid, AdapterUnsupported
from adapters.manifest import AdapterKind
from adapters.peft_types import ADAPTER_HUB, REFUSED, SERVED

CONFIG = "adapter_config.json"

MAX_VIRTUAL_TOKENS = 4096
"""Longest soft prompt or prefix that is read; bounds what a small file can make us allocate."""
MAX_RANK = 256
MAX_TASKS = 1024
MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20


class PeftConfig(BaseModel):
    """The values of adapter_config.json that one kind needs; every other key is ignored and never interpreted.

    Format: https://huggingface.co/docs/peft (the config class of each method).
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    refused: ClassVar[dict[str, str]] = {}
    """Settings that may not be on, with what they would ask for."""

    peft_type: str = Field(max_length=64)
    task_type: str | None = Field(default=None, max_length=64)

    @property
    def kind(self) -> AdapterKind:
        """The adapter's kind, as the manifest names it."""
        return SERVED[self.peft_type]

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Self:
        """Check the values. Raises AdapterInvalid, AdapterUnsupported for a setting that is not served."""
        try:
            config = cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise AdapterInvalid(CONFIG, f"'{field[:80]}': {first['msg']}") from None
        if config.task_type not in (None, "CAUSAL_LM"):
            raise AdapterUnsupported(CONFIG, f"task_type {config.task_type!r} is not CAUSAL_LM")
        for field, why in cls.refused.items():
            if raw.get(field) not in (None, False, [], {}, "none"):
                raise AdapterUnsupported(CONFIG, f"'{field}' is not served: {why}")
        return config


class _VirtualTokens(PeftConfig):
    num_virtual_tokens: int = Field(ge=1, le=MAX_VIRTUAL_TOKENS)
    num_transformer_submodules: int | None = Field(default=None, ge=1, le=2)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Self:
        config = super().read(raw)
        if config.num_transformer_submodules not in (None, 1):
            raise AdapterUnsupported(CONFIG, "an encoder-decoder adapter (num_transformer_submodules 2) is not served")
        return config


class SoftPromptConfig(_VirtualTokens):
    """Prompt tuning, P-tuning and CPT: PEFT saves the rows themselves."""

    token_dim: int | None = Field(default=None, ge=1, le=MAX_WIDTH)


class MultitaskConfig(SoftPromptConfig):
    """Multitask prompt tuning: shared rows, and a low-rank factor for each task."""

    num_tasks: int = Field(default=1, ge=1, le=MAX_TASKS)
    num_ranks: int = Field(default=1, ge=1, le=MAX_RANK)


class KVRowsConfig(_VirtualTokens):
    """Prefix tuning and cartridge: `token_dim` is `num_attention_heads` times the head's size, both of the KV heads."""

    token_dim: int = Field(ge=1, le=MAX_WIDTH)
    num_layers: int = Field(ge=1, le=MAX_LAYERS)
    num_attention_heads: int = Field(ge=1, le=MAX_WIDTH)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Self:
        config = super().read(raw)
        if config.token_dim % config.num_attention_heads:
            raise AdapterInvalid(
                CONFIG,
                f"'token_dim' {config.token_dim} is no multiple of 'num_attention_heads' {config.num_attention_heads}",
            )
        return config


class IA3Config(PeftConfig):
    """IA3: which modules it scales, and whether before or behind them, is read off the tensors."""

    refused: ClassVar[dict[str, str]] = {"modules_to_save": "whole modules would stand in for the base's"}


class LoraConfig(PeftConfig):
    """LoRA: which modules it changes is read off the tensors, its ranks and scales from here."""

    refused: ClassVar[dict[str, str]] = {
        "modules_to_save": "whole modules would stand in for the base's",
        "bias": "it changes the base's biases",
        "use_dora": "DoRA needs the norms of the base weights in each pass",
        "lora_bias": "the factors have biases",
        "layer_replication": "it makes another model of the base's layers",
        "trainable_token_indices": "it replaces rows of the embedding that all adapters share",
        "target_parameters": "it changes parameters that are no linear modules",
        "alora_invocation_tokens": "activated LoRA acts on a part of the tokens alone",
        "use_qalora": "it pools its inputs in groups",
        "use_bdlora": "its factors are block-diagonal",
        "arrow_config": "it routes among several LoRA adapters token by token",
        "kasa_config": "it takes components out of the base weights",
        "monteclora_config": "its factors are drawn at random",
    }

    r: int = Field(ge=1, le=MAX_RANK)
    lora_alpha: float = Field(ge=-1e6, le=1e6)
    use_rslora: bool = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Self:
        start = raw.get("init_lora_weights", True)
        if isinstance(start, str) and start.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
            raise AdapterUnsupported(
                CONFIG,
                f"'init_lora_weights' {start[:40]!r} is not served: it changes the base weights; save it with "
                "path_initial_model_for_weight_conversion",
            )
        return super().read(raw)


_READERS: dict[AdapterKind, type[PeftConfig]] = {
    "prompt_tuning": SoftPromptConfig,
    "p_tuning": SoftPromptConfig,
    "cpt": SoftPromptConfig,
    "multitask_prompt_tuning": MultitaskConfig,
    "prefix_tuning": KVRowsConfig,
    "cartridge": KVRowsConfig,
    "lora": LoraConfig,
    "ia3": IA3Config,
}


def parse_peft_config(content: bytes) -> PeftConfig:
    """Read and check adapter_config.json: the config class of its kind.

    Raises AdapterInvalid for what is not a legal config, AdapterUnsupported for a PEFT type that is not served.
    """
    raw = _json_object(content)
    peft_type = raw.get("peft_type")
    if peft_type is None and isinstance(raw.get("config"), dict) and "model_type" in raw:
        raise AdapterUnsupported(
            CONFIG, f"this is an adapter of AdapterHub's format, which is not served: {ADAPTER_HUB}"
        )
    if not isinstance(peft_type, str):
        raise AdapterInvalid(CONFIG, "'peft_type' is missing or not a string")
    if peft_type not in SERVED:
        why = REFUSED.get(peft_type, f"served are {', '.join(sorted(SERVED))}")
        raise AdapterUnsupported(CONFIG, f"peft_type {peft_type[:64]!r} is not served: {why}")
    return _READERS[SERVED[peft_type]].read(raw)


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        raise AdapterInvalid(CONFIG, "not valid JSON") from None
    if not isinstance(raw, dict):
        raise AdapterInvalid(CONFIG, "not a JSON object")
    return raw
