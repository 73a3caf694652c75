"""The base model that adapters belong to: resolving `--base`, its identity, loading it. Knows no adapter."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from adapters.embedded_base import EMBEDDED_BASE_NAME, prepare_embedded_base
from adapters.errors import BaseModelError
from adapters.manifest import BaseIdentity
from adapters.probes import NumberType

DtypeName = Literal["auto", "bfloat16", "float16", "float32"]
DeviceName = Literal["auto", "cpu", "cuda"]

_HEADER_LIMIT = 64 * 1024 * 1024
_SAMPLE_BYTES = 64
_TOKENIZER_PROBE = "Hello, wörld! 下面是一段人与机器人的对话。 3.14\n\n  x"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model's directory with its identity and tokenizer; the weights are loaded apart, by `load_weights`."""

    path: Path
    identity: BaseIdentity
    tokenizer: PreTrainedTokenizerBase

    @property
    def name(self) -> str:
        return self.identity.name


def open_base_model(base: str, *, home: Path) -> BaseModel:
    """Find a base model by `--base`: the embedded one's name, a directory, or a hub id; load its tokenizer.

    Only a hub id the caller named is ever downloaded. Raises BaseModelError.
    """
    path, name = _locate(base, home)
    with _reported_as(base):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        identity = BaseIdentity(
            name=name,
            model_type=config.model_type,
            hidden_size=config.get_text_config().hidden_size,
            fingerprint=weights_fingerprint(path),
            tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        )
    return BaseModel(path, identity, tokenizer)


def load_weights(path: Path, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The causal language model in `path`, in eval mode, with every parameter frozen.

    Raises BaseModelError, also for weights that lack a tensor: transformers would go on with a random one.
    """
    with _reported_as(str(path)):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
        model: PreTrainedModel = loaded[0]
        loading: dict[str, Any] = loaded[1]
    if missing := sorted(loading["missing_keys"]):
        raise BaseModelError(f"--base {path}: its weights lack {len(missing)} tensors, {missing[0]} among them")
    model.requires_grad_(requires_grad=False)
    torch.nn.Module.to(model.train(mode=False), device)
    return model


NUMBER_TYPES: dict[torch.dtype, NumberType] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
"""How what a base model computes in is written down."""


def choose_device(name: DeviceName) -> torch.device:
    """`auto` is CUDA where there is one. Raises BaseModelError when CUDA is asked for and missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise BaseModelError("--device cuda: no CUDA device is available")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def choose_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device computes in it, float32 elsewhere."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (avx512_bf16, AMX); if not, bfloat16 is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def weights_fingerprint(path: Path) -> str:
    """sha256 over every tensor's name, dtype, shape and first 64 bytes, read from the safetensors files of a model.

    Cheap for any size of model, and equal only for the same checkpoint, however it is split into files. A model saved
    without safetensors is hashed whole. Raises BaseModelError when the directory has no weights.
    """
    digest = hashlib.sha256()
    shards = sorted(path.glob("*.safetensors"))
    if shards:
        for name, description in sorted(item for shard in shards for item in _tensor_samples(shard)):
            digest.update(name.encode() + b"\0" + description)
        return digest.hexdigest()
    binaries = sorted(path.glob("pytorch_model*.bin"))
    if not binaries:
        raise BaseModelError(f"--base {path}: holds neither *.safetensors nor pytorch_model*.bin weights")
    for binary in binaries:
        with open(binary, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over the vocabulary and how a probe text is cut."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    probe = tokenizer(_TOKENIZER_PROBE)["input_ids"]
    return hashlib.sha256(json.dumps([vocabulary, list(probe)]).encode()).hexdigest()


def _tensor_samples(shard: Path) -> list[tuple[str, bytes]]:
    with open(shard, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_LIMIT:
            raise ValueError(f"{shard.name} is not a safetensors file")
        header = json.loads(file.read(length))
        samples = []
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            file.seek(8 + length + entry["data_offsets"][0])
            sample = file.read(min(_SAMPLE_BYTES, entry["data_offsets"][1] - entry["data_offsets"][0]))
            samples.append((name, f"{entry['dtype']}{entry['shape']}".encode() + sample))
        return samples


def _locate(base: str, home: Path) -> tuple[Path, str]:
    """The model's directory, and the name that requests call it by."""
    if base == EMBEDDED_BASE_NAME:
        return prepare_embedded_base(home / "models"), EMBEDDED_BASE_NAME
    directory = Path(base).expanduser()
    if directory.is_dir():
        return directory, directory.resolve().name
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        raise BaseModelError(f"--base {base}: no such directory, and not a hub id (owner/name) or {EMBEDDED_BASE_NAME}")
    return _download(base), base


def _download(hub_id: str) -> Path:
    try:
        return Path(snapshot_download(hub_id))
    except Exception as error:  # the hub's client has no common class for what a name, a network and a disk can do
        raise BaseModelError(
            f"--base {hub_id}: no such directory, and the hub cannot give it: {_first_line(error)}"
        ) from error


@contextmanager
def _reported_as(base: str) -> Iterator[None]:
    """Word what transformers raises over the files of a model directory as one line that names the flag."""
    try:
        yield
    except BaseModelError:
        raise
    except (
        Exception
    ) as error:  # there is no class that transformers' readers keep to when a file is not what it should be
        raise BaseModelError(f"--base {base}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
