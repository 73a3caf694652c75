"""Our own reading of PEFT's adapter_config.json: a whitelist of plain values. Never handed to peft, opens no file."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import AdapterInvalid, AdapterUnsupported
from adapters.manifest import AdapterKind

MAX_VIRTUAL_TOKENS = 4096
"""Longest soft prompt that is read; bounds what a small file can make us allocate."""

_KINDS: dict[str, AdapterKind] = {"PROMPT_TUNING": "prompt_tuning", "P_TUNING": "p_tuning"}


class PeftConfig(BaseModel):
    """The values of adapter_config.json that a soft prompt needs; every other key is ignored and never interpreted.

    Format: https://huggingface.co/docs/peft (PromptTuningConfig, PromptEncoderConfig).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    peft_type: str = Field(max_length=64)
    task_type: str | None = Field(default=None, max_length=64)
    num_virtual_tokens: int = Field(ge=1, le=MAX_VIRTUAL_TOKENS)
    token_dim: int | None = Field(default=None, ge=1, le=1 << 20)
    num_transformer_submodules: int | None = Field(default=None, ge=1, le=2)

    @property
    def kind(self) -> AdapterKind:
        """The adapter's kind, as the manifest names it."""
        return _KINDS[self.peft_type]


def parse_peft_config(content: bytes) -> PeftConfig:
    """Read and check adapter_config.json.

    Raises AdapterInvalid for what is not a legal config, AdapterUnsupported for a PEFT type that is not served.
    """
    raw = _json_object(content)
    peft_type = raw.get("peft_type")
    if not isinstance(peft_type, str):
        raise AdapterInvalid("adapter_config.json", "'peft_type' is missing or not a string")
    if peft_type not in _KINDS:
        served = ", ".join(sorted(_KINDS))
        raise AdapterUnsupported(
            "adapter_config.json", f"peft_type {peft_type[:64]!r} is not served (served: {served})"
        )
    try:
        config = PeftConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise AdapterInvalid("adapter_config.json", f"'{field}': {first['msg']}") from None
    if config.task_type not in (None, "CAUSAL_LM"):
        raise AdapterUnsupported("adapter_config.json", f"task_type {config.task_type!r} is not CAUSAL_LM")
    if config.num_transformer_submodules not in (None, 1):
        raise AdapterUnsupported(
            "adapter_config.json", "an encoder-decoder adapter (num_transformer_submodules 2) is not served"
        )
    return config


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        raise AdapterInvalid("adapter_config.json", "not valid JSON") from None
    if not isinstance(raw, dict):
        raise AdapterInvalid("adapter_config.json", "not a JSON object")
    return raw
