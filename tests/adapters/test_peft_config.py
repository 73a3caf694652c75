"""Our own reading of adapter_config.json: a whitelist, bounded, and never more than plain values."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import peft
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterInvalid, AdapterUnsupported
from adapters.peft_config import MAX_VIRTUAL_TOKENS, parse_peft_config
from adapters.peft_types import REFUSED, SERVED
from tests.adapters.making import peft_config

LAYERS = {"num_layers": 2, "num_attention_heads": 2, "token_dim": 4}
"""What a config of some kinds has to say beside the number of virtual tokens."""
FIELDS: dict[str, dict[str, Any]] = {
    "PREFIX_TUNING": LAYERS,
    "CARTRIDGE": LAYERS,
    "LORA": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]},
}


@pytest.mark.parametrize("peft_type", [kind.value for kind in peft.PeftType])
def test_every_peft_type_is_served_or_refused_by_name(peft_type: str) -> None:
    content = peft_config(peft_type=peft_type, **FIELDS.get(peft_type, {}))
    if peft_type in SERVED:
        assert parse_peft_config(content).kind == SERVED[peft_type] == peft_type.lower()
    else:
        with pytest.raises(AdapterUnsupported, match=f"'{peft_type}' is not served: {REFUSED[peft_type][:20]}"):
            parse_peft_config(content)


def test_no_peft_type_is_forgotten_or_both() -> None:
    assert set(SERVED) | set(REFUSED) == {kind.value for kind in peft.PeftType}
    assert not set(SERVED) & set(REFUSED)


def test_the_page_has_a_row_for_every_peft_type() -> None:
    page = Path(__file__).parents[2] / "docs" / "adapters.md"
    rows = {line.split("`")[1]: line for line in page.read_text().splitlines() if line.startswith("| `")}
    for peft_type in SERVED:
        assert "| served" in rows[peft_type]
    for peft_type, reason in REFUSED.items():
        assert rows[peft_type] == f"| `{peft_type}` | refused: {reason} |"


def test_a_type_that_is_newer_than_this_list_is_refused() -> None:
    with pytest.raises(AdapterUnsupported, match="'NEW_TUNING' is not served: served are CARTRIDGE, CPT, IA3"):
        parse_peft_config(peft_config(peft_type="NEW_TUNING"))


def test_a_huge_soft_prompt_is_refused_without_allocation() -> None:
    content = peft_config(num_virtual_tokens=4_000_000, token_dim=4096)
    tracemalloc.start()
    with pytest.raises(AdapterInvalid, match="num_virtual_tokens"):
        parse_peft_config(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("value", [0, -1, MAX_VIRTUAL_TOKENS + 1, "many", None, 1.5, [3], {}, 10**400])
def test_num_virtual_tokens_is_bounded(value: Any) -> None:
    with pytest.raises(AdapterInvalid, match=r"^adapter_config.json: 'num_virtual_tokens'"):
        parse_peft_config(peft_config(num_virtual_tokens=value))


def test_other_keys_are_never_interpreted(tmp_path: Any) -> None:
    trap = tmp_path / "trap"
    config = parse_peft_config(
        peft_config(
            prompt_tuning_init_state_dict_path=str(trap),
            tokenizer_name_or_path=str(trap),
            auto_mapping={"base_model_class": "os.system"},
            base_model_name_or_path="/etc/passwd",
        )
    )
    assert set(config.model_dump()) == {
        "peft_type",
        "task_type",
        "num_virtual_tokens",
        "token_dim",
        "num_transformer_submodules",
    }


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task_type": "SEQ_2_SEQ_LM"}, "SEQ_2_SEQ_LM"),
        ({"num_transformer_submodules": 2}, "encoder-decoder"),
    ],
)
def test_other_tasks_are_unsupported(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(AdapterUnsupported, match=problem):
        parse_peft_config(peft_config(**changes))


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"{", b"[]", b"null", b"{}", b'{"peft_type": 3}', b"\xff", b"[" * 200_000, b'{"a": ' * 200_000],
        *[peft_config(token_dim=0), peft_config(token_dim=1 << 40), peft_config(task_type="x" * 100)],
    ],
)
def test_what_is_not_a_config_is_refused(content: bytes) -> None:
    with pytest.raises(AdapterInvalid, match=r"^adapter_config.json: "):
        parse_peft_config(content)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(AdapterInvalid):
        parse_peft_config(content)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"arrow_config": {"top_k": 1}}, "arrow_config"),
        ({"kasa_config": {"beta": 1}}, "kasa_config"),
        ({"monteclora_config": {"seed": 1}}, "monteclora_config"),
        *[
            ({"init_lora_weights": start}, "init_lora_weights")
            for start in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")
        ],
    ],
)
def test_what_lora_cannot_have_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(AdapterUnsupported, match=f"^adapter_config.json: '{field}'.* is not served"):
        parse_peft_config(peft_config(peft_type="LORA", **FIELDS["LORA"] | changes))


def test_modules_to_save_of_ia3_are_refused() -> None:
    with pytest.raises(AdapterUnsupported, match="'modules_to_save' is not served"):
        parse_peft_config(peft_config(peft_type="IA3", modules_to_save=["lm_head"]))


@pytest.mark.parametrize(
    ("peft_type", "changes", "field"),
    [
        ("LORA", {"r": 0}, "r"),
        ("LORA", {"r": 257}, "r"),
        ("LORA", {"lora_alpha": 1e300}, "lora_alpha"),
        ("LORA", {"lora_alpha": None}, "lora_alpha"),
        ("LORA", {"rank_pattern": {"q_proj": "many"}}, "rank_pattern.q_proj"),
        ("LORA", {"rank_pattern": [1]}, "rank_pattern"),
        ("PREFIX_TUNING", {"num_layers": None}, "num_layers"),
        ("PREFIX_TUNING", {"num_layers": 10**9}, "num_layers"),
        ("PREFIX_TUNING", {"num_attention_heads": 3}, "token_dim"),
        ("PREFIX_TUNING", {"token_dim": None}, "token_dim"),
        ("CARTRIDGE", {"num_virtual_tokens": 5000}, "num_virtual_tokens"),
        ("MULTITASK_PROMPT_TUNING", {"num_tasks": 10**9}, "num_tasks"),
        ("MULTITASK_PROMPT_TUNING", {"num_ranks": 257}, "num_ranks"),
    ],
)
def test_numbers_of_each_kind_are_bounded(peft_type: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(AdapterInvalid, match=rf"^adapter_config.json: '{field}'"):
        parse_peft_config(peft_config(peft_type=peft_type, **FIELDS.get(peft_type, {}) | changes))


def test_an_adapter_of_another_library_is_refused_by_that_librarys_name() -> None:
    """The fields of AdapterHub's file, for a bottleneck of Pfeiffer's."""
    bottleneck = {"architecture": None, "original_ln_before": True, "reduction_factor": 16, "non_linearity": "relu"}
    content = {"config": bottleneck, "hidden_size": 64, "model_class": "LlamaAdapterModel", "model_type": "llama"}
    with pytest.raises(AdapterUnsupported, match=r"adapter_config\.json: this is an adapter of AdapterHub's format"):
        parse_peft_config(json.dumps(content).encode())
