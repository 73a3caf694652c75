"""Our own reading of adapter_config.json: a whitelist, bounded, and never more than plain values."""

import tracemalloc
from typing import Any

import peft
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterInvalid, AdapterUnsupported
from adapters.peft_config import MAX_VIRTUAL_TOKENS, parse_peft_config
from tests.adapters.making import peft_config

SERVED = {"PROMPT_TUNING": "prompt_tuning", "P_TUNING": "p_tuning"}


@pytest.mark.parametrize("peft_type", [kind.value for kind in peft.PeftType])
def test_every_peft_type_is_served_or_refused_by_name(peft_type: str) -> None:
    content = peft_config(peft_type=peft_type)
    if peft_type in SERVED:
        assert parse_peft_config(content).kind == SERVED[peft_type]
    else:
        with pytest.raises(AdapterUnsupported, match=f"'{peft_type}' is not served"):
            parse_peft_config(content)


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
