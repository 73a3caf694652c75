"""Which families are served, exactly, and which are refused, by name and for what reason."""

import copy
import logging
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from server.engine import families
from server.engine.config import EngineConfig
from server.engine.cuda.accelerator import Accelerator
from server.engine.engine import Engine
from server.engine.errors import ModelUnsupported
from server.engine.loader import build_engine
from server.engine.own_attention import alibi_slopes
from server.engine.sampling_params import SamplingParams
from server.engine.step_layout import SEES_ALL
from tests.engine.accelerating import CallRecorder, accelerator_of
from tests.engine.build import run_to_end
from tests.engine.family_models import VOCAB_SIZE, family_model, model_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def _documented(heading: str) -> list[str]:
    """The families that docs/models.md names under a heading."""
    blocks = DOCUMENT.read_text().split("\n\n")
    return re.findall(r"`([a-z0-9_-]+)`", blocks[blocks.index(f"## {heading}") + 1])


SERVED = _documented("Served")

REFUSED = {
    **dict.fromkeys(("axk2", "deepseek_v32", "glm_moe_dsa", "hy_v4"), "layers are of type indexed_attention"),
    **dict.fromkeys(("bailing_hybrid", "bamba", "jamba", "mamba", "mamba2"), "layers are of type .*linear_attention"),
    **dict.fromkeys(("falcon_mamba", "nemotron_h", "olmo_hybrid", "qwen3_next"), "layers are of type linear_attention"),
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text", "qwen4_exp_text"), "layers are of type linear_attention"),
    **dict.fromkeys(("recurrent_gemma", "zamba", "zamba2"), "layers are of type .*linear_attention"),
    **dict.fromkeys(("lfm2", "lfm3"), "layers are of type conv"),
    **dict.fromkeys(("falcon_h1", "zaya"), "layers are of type hybrid"),
    **dict.fromkeys(("inkling_text", "inkling2_text"), "layers are of type hybrid_sliding"),
    "deepseek_v4": "layers are of type heavily_compressed_attention",
    **dict.fromkeys(("rwkv", "xlstm"), "keep a recurrent state"),
    **dict.fromkeys(("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small"), "takes no position_ids"),
    **dict.fromkeys(("marian", "mbart", "mvp", "pegasus", "plbart", "roformer"), "takes no position_ids"),
    **dict.fromkeys(("trocr", "whisper"), "takes no logits_to_keep"),
    **dict.fromkeys(("big_bird", "gpt_neox_japanese", "megatron-bert", "openai-gpt"), "take no attention from outside"),
    **dict.fromkeys(("reformer", "rembert", "xglm", "xlm"), "take no attention from outside"),
    **dict.fromkeys(("camembert", "data2vec-text", "roberta", "roberta-prelayernorm"), "not computed exactly"),
    **dict.fromkeys(("xlm-roberta", "xlm-roberta-xl"), "not computed exactly"),
    **dict.fromkeys(("diffllama", "hrm_text"), "attend more than once in layer 0"),
    "doge": "mask their attention by a rule of their own",
    "gemma3n_text": "second embedding",
    "xmod": "do not compute text",
}

PROMPT_LENGTHS = (1, 3, 21, 40, 9, 17)
NUM_ANSWER_TOKENS = 12


def _engine(model: PreTrainedModel, *, accelerator: Accelerator | None = None, **limits: int) -> Engine:
    settings: dict[str, Any] = {"max_model_len": 120, "max_num_seqs": 8, "max_num_batched_tokens": 16, **limits}
    config = EngineConfig(kv_cache_bytes=1 << 20, **settings)
    return build_engine(model, fingerprint="tiny", config=config, accelerator=accelerator)


def _prompts() -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(VOCAB_SIZE - 1) for _ in range(length)] for length in PROMPT_LENGTHS]


def _assert_exact(model: PreTrainedModel, *, accelerator: Accelerator | None = None) -> list[list[int]]:
    """Every greedy token of six requests at once, in chunks of 16 tokens, is the stock model's own next token."""
    stock = copy.deepcopy(model)
    engine = _engine(model, accelerator=accelerator)
    prompts = _prompts()
    for request_id, prompt in enumerate(prompts):
        engine.add_request(request_id, prompt, SamplingParams(max_tokens=NUM_ANSWER_TOKENS, temperature=0))
    answers = run_to_end(engine)
    for request_id, prompt in enumerate(prompts):
        answer = answers[request_id]
        assert len(answer) == NUM_ANSWER_TOKENS
        with torch.inference_mode():
            logits = stock(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
        assert answer == logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    _assert_pooled_exactly(engine, stock)
    return list(answers.values())


def _assert_pooled_exactly(engine: Engine, stock: PreTrainedModel) -> None:
    """The mean of each prompt's last hidden states is that of the stock model under its head."""
    for request_id, prompt in enumerate(_prompts()):
        engine.add_request(request_id, prompt, None, is_pooled=True)
    means: dict[int, Any] = {}
    while engine.has_work:
        means |= {output.request_id: output.mean_hidden for output in engine.step()}
    for request_id, prompt in enumerate(_prompts()):
        body: Any = stock.model if stock.base_model is stock else stock.base_model  # llama4 names it wrongly
        with torch.inference_mode():
            states = body(input_ids=torch.tensor([prompt]), use_cache=False).last_hidden_state[0]
        np.testing.assert_allclose(means[request_id], states.mean(dim=0).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", SERVED)
def test_is_served_exactly(family: str) -> None:
    answers = _assert_exact(family_model(family))
    assert len({token for answer in answers for token in answer}) > 3, "the answers prove nothing"


@pytest.mark.slow
@pytest.mark.parametrize("family", SERVED)
def test_is_served_exactly_page_by_page_and_recorded_where_it_can_be(family: str) -> None:
    """What a CUDA device does, in plain torch; a family that cannot be computed so must notice it at the start."""
    _assert_exact(family_model(family), accelerator=accelerator_of(CallRecorder()))


@pytest.mark.parametrize(("family", "is_recorded"), [("mixtral", True), ("gpt_neo", True), ("dbrx", False)])
def test_a_family_that_reads_numbers_back_is_not_recorded(
    family: str,
    is_recorded: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = CallRecorder()
    with caplog.at_level(logging.WARNING):
        _assert_exact(family_model(family), accelerator=accelerator_of(recorder))
    assert (recorder.num_replayed > 0) is is_recorded
    assert ("decode steps are not recorded: aten.nonzero" in caplog.text) is not is_recorded


@pytest.mark.parametrize(("family", "reason"), REFUSED.items())
def test_is_refused_by_name(family: str, reason: str) -> None:
    with pytest.raises(ModelUnsupported, match=reason) as refusal:
        _engine(family_model(family))
    assert family in str(refusal.value)


def test_every_causal_family_of_transformers_is_listed() -> None:
    refused, not_tried = _documented("Refused at start"), _documented("Not tried")
    assert sorted(refused) == sorted(REFUSED)
    assert sorted([*SERVED, *refused, *not_tried]) == sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
        ("falcon", {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4}),
        ("gemma2", {"attn_logit_softcapping": 0.5}),
        ("gpt_bigcode", {"multi_query": False}),
        ("gpt_neox", {"use_parallel_residual": False}),
        ("mistral", {"sliding_window": None}),
        ("mpt", {"n_heads": 4, "attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.7}}),
        ("opt", {"do_layer_norm_before": False}),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "layer_types": None}),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 2, "layer_types": None}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
    ],
)
def test_a_familys_other_settings_are_served_exactly(family: str, changes: dict[str, Any]) -> None:
    _assert_exact(family_model(family, **changes))


def test_an_encoder_decoder_is_refused_by_name() -> None:
    config = T5Config(vocab_size=VOCAB_SIZE, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(ModelUnsupported, match="t5 are not served: they have an encoder"):
        _engine(model_of(T5ForConditionalGeneration, config))


def test_falcon_with_alibi_is_refused_by_name() -> None:
    with pytest.raises(ModelUnsupported, match="falcon round their ALiBi"):
        _engine(family_model("falcon", alibi=True))


LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 128,
}


def test_longrope_is_served_up_to_where_it_depends_on_the_batch() -> None:
    model = family_model("phi3", rope_parameters=LONG_ROPE, original_max_position_embeddings=128)
    with pytest.raises(ModelUnsupported, match="longrope positions depend on the batch beyond 128 tokens"):
        _engine(model, max_model_len=129)
    _assert_exact(model)


def test_dynamic_rope_is_served_up_to_where_it_depends_on_the_batch() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    model = family_model("llama", rope_parameters=rope, max_position_embeddings=128)
    with pytest.raises(ModelUnsupported, match="dynamic positions depend on the batch beyond 128 tokens"):
        _engine(model, max_model_len=129)
    _assert_exact(model)


def test_llama4_is_served_up_to_where_its_queries_are_scaled_by_place() -> None:
    model = family_model("llama4_text", floor_scale=128, no_rope_layers=[1, 0, 1])
    with pytest.raises(ModelUnsupported, match="scaled beyond 127 tokens"):
        _engine(model, max_model_len=128)
    _assert_exact(model)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt_oss", "llama4_text"])
def test_the_self_check_sees_beyond_a_small_window(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model(family, **dict.fromkeys(("sliding_window", "attention_chunk_size"), 40))
    layers = range(model.config.num_hidden_layers)
    monkeypatch.setattr(families, "probe_reaches", lambda _: dict.fromkeys(layers, SEES_ALL))
    with pytest.raises(ModelUnsupported, match="after 59 tokens"):
        _engine(model)


def test_a_window_that_no_prompt_of_the_self_check_crosses_is_kept() -> None:
    model = family_model("mistral", sliding_window=70)
    stock = copy.deepcopy(model)
    engine = _engine(model, max_model_len=200)
    prompt = [token % 90 for token in range(0, 1000, 7)]
    engine.add_request(0, prompt, SamplingParams(max_tokens=20, temperature=0))
    answer = run_to_end(engine)[0]
    logits = stock(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
    assert answer == logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist()


@pytest.mark.parametrize("num_heads", [1, 2, 4, 6, 8, 12, 16, 24, 25, 32])
def test_alibi_slopes_are_those_of_transformers(num_heads: int) -> None:
    bias = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), num_heads, torch.float32)  # [H, 1, 2]
    assert torch.allclose(alibi_slopes(num_heads), bias[:, 0, 1])
