"""Replays an adapter's probes by PEFT's own path, in float32 on this machine's CPU. Prints nothing."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel

from adapters.base_model import BaseModel, load_weights
from adapters.files import CONFIG_FILE, AdapterFiles
from adapters.probing import answering, base_answer, base_of, given_answer, greedy_answer
from adapters.tensor_file import WEIGHTS_FILE
from adapters.verification import NO_PROBES, Replay, Verification, compared, unverified
from adapters.weights import Adapter


def replay(adapter: Adapter, files: AdapterFiles, base: BaseModel) -> Verification:
    """What the probes of an adapter, already read from these files, say on a base model that it belongs to.

    Raises BaseModelError.
    """
    checked = int(time.time())
    probes = adapter.manifest.probes
    if probes is None:
        return unverified(NO_PROBES, "float32", checked=checked)
    model = _with_adapter(files, base)
    replays: list[Replay | None] = []
    equals_base = True
    with answering(model):
        for probe in probes.items:
            num_tokens = len(probe.expected_ids)
            if not _fits(model, probe.prompt_ids, probe.expected_ids, adapter.injection.num_virtual_tokens):
                replays.append(None)
                continue
            made = greedy_answer(model, probe.prompt_ids, max_tokens=num_tokens)
            given = given_answer(model, probe.prompt_ids, probe.expected_ids)
            replays.append(Replay(made, given.mean_logprob, given.first_gap))
            equals_base = equals_base and base_answer(model, probe.prompt_ids, max_tokens=num_tokens) == made
    return compared(
        probes,
        replays,
        chat_format=adapter.manifest.chat_format_fingerprint,
        equals_base=equals_base,
        numbers="float32",
        checked=checked,
    )


def _with_adapter(files: AdapterFiles, base: BaseModel) -> PeftModel:
    """PEFT's model of the two files that were checked, and of nothing else that lies beside them."""
    weights = load_weights(base.path, dtype=torch.float32, device=torch.device("cpu"))
    with TemporaryDirectory(prefix="hotprompt-verify-") as directory:
        (Path(directory) / CONFIG_FILE).write_bytes(files.config)
        (Path(directory) / WEIGHTS_FILE).write_bytes(files.weights)
        return PeftModel.from_pretrained(weights, directory)


def _fits(model: PeftModel, prompt_ids: tuple[int, ...], expected_ids: tuple[int, ...], num_virtual: int) -> bool:
    """Whether the base model has the vocabulary and the positions for a probe."""
    config = base_of(model).config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    length = num_virtual + len(prompt_ids) + len(expected_ids)
    return max(*prompt_ids, *expected_ids) < config.vocab_size and (limit is None or length <= limit)
