"""Builds an engine from a model directory: weights, forward pass, self-check. Knows no requests."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from adapters.base_model import load_weights
from server.engine.attention import PagedAttention
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.engine import Engine
from server.engine.errors import CacheTooSmall, ModelUnsupported, NativeUnavailable
from server.engine.families import find_reaches, use_attention
from server.engine.forward import StockForward
from server.engine.kv_cache import KVCache, LayerShape
from server.engine.model_runner import ModelRunner
from server.engine.native.forward import BLOCK_SIZE as NATIVE_BLOCK_SIZE
from server.engine.native.forward import NativeForward
from server.engine.refusals import require_servable
from server.engine.scheduler import Scheduler
from server.engine.self_check import StockAnswer, ask_stock_model, check_against_stock, tolerance_of
from server.engine.step_layout import Reach

logger = logging.getLogger(__name__)


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
    return build_engine(model, fingerprint=fingerprint, config=config, native_cache=native_cache)


def build_engine(
    model: PreTrainedModel,
    *,
    fingerprint: str,
    config: EngineConfig,
    native_cache: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Engine:
    """The engine around a loaded model, which belongs to it from now on. Without `native_cache` nothing is compiled.

    `clock`, in seconds, sizes the chunks of prompts by what steps take; one that stands still makes them repeatable.

    Raises ModelUnsupported, CacheTooSmall.
    """
    require_servable(model, config)
    check = _SelfCheck(ask_stock_model(model), model.config.model_type, config)
    reaches = find_reaches(model)
    layers = _layer_shapes(model, reaches)
    num_blocks = _num_blocks(layers, model.dtype, config)
    runner = _native_runner(model, check, num_blocks, native_cache)
    if runner is None:
        runner = _stock_runner(model, check, layers, reaches, num_blocks)
    block_manager = BlockManager(num_blocks, config.block_size)
    return Engine(
        runner,
        Scheduler(config, block_manager),
        block_manager,
        config,
        fingerprint=fingerprint,
        vocab_size=model.config.get_text_config().vocab_size,
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class _SelfCheck:
    """The stock model's answers, and what they are held against."""

    answers: list[StockAnswer]
    model_type: str
    config: EngineConfig

    def of(self, runner: ModelRunner, num_blocks: int, dtype: torch.dtype) -> ModelRunner:
        """The runner, when it passes. Raises ModelUnsupported."""
        check_against_stock(
            runner,
            self.answers,
            model_type=self.model_type,
            tolerance=tolerance_of(dtype, is_int8=self.config.is_int8),
            block_size=self.config.block_size,
            num_blocks=num_blocks,
        )
        return runner


def _native_runner(
    model: PreTrainedModel, check: _SelfCheck, num_blocks: int, cache: Path | None
) -> ModelRunner | None:
    """The native decoder; None, told in the log, where there is none. Raises ModelUnsupported if int8 needs it."""
    try:
        if cache is None or check.config.block_size != NATIVE_BLOCK_SIZE:
            raise NativeUnavailable("it is switched off")
        forward = NativeForward(
            model,
            num_blocks=num_blocks,
            max_model_len=check.config.max_model_len,
            is_int8=check.config.is_int8,
            cache=cache,
        )
        return check.of(ModelRunner(model.get_input_embeddings(), forward), num_blocks, model.dtype)
    except (NativeUnavailable, ModelUnsupported) as error:
        if check.config.is_int8:
            raise ModelUnsupported(f"--quantization int8 needs the native decoder: {error}") from error
        logger.info("no native decoder: %s", error)
        return None


def _stock_runner(
    model: PreTrainedModel,
    check: _SelfCheck,
    layers: dict[int, LayerShape],
    reaches: dict[int, Reach],
    num_blocks: int,
) -> ModelRunner:
    block_size = check.config.block_size
    cache = KVCache(layers, num_blocks=num_blocks, block_size=block_size, dtype=model.dtype, device=model.device)
    attention = PagedAttention(cache)
    use_attention(model, attention.attend, reaches)
    forward = StockForward(model, cache, attention)
    return check.of(ModelRunner(model.get_input_embeddings(), forward), num_blocks, model.dtype)


def _num_blocks(layers: dict[int, LayerShape], dtype: torch.dtype, config: EngineConfig) -> int:
    """How many blocks the cache's memory holds; one more than the longest sequence needs is there to copy from."""
    block_bytes = KVCache.bytes_per_block(layers, block_size=config.block_size, dtype=dtype)
    num_blocks = config.kv_cache_bytes // block_bytes
    needed = config.num_blocks_of_longest
    if num_blocks < needed:
        raise CacheTooSmall(
            f"--kv-cache-memory {config.kv_cache_bytes} bytes hold {num_blocks * config.block_size} tokens; "
            f"--max-model-len {config.max_model_len} needs {needed * block_bytes} bytes"
        )
    return num_blocks


def _layer_shapes(model: PreTrainedModel, reaches: dict[int, Reach]) -> dict[int, LayerShape]:
    """What each attention layer stores, seen by running one token: no family's config to interpret."""
    shapes: dict[int, LayerShape] = {}

    def record(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: object) -> torch.Tensor:
        shapes[layer] = LayerShape(key.shape[0], key.shape[2], value.shape[2])
        return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])

    use_attention(model, record, reaches)
    try:
        with torch.inference_mode():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    except ModelUnsupported:
        raise
    except Exception as error:
        raise ModelUnsupported(
            f"models of type {model.config.model_type} cannot be computed packed: {error}"
        ) from error
    if not shapes:
        raise ModelUnsupported(f"models of type {model.config.model_type} take no attention from outside")
    return shapes
