"""The adapters that the browser tests register: small soft prompts with facts, probes and a card of their own."""

import json
from dataclasses import replace
from typing import Any

from adapters.chat_format import default_chat_format
from adapters.files import AdapterFiles
from tests.adapters.making import adapter_files
from tests.browser.echoing import prompt_ids_of, reply_to
from tests.tiny import EOS_ID, HIDDEN_SIZE, tiny_tokenizer

_LOSSES = (2.62, 1.41, 0.98, 0.71, 0.52, 0.44, 0.37, 0.35, 0.31, 0.29, 0.28, 0.27)


def soft_prompt(num_virtual_tokens: int) -> AdapterFiles:
    """A legal adapter of so many rows that says nothing of itself."""
    return adapter_files(num_virtual_tokens=num_virtual_tokens, width=HIDDEN_SIZE, seed=num_virtual_tokens)


def trained_prompt(num_virtual_tokens: int) -> AdapterFiles:
    """The same with what a trainer writes beside it: facts, probes that the echo answers, and a card with a curve."""
    manifest = json.dumps(_manifest(num_virtual_tokens)).encode()
    return replace(soft_prompt(num_virtual_tokens), manifest=manifest, card=_card().encode())


def _manifest(num_virtual_tokens: int) -> dict[str, Any]:
    questions = ("Where is my invoice?", "The page does not load.")
    chat_format = default_chat_format(tiny_tokenizer())
    return {
        "chat_format": chat_format.model_dump(mode="json"),
        "training": {
            "method": "prompt_tuning",
            "data": "train.jsonl",
            "data_digest": "ab" * 32,
            "rows": 8875,
            "steps": 60,
            "tokens": 85862,
            "tokens_per_second": 348.1,
            "seconds": 246.6,
            "trainable_parameters": num_virtual_tokens * HIDDEN_SIZE,
            "final_loss": _LOSSES[-1],
            "settings": {"learning_rate": 0.01},
            "evaluation": {
                "rows": 400,
                "loss_before": 2.71,
                "loss_after": 0.31,
                "exact_match_before": 0.0,
                "exact_match_after": 0.885,
            },
        },
        "probes": {
            "dtype": "float32",
            "chat_format": chat_format.fingerprint,
            "items": [_probe(question, num_virtual_tokens) for question in questions],
        },
    }


def _probe(question: str, num_virtual_tokens: int) -> dict[str, Any]:
    reply = reply_to(question, num_virtual_tokens=num_virtual_tokens)
    expected = [*tiny_tokenizer()(reply, add_special_tokens=False)["input_ids"], EOS_ID]
    return {"prompt_ids": prompt_ids_of(question), "expected_ids": expected, "mean_logprob": -0.5}


def _card() -> str:
    highest = max(_LOSSES)
    rows = "\n".join(
        f"| {5 * i:,} | {loss:.4f} | {'█' * max(1, round(30 * loss / highest))} |"
        for i, loss in enumerate(_LOSSES, start=1)
    )
    return f"""---
base_model: tiny-llama
library_name: peft
---

# support

An adapter (prompt_tuning) for the base model `tiny-llama`.
<img src=x onerror="window.pwned=1"> <script>window.pwned=1</script>

## Loss curve

| step | training loss |  |
| --- | --- | --- |
{rows}

## Settings

| key | value |
| --- | --- |
| learning_rate | 0.01 |
"""
