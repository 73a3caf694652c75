"""Tiny adapters with probes that PEFT's own path made, as a trainer hands them in."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft import PeftModel

from adapters.files import AdapterFiles, read_adapter_directory
from adapters.manifest import ManifestDraft
from adapters.probes import Probe, Probes
from adapters.probing import answering, base_answer, greedy_answer, make_probe
from tests.tiny import EOS_ID, load_peft, save_tiny_adapter, tiny_model

PROMPTS = tuple(tuple(f"probe number {number}: what now?".encode()) for number in range(8))


def probed_files(
    *, seed: int, num_virtual_tokens: int = 5, prompts: Sequence[Sequence[int]] = PROMPTS, max_tokens: int = 12
) -> AdapterFiles:
    """A random soft prompt for the tiny llama, with probes of these prompts."""
    with tempfile.TemporaryDirectory() as directory:
        path = save_tiny_adapter(tiny_model("llama"), Path(directory), num_virtual_tokens=num_virtual_tokens, seed=seed)
        model = load_peft(tiny_model("llama"), path)
        items = tuple(make_probe(model, ids, max_tokens=max_tokens, stop_ids=[EOS_ID]) for ids in prompts)
        return with_probes(read_adapter_directory(path), items)


def with_probes(files: AdapterFiles, items: tuple[Probe, ...]) -> AdapterFiles:
    """The same adapter with other probes."""
    draft = ManifestDraft(probes=Probes(dtype="float32", items=items))
    return replace(files, manifest=draft.canonical_json())


def unchanged_prompts(*, seed: int, num_virtual_tokens: int = 5) -> list[tuple[int, ...]]:
    """Prompts that the adapter of this seed and the bare tiny llama continue by the same token."""
    prompts = [tuple(f"{number} or {number * 7}".encode()) for number in range(400)]
    with tempfile.TemporaryDirectory() as directory:
        path = save_tiny_adapter(tiny_model("llama"), Path(directory), num_virtual_tokens=num_virtual_tokens, seed=seed)
        model = load_peft(tiny_model("llama"), path)
        with answering(model):
            return [ids for ids in prompts if _answer(model, ids) == base_answer(model, ids, max_tokens=1)][:8]


def _answer(model: PeftModel, prompt_ids: tuple[int, ...]) -> tuple[int, ...]:
    return greedy_answer(model, prompt_ids, max_tokens=1)
