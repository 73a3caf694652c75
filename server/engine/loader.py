"""Builds an engine from a model directory: weights, the cache's size, what computes. Knows no requests."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from adapters.base_model import load_weights
from server.engine.attention import LayerNeeds
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.cuda.accelerator import Accelerator, find_accelerator
from server.engine.cuda.attention import served_layers
from server.engine.engine import Engine
from server.engine.errors import CacheTooSmall
from server.engine.families import find_reaches
from server.engine.kv_cache import KVCache
from server.engine.kv_memory import default_kv_cache_bytes
from server.engine.layer_probe import probe_layers
from server.engine.refusals import require_servable
from server.engine.runners import Workbench
from server.engine.scheduler import Scheduler
from server.engine.self_check import ask_stock_model


def load_engine(
    path: Path,
    *,
    fingerprint: str,
    device: torch.device,
    dtype: torch.dtype,
    config: EngineConfig,
    native_cache: Path | None = None,
) -> Engine:
    """Load the model in `path` and build the engine around it.

    `fingerprint` names the base model in the prefix cache's keys; `native_cache` is the directory for what is compiled
    here, and without it nothing is. Raises BaseModelError when the weights cannot be loaded, ModelUnsupported when the
    packed engine does not compute this model exactly, or not in int8, CacheTooSmall.
    """
    model = load_weights(path, dtype=dtype, device=device)
    return build_engine(
        model,
        fingerprint=fingerprint,
        config=config,
        native_cache=native_cache,
        accelerator=find_accelerator(device, dtype),
    )


def build_engine(
    model: PreTrainedModel,
    *,
    fingerprint: str,
    config: EngineConfig,
    native_cache: Path | None = None,
    accelerator: Accelerator | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Engine:
    """The engine around a loaded model, which belongs to it from now on. Without `native_cache` nothing is compiled.

    `clock`, in seconds, sizes the chunks of prompts by what steps take; one that stands still makes them repeatable.

    Raises ModelUnsupported, CacheTooSmall.
    """
    require_servable(model, config)
    answers = ask_stock_model(model)
    reaches = find_reaches(model)
    layers = probe_layers(model, reaches)
    if config.is_int8 or not served_layers(layers):
        accelerator = None
    if accelerator is not None:
        config = replace(config, block_size=accelerator.block_size)
    num_blocks = _num_blocks(layers, model, config, num_spare=0 if accelerator is None else 1)
    bench = Workbench(
        model=model, layers=layers, reaches=reaches, answers=answers, config=config, num_blocks=num_blocks
    )
    if accelerator is None:
        runner = bench.native_runner(native_cache) or bench.stock_runner()
    else:
        runner = bench.accelerated_runner(accelerator)
    block_manager = BlockManager(num_blocks, config.block_size)
    return Engine(
        runner,
        Scheduler(config, block_manager, clock=clock),
        block_manager,
        config,
        fingerprint=fingerprint,
        vocab_size=model.config.get_text_config().vocab_size,
        clock=clock,
    )


def _num_blocks(layers: dict[int, LayerNeeds], model: PreTrainedModel, config: EngineConfig, *, num_spare: int) -> int:
    """How many blocks the cache's memory holds for sequences, beside the spare ones.

    One more than the longest sequence needs is there to copy from.
    """
    shapes = {index: needs.shape for index, needs in layers.items()}
    block_bytes = KVCache.bytes_per_block(shapes, block_size=config.block_size, dtype=model.dtype)
    num_bytes = default_kv_cache_bytes(model.device) if config.kv_cache_bytes is None else config.kv_cache_bytes
    num_blocks = num_bytes // block_bytes - num_spare
    needed = config.num_blocks_of_longest
    if num_blocks < needed:
        raise CacheTooSmall(
            f"--kv-cache-memory {num_bytes} bytes hold {max(num_blocks, 0) * config.block_size} tokens; "
            f"--max-model-len {config.max_model_len} needs {(needed + num_spare) * block_bytes} bytes"
        )
    return num_blocks
