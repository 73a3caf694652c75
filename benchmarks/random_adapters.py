"""Random adapters of the right shape, to be served and not to be sensible. Knows no server."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model

from adapters.base_model import BaseModel, load_weights
from adapters.files import CONFIG_FILE, AdapterFiles, read_adapter_directory
from adapters.prompt_tensors import ROWS
from adapters.store import AdapterStore
from benchmarks.servers import LORA_RANK, LoraModules

_EMBEDDING_STD = 0.02
"""As embeddings are initialised: the answers stay text."""


class SoftPromptMaker:
    """Makes soft prompts for one base model; equal seeds give equal files."""

    def __init__(self, *, hidden_size: int, virtual_tokens: int) -> None:
        self._shape = (virtual_tokens, hidden_size)
        config = PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM, num_virtual_tokens=virtual_tokens, token_dim=hidden_size, inference_mode=True
        )
        with tempfile.TemporaryDirectory() as directory:
            config.save_pretrained(directory)
            self._config = (Path(directory) / CONFIG_FILE).read_bytes()

    def make(self, seed: int) -> AdapterFiles:
        """The files of one adapter, float32, as PEFT writes them."""
        rows = torch.randn(self._shape, generator=torch.Generator().manual_seed(seed)) * _EMBEDDING_STD
        return AdapterFiles(self._config, safetensors.torch.save({ROWS: rows}, metadata={"format": "pt"}))


def publish_soft_prompts(store: AdapterStore, maker: SoftPromptMaker, names: tuple[str, ...]) -> None:
    """Publish one random soft prompt under each name."""
    for seed, name in enumerate(names):
        store.publish(name, maker.make(seed))


def publish_directories(store: AdapterStore, directories: Mapping[str, Path]) -> None:
    """Publish each name's directory, as PEFT wrote it."""
    for name, directory in directories.items():
        store.publish(name, read_adapter_directory(directory))


def write_loras(base: BaseModel, directory: Path, names: tuple[str, ...], *, modules: LoraModules) -> dict[str, Path]:
    """Random LoRA adapters of rank 8, each in its own directory, as PEFT writes them."""
    model: Any = load_weights(base.path, dtype=torch.bfloat16, device=torch.device("cpu"))
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=LORA_RANK,
        lora_alpha=LORA_RANK,
        init_lora_weights=False,
        target_modules=None if modules == "default" else modules,
    )
    peft_model = get_peft_model(model, config)
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.data = (torch.randn(parameter.shape, generator=generator) * _EMBEDDING_STD).to(
                    parameter.dtype
                )
        peft_model.save_pretrained(str(directory / name))
    return {name: directory / name for name in names}
