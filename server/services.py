"""Services: what a server is made of, opened from its settings: base model, store, registry, engine. Knows no HTTP."""

from dataclasses import dataclass

from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedTokenizerFast

from adapters.base_model import NUMBER_TYPES, BaseModel, choose_device, choose_dtype, open_base_model
from adapters.errors import BaseModelError
from adapters.home import home_directory
from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from adapters.verification import EngineNumbers
from server.config import Settings, SettingsError
from server.engine.async_engine import AsyncEngine
from server.engine.config import EngineConfig
from server.engine.loader import load_engine

DEFAULT_MAX_MODEL_LEN = 4096
UNBOUNDED_CONTEXT = 2048
"""Taken for a model whose positions have no limit (ALiBi); longer answers are asked for with --max-model-len."""


@dataclass(frozen=True, slots=True)
class Services:
    """Open and ready; the engine's thread has not been started."""

    engine: AsyncEngine
    registry: AdapterRegistry
    base: BaseModel
    stop_token_ids: frozenset[int]
    numbers: EngineNumbers
    """What the engine computes in."""


def build_services(settings: Settings) -> Services:
    """Open the base model, the store and the engine; takes as long as the weights take to load.

    Raises SettingsError, BaseModelError, StoreFailure, ModelUnsupported, CacheTooSmall.
    """
    base = open_base_model(settings.base, home=home_directory())
    if not isinstance(base.tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(f"--base {settings.base}: its tokenizer has no fast form (tokenizer.json)")
    registry = AdapterRegistry(AdapterStore(settings.store), base.identity, budget_bytes=settings.adapter_memory)
    device = choose_device(settings.device)
    config: PretrainedConfig = AutoConfig.from_pretrained(base.path)
    dtype = choose_dtype(settings.dtype, device)
    engine = load_engine(
        base.path,
        fingerprint=base.identity.fingerprint,
        device=device,
        dtype=dtype,
        config=EngineConfig(
            max_model_len=choose_max_model_len(settings.max_model_len, config),
            max_num_seqs=settings.max_num_seqs,
            max_num_waiting=settings.max_num_waiting,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            kv_cache_bytes=settings.kv_cache_memory,
            is_int8=settings.quantization == "int8",
        ),
        native_cache=home_directory() / "native",
    )
    numbers: EngineNumbers = "int8" if settings.quantization == "int8" else NUMBER_TYPES[dtype]
    return Services(AsyncEngine(engine), registry, base, stop_token_ids_of(base, config), numbers)


def choose_max_model_len(asked: int | None, config: PretrainedConfig) -> int:
    """The setting, or the model's context up to 4096 tokens. Raises SettingsError for more than the context."""
    context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    if asked is None:
        return min(context or UNBOUNDED_CONTEXT, DEFAULT_MAX_MODEL_LEN)
    if context is not None and asked > context:
        raise SettingsError(f"--max-model-len {asked}: the model's context is {context} tokens")
    return asked


def stop_token_ids_of(base: BaseModel, config: PretrainedConfig) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's end of sequence, and those of the model's generation config."""
    try:
        eos = GenerationConfig.from_pretrained(base.path).eos_token_id
    except OSError:  # the model has no generation config
        eos = config.get_text_config().eos_token_id
    ids = eos if isinstance(eos, list) else [eos]
    return frozenset(token_id for token_id in (*ids, base.tokenizer.eos_token_id) if token_id is not None)
