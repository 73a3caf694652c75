"""Small adapters as bytes, written without PEFT, so that each byte of them can be chosen."""

import json
from typing import Any

import safetensors.torch
import torch

from adapters.files import AdapterFiles
from adapters.manifest import BaseIdentity

WIDTH = 4


def peft_config(*, num_virtual_tokens: Any = 3, **changes: Any) -> bytes:
    """adapter_config.json of a soft prompt, with some values changed."""
    fields = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": num_virtual_tokens}
    return json.dumps(fields | changes).encode()


def random_rows(*, num_virtual_tokens: int = 3, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    """`[num_virtual_tokens, width]`, float32."""
    return torch.randn(num_virtual_tokens, width, generator=torch.Generator().manual_seed(seed))


def tensor_bytes(rows: torch.Tensor, *, name: str = "prompt_embeddings") -> bytes:
    """adapter_model.safetensors as PEFT writes it."""
    return safetensors.torch.save({name: rows}, metadata={"format": "pt"})


def safetensors_bytes(header: bytes, body: bytes) -> bytes:
    """A safetensors file with a header of one's own."""
    return len(header).to_bytes(8, "little") + header + body


def adapter_files(
    *, num_virtual_tokens: int = 3, width: int = WIDTH, seed: int = 0, manifest: bytes | None = None
) -> AdapterFiles:
    """A legal adapter; another seed gives another content."""
    rows = random_rows(num_virtual_tokens=num_virtual_tokens, width=width, seed=seed)
    return AdapterFiles(peft_config(num_virtual_tokens=num_virtual_tokens), tensor_bytes(rows), manifest)


def large_lora_files(*, rank: int, num_bytes: int, num_modules: int = 8, seed: int = 0) -> AdapterFiles:
    """A LoRA in bfloat16 whose weights have about so many bytes, for modules that no tiny model has."""
    width = num_bytes // (2 * 2 * rank * num_modules)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"base_model.model.model.layers.{number}.mlp.up_proj.{name}.weight": torch.randn(
            shape, generator=generator, dtype=torch.bfloat16
        )
        for number in range(num_modules)
        for name, shape in (("lora_A", (rank, width)), ("lora_B", (width, rank)))
    }
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank}
    config = json.dumps(fields | {"target_modules": ["up_proj"]}).encode()
    return AdapterFiles(config, safetensors.torch.save(tensors, metadata={"format": "pt"}))


def base_identity(*, hidden_size: int = WIDTH, fingerprint: str = "f" * 64) -> BaseIdentity:
    """A base model that the adapters above fit."""
    return BaseIdentity(
        name="tiny",
        model_type="llama",
        hidden_size=hidden_size,
        fingerprint=fingerprint,
        tokenizer_fingerprint="a" * 64,
    )
