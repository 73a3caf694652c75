"""Small real engines for the tests: a tiny model, a cache of a known number of blocks."""

from pathlib import Path

from transformers import PreTrainedModel

from adapters.files import read_adapter_directory
from adapters.injections import SoftPrompt
from adapters.weights import read_adapter
from server.engine.config import EngineConfig
from server.engine.cuda.accelerator import Accelerator
from server.engine.engine import Engine
from server.engine.loader import build_engine
from server.engine.model_runner import ModelRunner
from server.engine.sampling_params import SamplingParams
from tests.tiny import EOS_ID

BLOCK_SIZE = 16


def engine_of(
    model: PreTrainedModel,
    *,
    num_blocks: int = 512,
    max_model_len: int = 800,
    max_num_seqs: int = 64,
    max_num_batched_tokens: int = 512,
    max_num_waiting: int = 1024,
    accelerator: Accelerator | None = None,
) -> Engine:
    """An engine over a tiny model, in float32, with room for `num_blocks` blocks; its clock stands still."""
    config = model.config
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", heads)
    head_dim = config.hidden_size // heads
    block_bytes = 2 * kv_heads * head_dim * 4 * config.num_hidden_layers * BLOCK_SIZE
    return build_engine(
        model,
        fingerprint="tiny",
        config=EngineConfig(
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_waiting=max_num_waiting,
            block_size=BLOCK_SIZE,
            kv_cache_bytes=block_bytes * num_blocks,
        ),
        accelerator=accelerator,
        clock=standing_still,
    )


def standing_still() -> float:
    """A clock for steps that are the same in every run."""
    return 0.0


def runner_of(engine: Engine) -> ModelRunner:
    """What computes the engine's batches."""
    assert isinstance(engine._runner, ModelRunner)
    return engine._runner


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, stop_token_ids=frozenset({EOS_ID}))


def soft_prompt_in(path: Path) -> SoftPrompt:
    injection = read_adapter("adapter", read_adapter_directory(path)).injection
    assert isinstance(injection, SoftPrompt)
    return injection


def run_to_end(engine: Engine) -> dict[int, list[int]]:
    """Step until nothing is left, checking the books after every step; tokens by request id."""
    tokens: dict[int, list[int]] = {}
    while engine.has_work:
        for output in engine.step():
            assert output.error is None, output.error
            made = tokens.setdefault(output.request_id, [])
            if output.token_id is not None:
                made.append(output.token_id)
        engine.check_integrity()
    return tokens
