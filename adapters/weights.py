"""Adapter: a record and what it injects, read from checked files. Knows no store and no peft."""

from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError

from adapters.errors import AdapterIncompatible, AdapterInvalid, AdapterTooLarge
from adapters.files import MAX_FILE_BYTES, AdapterFiles, content_digest
from adapters.injections import Injection, SoftPrompt
from adapters.manifest import MANIFEST_FILE, AdapterManifest, BaseIdentity, ManifestDraft, parse_manifest_draft
from adapters.peft_config import parse_peft_config
from adapters.tensor_file import TENSOR_NAME, WEIGHTS_FILE, check_tensor_file


@dataclass(frozen=True, slots=True)
class Adapter:
    """A checked adapter: its record and what it injects."""

    manifest: AdapterManifest
    injection: Injection


def read_adapter(name: str, files: AdapterFiles) -> Adapter:
    """Check the files of an adapter against each other and read its tensor.

    Raises AdapterInvalid naming the file and the field; nothing is allocated before the header is known to be right.
    """
    config = parse_peft_config(files.config)
    draft = parse_manifest_draft(files.manifest) if files.manifest is not None else ManifestDraft()
    rows, width = check_tensor_file(files.weights).shape
    if rows != config.num_virtual_tokens:
        raise AdapterInvalid(
            WEIGHTS_FILE, f"has {rows} rows, adapter_config.json says num_virtual_tokens {config.num_virtual_tokens}"
        )
    if config.token_dim is not None and width != config.token_dim:
        raise AdapterInvalid(
            WEIGHTS_FILE, f"rows are {width} wide, adapter_config.json says token_dim {config.token_dim}"
        )
    digest = content_digest(files.config, files.weights, draft)
    manifest = AdapterManifest(
        name=name,
        digest=digest,
        kind=config.kind,
        num_virtual_tokens=rows,
        hidden_size=width,
        base=draft.base,
        chat_format=draft.chat_format,
        training=draft.training,
        probes=draft.probes,
    )
    if len(manifest.to_json()) > MAX_FILE_BYTES[MANIFEST_FILE]:  # ours is laid out anew, and must be readable again
        raise AdapterTooLarge(MANIFEST_FILE, f"over the limit of {MAX_FILE_BYTES[MANIFEST_FILE]} bytes")
    return Adapter(manifest, SoftPrompt(digest, _finite_rows(files.weights)))


def check_compatible(manifest: AdapterManifest, base: BaseIdentity) -> None:
    """Raises AdapterIncompatible when the adapter's width or its recorded base is not this base model's."""
    if manifest.hidden_size != base.hidden_size:
        raise AdapterIncompatible(
            f"{WEIGHTS_FILE}: rows are {manifest.hidden_size} wide, the base model {base.name} needs {base.hidden_size}"
        )
    if manifest.base is None:
        return
    if manifest.base.fingerprint != base.fingerprint:
        raise AdapterIncompatible(
            f"hotprompt.json: made for the base {manifest.base.name} (fingerprint {manifest.base.fingerprint[:12]}), "
            f"this server runs {base.name} ({base.fingerprint[:12]})"
        )
    if manifest.base.tokenizer_fingerprint != base.tokenizer_fingerprint:
        raise AdapterIncompatible(f"hotprompt.json: made with another tokenizer than the one of {base.name}")


def _finite_rows(weights: bytes) -> torch.Tensor:
    try:
        rows = safetensors.torch.load(weights)[TENSOR_NAME].to(torch.float32)
    except SafetensorError:  # whatever the library refuses beyond our own check of the header
        raise AdapterInvalid(WEIGHTS_FILE, "not a safetensors file") from None
    if not bool(torch.isfinite(rows).all()):
        raise AdapterInvalid(WEIGHTS_FILE, "holds NaN or infinite values")
    # A bfloat16 or float16 base casts the rows down: a value beyond float16 would become infinite there.
    if bool(rows.abs().max() > torch.finfo(torch.float16).max):
        raise AdapterInvalid(
            WEIGHTS_FILE, f"holds values beyond ±{torch.finfo(torch.float16).max:.0f}, the largest of float16"
        )
    return rows
