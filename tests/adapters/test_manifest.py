"""hotprompt.json: what a maker may say in it, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.chat_format import ChatFormat
from adapters.errors import AdapterInvalid
from adapters.manifest import (
    AdapterManifest,
    EvaluationFacts,
    ManifestDraft,
    TrainingFacts,
    parse_manifest_draft,
)
from adapters.probes import Probe, Probes
from tests.adapters.making import base_identity

TRAINING = TrainingFacts(
    method="prompt_tuning",
    data="reviews.jsonl",
    data_digest="0" * 64,
    rows=2000,
    steps=60,
    tokens=123_456,
    tokens_per_second=280.5,
    seconds=440.1,
    trainable_parameters=11_520,
    final_loss=0.31,
    settings={"learning_rate": 0.01, "text": "下面是", "bf16": True, "max_steps": 60, "save": None},
    evaluation=EvaluationFacts(rows=400, loss_before=3.1, loss_after=0.2, exact_match_before=0, exact_match_after=0.88),
)
DRAFT = ManifestDraft(
    base=base_identity(),
    chat_format=ChatFormat(template="{{ messages[0]['content'] }}", stop=("\n",)),
    training=TRAINING,
)
MANIFEST = AdapterManifest(
    name="a",
    digest="0" * 64,
    kind="prompt_tuning",
    num_virtual_tokens=3,
    hidden_size=4,
    base=DRAFT.base,
    chat_format=DRAFT.chat_format,
    training=DRAFT.training,
)
PROBE: dict[str, Any] = {"prompt_ids": [1, 2], "expected_ids": [3], "mean_logprob": -0.5}


def test_a_manifest_is_read_back_as_its_makers_part() -> None:
    assert parse_manifest_draft(MANIFEST.to_json()) == DRAFT


def test_the_file_is_stable_and_readable() -> None:
    assert MANIFEST.to_json() == MANIFEST.model_copy().to_json()
    assert "下面是".encode() in MANIFEST.to_json()


def test_probes_are_part_of_the_record_and_lie_on_one_line_each() -> None:
    probes = Probes(
        dtype="float32", items=(Probe(prompt_ids=tuple(range(300)), expected_ids=(5, 6), mean_logprob=-0.5),)
    )
    manifest = MANIFEST.model_copy(update={"probes": probes})
    assert parse_manifest_draft(manifest.to_json()).probes == probes
    assert b'"expected_ids": [5, 6]' in manifest.to_json()
    assert DRAFT.model_copy(update={"probes": probes}).canonical_json() != DRAFT.canonical_json()


def test_what_looks_like_a_list_of_numbers_in_a_text_is_left_alone() -> None:
    text = "[\n  1,\n  2\n]"
    manifest = MANIFEST.model_copy(update={"chat_format": ChatFormat(template=text)})
    draft = parse_manifest_draft(manifest.to_json())
    assert draft.chat_format is not None
    assert draft.chat_format.template == text


def test_an_empty_manifest_says_nothing() -> None:
    assert parse_manifest_draft(b"{}") == ManifestDraft()
    assert ManifestDraft().canonical_json() == b"{}"


def test_what_the_maker_says_of_name_and_tensor_is_not_believed() -> None:
    lie = json.loads(MANIFEST.to_json()) | {"name": "../x", "digest": "1" * 64, "num_virtual_tokens": 4_000_000}
    assert parse_manifest_draft(json.dumps(lie).encode()) == DRAFT


def test_defaults_are_not_part_of_the_canonical_bytes() -> None:
    """A field that a later version adds, with a default, must not change the digests of today."""
    short: dict[str, Any] = {"chat_format": {"template": "x"}}
    long: dict[str, Any] = {
        "chat_format": {"template": "x", "stop": [], "system_prompt": None, "sampling": {"top_p": None}}
    }
    canonical = {parse_manifest_draft(json.dumps(draft).encode()).canonical_json() for draft in (short, long)}
    assert canonical == {b'{"chat_format": {"template": "x"}}'}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"chat_format": {"template": ""}}, "chat_format.template"),
        ({"chat_format": {"template": "x" * 70_000}}, "chat_format.template"),
        ({"chat_format": {"template": "\ud800"}}, "chat_format.template"),
        ({"chat_format": {"template": "x", "stop": ["a"] * 5}}, "chat_format.stop"),
        ({"chat_format": {"template": "x", "stop": [""]}}, "chat_format.stop.0"),
        ({"chat_format": {"template": "x", "stop": ["a", "b" * 65]}}, "chat_format.stop.1"),
        ({"chat_format": {"template": "x", "sampling": {"temperature": 99}}}, "chat_format.sampling.temperature"),
        ({"chat_format": {"template": "x", "unknown": 1}}, "chat_format.unknown"),
        ({"base": {"name": "x"}}, "base.model_type"),
        ({"probes": {"dtype": "float32", "items": []}}, "probes.items"),
        ({"probes": {"dtype": "int8", "items": [PROBE]}}, "probes.dtype"),
        ({"probes": {"dtype": "float32", "items": [PROBE] * 65}}, "probes.items"),
        ({"probes": {"dtype": "float32", "items": [PROBE | {"prompt_ids": [1] * 4097}]}}, "probes.items.0.prompt_ids"),
        ({"probes": {"dtype": "float32", "items": [PROBE | {"prompt_ids": [1] * 4096}] * 17}}, "probes"),
        ({"probes": {"dtype": "float32", "items": [PROBE | {"expected_ids": []}]}}, "probes.items.0.expected_ids"),
        (
            {"probes": {"dtype": "float32", "items": [PROBE | {"expected_ids": [1] * 65}]}},
            "probes.items.0.expected_ids",
        ),
        ({"probes": {"dtype": "float32", "items": [PROBE | {"prompt_ids": [-1]}]}}, "probes.items.0.prompt_ids.0"),
        ({"probes": {"dtype": "float32", "items": [PROBE | {"mean_logprob": 0.1}]}}, "probes.items.0.mean_logprob"),
        ({"training": TRAINING.model_dump(mode="json") | {"final_loss": float("nan")}}, "training.final_loss"),
        ({"training": TRAINING.model_dump(mode="json") | {"seconds": float("inf")}}, "training.seconds"),
        ({"training": TRAINING.model_dump(mode="json") | {"settings": {"a": [1]}}}, "training.settings.a"),
        ({"training": TRAINING.model_dump(mode="json") | {"settings": {"a": float("nan")}}}, "training.settings.a"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(AdapterInvalid, match=rf"^hotprompt.json: '{field}"):
        parse_manifest_draft(json.dumps(change).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 200_000])
def test_what_is_not_a_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(AdapterInvalid, match=r"^hotprompt.json: "):
        parse_manifest_draft(content)


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        draft = parse_manifest_draft(content)
    except AdapterInvalid:
        return
    assert draft == ManifestDraft()
