"""Adapter: a record and what it injects, read from checked files. Knows no store and no peft."""

from dataclasses import dataclass

from adapters.delta_tensors import read_ia3, read_lora
from adapters.errors import AdapterIncompatible, AdapterInvalid, AdapterTooLarge
from adapters.files import MAX_FILE_BYTES, AdapterFiles, content_digest
from adapters.injections import Injection, SoftPrompt
from adapters.manifest import MANIFEST_FILE, AdapterManifest, BaseIdentity, ManifestDraft, parse_manifest_draft
from adapters.peft_config import (
    KVRowsConfig,
    LoraConfig,
    MultitaskConfig,
    PeftConfig,
    SoftPromptConfig,
    parse_peft_config,
)
from adapters.prompt_tensors import read_kv_rows, read_multitask_prompt, read_soft_prompt
from adapters.tensor_file import WEIGHTS_FILE


@dataclass(frozen=True, slots=True)
class Adapter:
    """A checked adapter: its record and what it injects."""

    manifest: AdapterManifest
    injection: Injection


def read_adapter(name: str, files: AdapterFiles) -> Adapter:
    """Check the files of an adapter against each other and read what it injects.

    Raises AdapterInvalid naming the file and the field; nothing is allocated before the header is known to be right.
    """
    config = parse_peft_config(files.config)
    draft = parse_manifest_draft(files.manifest) if files.manifest is not None else ManifestDraft()
    if draft.task and not isinstance(config, MultitaskConfig):
        raise AdapterInvalid(MANIFEST_FILE, f"'task' is {draft.task}, but {config.peft_type} has no tasks")
    digest = content_digest(files.config, files.weights, draft)
    injection = _injection(digest, config, draft, files.weights)
    manifest = AdapterManifest(
        name=name,
        digest=digest,
        kind=config.kind,
        num_virtual_tokens=injection.num_virtual_tokens,
        hidden_size=injection.embeddings.shape[1] if isinstance(injection, SoftPrompt) else None,
        task=draft.task,
        base=draft.base,
        chat_format=draft.chat_format,
        training=draft.training,
        probes=draft.probes,
    )
    if len(manifest.to_json()) > MAX_FILE_BYTES[MANIFEST_FILE]:  # ours is laid out anew, and must be readable again
        raise AdapterTooLarge(MANIFEST_FILE, f"over the limit of {MAX_FILE_BYTES[MANIFEST_FILE]} bytes")
    return Adapter(manifest, injection)


def check_compatible(manifest: AdapterManifest, base: BaseIdentity) -> None:
    """Raises AdapterIncompatible when a soft prompt's width or the recorded base is not this base model's."""
    if manifest.hidden_size not in (None, base.hidden_size):
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


def _injection(digest: str, config: PeftConfig, draft: ManifestDraft, weights: bytes) -> Injection:
    match config:
        case MultitaskConfig():
            return read_multitask_prompt(digest, config, weights, task=draft.task)
        case SoftPromptConfig():
            return read_soft_prompt(digest, config, weights)
        case KVRowsConfig():
            return read_kv_rows(digest, config, weights)
        case LoraConfig():
            return read_lora(digest, config, weights)
        case _:
            return read_ia3(digest, weights)
