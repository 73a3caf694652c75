"""What an adapter's numbers start as, where PEFT's own configs cannot say it. Knows no data files and no loop."""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, initialize_kv_prefix_from_text, set_peft_model_state_dict
from safetensors.torch import load as load_tensors
from transformers import PreTrainedTokenizerBase

from adapters.base_model import BaseModel
from adapters.errors import AdapterError
from adapters.files import AdapterFiles, read_adapter_directory
from adapters.injections import SoftPrompt
from adapters.store import AdapterStore
from adapters.weights import Adapter, check_compatible, read_adapter
from training.config import TrainConfig
from training.errors import ConfigError
from training.examples import Example


def read_start(config: TrainConfig) -> tuple[AdapterFiles, Adapter] | None:
    """The adapter to continue from, by its name in the store or its directory. Raises ConfigError."""
    if config.init_adapter is None:
        return None
    try:
        directory = Path(config.init_adapter)
        if not directory.is_dir():
            store = AdapterStore(config.store)
            directory = store.path_of(store.resolve(config.init_adapter)[1])
        files = read_adapter_directory(directory)
        return files, read_adapter(config.name, files)
    except AdapterError as error:
        raise ConfigError([f"init_adapter: {error}"]) from error


def start_from_adapter(
    model: PeftModel, start: tuple[AdapterFiles, Adapter], config: TrainConfig, base: BaseModel
) -> None:
    """Copy a trained adapter's numbers. Raises ConfigError for one of another base, kind or shape."""
    files, adapter = start
    try:
        check_compatible(adapter.manifest, base.identity)
    except AdapterError as error:
        raise ConfigError([f"init_adapter: {error}"]) from error
    is_prompt = config.method == "prompt_tuning" and isinstance(adapter.injection, SoftPrompt)
    if adapter.manifest.kind != config.method and not is_prompt:
        raise ConfigError([f"init_adapter: is of kind {adapter.manifest.kind}, not {config.method}"])
    if is_prompt:
        assert isinstance(adapter.injection, SoftPrompt)
        tensors = {"prompt_embeddings": adapter.injection.embeddings}
    else:
        tensors = load_tensors(files.weights)
    expected = {name: tensor.shape for name, tensor in _state(model).items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise ConfigError(["init_adapter: its tensors have other shapes than this run's settings ask for"])
    set_peft_model_state_dict(model, tensors)


def start_from_labels(model: PeftModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> None:
    """Set the first virtual tokens to the answers that are commonest, each the mean of its tokens' embeddings."""
    weight = _rows(model)
    commonest = Counter(example.answer.strip() for example in examples).most_common(len(weight))
    embed: Any = model.get_base_model().get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        for row, (answer, _) in enumerate(commonest):
            ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
            if ids:
                weight[row] = embed(torch.tensor(ids, device=weight.device)).float().mean(dim=0)


def start_from_text(model: PeftModel, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Set a prefix to the keys and values that the base has for a text."""
    initialize_kv_prefix_from_text(model, tokenizer, text=text, use_chat_template=False)


def start_encoder_from_text(model: PeftModel, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Let P-tuning's encoder make a text's embeddings, by the smallest change of its last layer that does.

    They are made exactly where the encoder is at least as wide as there are virtual tokens, and as nearly as can be
    elsewhere. A text that is too short is repeated.
    """
    encoder: Any = model.prompt_encoder
    codes: torch.Tensor = encoder[model.active_adapter].embedding.weight
    *inner, last = encoder[model.active_adapter].mlp_head
    embed: Any = model.get_base_model().get_input_embeddings()  # type: ignore[operator]
    ids = list(islice(cycle(tokenizer(text)["input_ids"]), len(codes)))
    with torch.no_grad():
        wanted = embed(torch.tensor(ids, device=codes.device)).float()
        hidden = torch.nn.Sequential(*inner)(codes)  # [num_virtual_tokens, encoder_hidden_size]
        last.weight += (torch.linalg.pinv(hidden) @ (wanted - last(hidden))).T


def start_tasks_alike(model: PeftModel) -> None:
    """Let every task's factor of a multitask prompt be 1, so that each starts as what all share.

    PEFT's own are products of small numbers: nearly 0, so that no start would be left.
    """
    encoder: Any = model.prompt_encoder[model.active_adapter]
    with torch.no_grad():
        encoder.prefix_task_cols.fill_(1.0)
        encoder.prefix_task_rows.fill_(1.0 / encoder.num_ranks)


def _rows(model: PeftModel) -> torch.Tensor:
    encoder: Any = model.prompt_encoder
    weight: torch.Tensor = encoder[model.active_adapter].embedding.weight
    return weight


def _state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Names and tensors as PEFT saves them."""
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state
