"""Builds an engine from a model directory: weights, cache, attention, self-check. Knows no requests."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from adapters.base_model import load_weights
from server.engine.attention import PagedAttention
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.engine import Engine
from server.engine.errors import CacheTooSmall, ModelUnsupported
from server.engine.families import use_attention
from server.engine.kv_cache import KVCache, LayerShape
from server.engine.model_runner import ModelRunner
from server.engine.scheduler import Scheduler
from server.engine.self_check import ask_stock_model, check_against_stock


def load_engine(
    path: Path, *, fingerprint: str, device: torch.device, dtype: torch.dtype, config: EngineConfig
) -> Engine:
    """Load the model in `path` and build the engine around it.

    `fingerprint` names the base model in the prefix cache's keys. Raises BaseModelError when the weights cannot be
    loaded, ModelUnsupported when the packed engine does not compute this model exactly, CacheTooSmall.
    """
    return build_engine(load_weights(path, dtype=dtype, device=device), fingerprint=fingerprint, config=config)


def build_engine(model: PreTrainedModel, *, fingerprint: str, config: EngineConfig) -> Engine:
    """The engine around a loaded model, which belongs to it from now on. Raises ModelUnsupported, CacheTooSmall."""
    answers = ask_stock_model(model)
    layers = _layer_shapes(model)
    num_blocks = _num_blocks(layers, model.dtype, config)
    cache = KVCache(layers, num_blocks=num_blocks, block_size=config.block_size, dtype=model.dtype, device=model.device)
    attention = PagedAttention(cache)
    use_attention(model, attention.attend)
    runner = ModelRunner(model, cache, attention)
    check_against_stock(runner, answers, block_size=config.block_size, num_blocks=num_blocks)
    block_manager = BlockManager(num_blocks, config.block_size)
    return Engine(
        runner,
        Scheduler(config, block_manager),
        block_manager,
        config,
        fingerprint=fingerprint,
        vocab_size=model.config.get_text_config().vocab_size,
    )


def _num_blocks(layers: dict[int, LayerShape], dtype: torch.dtype, config: EngineConfig) -> int:
    """How many blocks the cache's memory holds; one more than the longest sequence needs is there to copy from."""
    block_bytes = KVCache.bytes_per_block(layers, block_size=config.block_size, dtype=dtype)
    num_blocks = config.kv_cache_bytes // block_bytes
    needed = -(-config.max_model_len // config.block_size) + 1
    if num_blocks < needed:
        raise CacheTooSmall(
            f"--kv-cache-memory {config.kv_cache_bytes} bytes hold {num_blocks * config.block_size} tokens; "
            f"--max-model-len {config.max_model_len} needs {needed * block_bytes} bytes"
        )
    return num_blocks


def _layer_shapes(model: PreTrainedModel) -> dict[int, LayerShape]:
    """What each attention layer stores, seen by running one token: no family's config to interpret."""
    shapes: dict[int, LayerShape] = {}

    def record(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: object) -> torch.Tensor:
        shapes[layer] = LayerShape(key.shape[0], key.shape[2], value.shape[2])
        return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])

    use_attention(model, record)
    with torch.inference_mode():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    if not shapes:
        raise ModelUnsupported(f"models of type {model.config.model_type} take no attention from outside")
    return shapes
