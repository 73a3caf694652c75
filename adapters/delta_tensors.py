"""Reads what PEFT's LoRA and IA3 save into weight deltas. Knows no base model, no store and no peft."""

import math
import re
from collections.abc import Mapping

import torch

from adapters.errors import AdapterInvalid, AdapterUnsupported
from adapters.injections import InputScale, LowRank, ModuleDelta, OutputScale, WeightDelta
from adapters.module_patterns import ModulePatterns
from adapters.peft_config import MAX_RANK, LoraConfig
from adapters.tensor_file import (
    WEIGHTS_FILE,
    TensorHeader,
    check_tensor_file,
    check_tensor_names,
    check_tensor_shape,
)
from adapters.tensors import finite, load_tensors

MAX_MODULES = 4096
MAX_PATH_LENGTH = 128

_PATH = re.compile(r"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*")
_PREFIX = "base_model.model."
_DOWN, _UP, _SCALE = ".lora_A.weight", ".lora_B.weight", ".ia3_l"
_REFUSED = {
    ".lora_magnitude_vector": "DoRA is not served",
    ".lora_embedding_A": "LoRA of an embedding is not served",
    ".lora_embedding_B": "LoRA of an embedding is not served",
    ".lora_B.bias": "a LoRA factor with a bias is not served",
}


def read_lora(digest: str, config: LoraConfig, content: bytes) -> WeightDelta:
    """A low-rank delta for each module, scaled by `alpha / r` or, rank-stabilised, by `alpha / sqrt(r)`.

    Factors are `[r, in]` and `[out, r]` whatever way round the base stores its weight (peft.tuners.lora.layer). Raises
    AdapterInvalid, AdapterUnsupported.
    """
    headers = check_tensor_file(content, max_tensors=2 * MAX_MODULES)
    for name in headers:
        for ending, problem in _REFUSED.items():
            if name.endswith(ending):
                raise AdapterUnsupported(WEIGHTS_FILE, f"{problem}: '{name[:200]}'")
    paths = _module_paths(headers, (_DOWN, _UP))
    check_tensor_names(headers, {_PREFIX + path + ending for path in paths for ending in (_DOWN, _UP)})
    scalings = _lora_scalings(config, headers, paths)
    tensors = load_tensors(content)
    modules: dict[str, ModuleDelta] = {}
    for path, scaling in scalings.items():
        up_name = _PREFIX + path + _UP
        down, up = tensors.pop(_PREFIX + path + _DOWN), tensors.pop(up_name)
        modules[path] = LowRank(down, finite(up_name, up.mul_(scaling)))
    return WeightDelta(digest, modules)


def read_ia3(digest: str, content: bytes) -> WeightDelta:
    """A scale for each module: `[1, in]` of its inputs (PEFT's feedforward modules), or `[out, 1]` of its outputs.

    Outputs are scaled with their bias, as PEFT does (peft.tuners.ia3.layer). Raises AdapterInvalid.
    """
    headers = check_tensor_file(content, max_tensors=MAX_MODULES)
    paths = _module_paths(headers, (_SCALE,))
    check_tensor_names(headers, {_PREFIX + path + _SCALE for path in paths})
    for name, header in headers.items():
        if len(header.shape) != 2 or header.shape.count(1) != 1:
            raise AdapterInvalid(WEIGHTS_FILE, f"'{name}' is {list(header.shape)}, neither [1, in] nor [out, 1]")
    tensors = load_tensors(content)
    return WeightDelta(digest, {path: _ia3_scale(tensors[_PREFIX + path + _SCALE]) for path in paths})


def _ia3_scale(factors: torch.Tensor) -> ModuleDelta:
    flat = factors.flatten()
    return InputScale(flat) if factors.shape[0] == 1 else OutputScale(flat)


def _lora_scalings(config: LoraConfig, headers: Mapping[str, TensorHeader], paths: list[str]) -> dict[str, float]:
    """By module; the shapes of its factors must be those of the config's rank for it."""
    ranks = ModulePatterns("rank_pattern", config.rank_pattern or {})
    alphas = ModulePatterns("alpha_pattern", config.alpha_pattern or {})
    scalings: dict[str, float] = {}
    for path in paths:
        rank = int(ranks.value_of(path, default=config.r))
        if not 1 <= rank <= MAX_RANK:
            raise AdapterInvalid("adapter_config.json", f"the rank of '{path}' is {rank}, not 1 to {MAX_RANK}")
        for ending, axis in ((_DOWN, 0), (_UP, 1)):
            name = _PREFIX + path + ending
            shape = headers[name].shape
            if len(shape) != 2:
                raise AdapterInvalid(WEIGHTS_FILE, f"'{name}' is {list(shape)}, not the factor of a linear module")
            check_tensor_shape(headers, name, (rank, shape[1]) if axis == 0 else (shape[0], rank), f"rank {rank}")
        scalings[path] = alphas.value_of(path, default=config.lora_alpha) / _divisor(config, rank)
    return scalings


def _divisor(config: LoraConfig, rank: int) -> float:
    return math.sqrt(rank) if config.use_rslora else float(rank)


def _is_path(path: str) -> bool:
    return len(path) <= MAX_PATH_LENGTH and _PATH.fullmatch(path) is not None


def _module_paths(headers: Mapping[str, TensorHeader], endings: tuple[str, ...]) -> list[str]:
    """Paths in the base model of the modules that tensors with these endings belong to, sorted."""
    paths: set[str] = set()
    for name in headers:
        ending = next((ending for ending in endings if name.endswith(ending)), None)
        path = name.removeprefix(_PREFIX).removesuffix(ending or "")
        if ending is None or not name.startswith(_PREFIX) or not _is_path(path):
            raise AdapterInvalid(
                WEIGHTS_FILE, f"holds {name[:200]!r}; its tensors are named {_PREFIX}<module>{' or '.join(endings)}"
            )
        paths.add(path)
    if len(paths) > MAX_MODULES:
        raise AdapterInvalid(WEIGHTS_FILE, f"changes {len(paths)} modules, over {MAX_MODULES}")
    return sorted(paths)
