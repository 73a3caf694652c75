"""Packs: how rows are cut and laid out, and that losses and gradients are those of PEFT's own path for every method."""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from tests.engine.peft_kinds import every_kind
from tests.tiny import Family, tiny_model
from training.batch_loss import PackedLoss, PaddedLoss, choose_batch_loss
from training.errors import ConfigError
from training.examples import IGNORED_LABEL, Collator
from training.packed_model import PackedModel, can_pack
from training.packing import PackedRow, cut_packs, make_pack, unpadded_rows

CPU = torch.device("cpu")
SYSTEM = [5, 6, 7, 8]


def _rows(lengths: Sequence[int], *, shared: Sequence[int] = SYSTEM) -> list[PackedRow]:
    """Rows that begin alike, and are labelled in two places: somewhere within, and at their end."""
    generator = random.Random(0)
    rows = []
    for length in lengths:
        ids = [*shared, *(generator.randrange(256) for _ in range(length))]
        labels = [IGNORED_LABEL] * len(ids)
        labels[len(shared)] = ids[len(shared)]
        labels[-(length // 2) :] = ids[-(length // 2) :]
        rows.append(PackedRow(ids, labels))
    return rows


def _batch(rows: Sequence[PackedRow]) -> dict[str, torch.Tensor]:
    return Collator(pad_id=0)([{"input_ids": row.ids, "labels": row.labels} for row in rows])


def _gradients(model: Any, losses: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    torch.autograd.backward(list(losses))
    taken = [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]
    model.zero_grad()
    return taken


def _total(losses: Sequence[torch.Tensor]) -> float:
    return sum(loss.item() for loss in losses)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bloom"])
def test_losses_and_gradients_are_those_of_padded_rows(family: Family) -> None:
    rows = _rows([4, 9, 9, 15, 2])
    for adapter in every_kind(family)[1:7]:  # the first of each kind
        plain_losses = list(PaddedLoss(adapter.model, max_rows=8).pieces(_batch(rows)))
        plain = _gradients(adapter.model, plain_losses)
        losses = list(PackedLoss(adapter.model, max_tokens=30).pieces(_batch(rows)))
        packed = _gradients(adapter.model, losses)
        assert len(losses) > 1
        assert _total(losses) == pytest.approx(_total(plain_losses), rel=1e-5), adapter.kind
        for ours, theirs in zip(packed, plain, strict=True):
            assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm()), adapter.kind


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_layers_that_are_computed_again_give_the_same_gradients(family: Family) -> None:
    rows = _rows([4, 9, 9, 15, 2])
    for adapter in every_kind(family)[1:7]:
        adapter.model.train()
        taken = []
        for checkpointing in (False, True):
            losses = list(PackedLoss(adapter.model, max_tokens=30, checkpointing=checkpointing).pieces(_batch(rows)))
            assert len(losses) > 1  # all forward first: each backward has to find its own pack again
            taken.append(_gradients(adapter.model, losses))
        for kept, again in zip(*taken, strict=True):
            assert float((kept - again).norm()) <= 1e-6 * float(kept.norm()), adapter.kind


def test_padded_layers_that_are_computed_again_give_the_same_gradients() -> None:
    model = _soft_prompt(tiny_model("gpt2"))
    model.train()
    taken = []
    for checkpointing in (False, True):
        torch.manual_seed(3)  # of dropout: the second computing has to drop the same
        losses = list(PaddedLoss(model, max_rows=3, checkpointing=checkpointing).pieces(_batch(_rows([4, 9, 15, 2]))))
        taken.append(_gradients(model, losses)[0])
    torch.testing.assert_close(taken[1], taken[0], rtol=1e-6, atol=1e-9)


def test_layers_that_are_computed_again_keep_their_input_alone() -> None:
    model = _soft_prompt(tiny_model("llama"))
    model.train()
    kept = {}
    for checkpointing in (False, True):
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        packed = PackedModel(model, checkpointing=checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = packed.summed_loss(_rows([30, 40, 50]))
        kept[checkpointing] = sum(sizes)
        loss.backward()
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert kept[True] < kept[False] / 3


def test_a_prefix_is_not_lost_where_padded_layers_would_be_computed_again() -> None:
    prefix = _with_prefix(tiny_model("llama"))
    for packing in (True, False):
        with nullcontext() if packing else pytest.raises(ConfigError, match="gradient_checkpointing: a prefix"):
            choose_batch_loss(
                prefix, packing=packing, device=CPU, batch_size=8, tokens_per_pack=None, checkpointing=True
            )


def test_a_row_does_not_see_its_neighbours() -> None:
    model = _soft_prompt(tiny_model("llama"))
    packed = PackedModel(model)
    rows = _rows([3, 8, 20])
    alone = [packed.summed_loss([row]).item() for row in rows]
    assert packed.summed_loss(rows).item() == pytest.approx(sum(alone), rel=1e-5)
    assert packed.summed_loss(rows[::-1]).item() == pytest.approx(sum(alone), rel=1e-5)


def test_nothing_is_computed_for_frozen_weights_and_the_base_keeps_its_own_attention() -> None:
    base = tiny_model("llama")
    model = _soft_prompt(base)
    PackedModel(model).summed_loss(_rows([3, 8])).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == [
        "prompt_encoder.default.embedding.weight"
    ]
    assert base.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_a_bfloat16_base_gives_nearly_the_same_gradient(family: Family) -> None:
    rows = _rows([4, 9, 15])
    gradients = []
    for base in (tiny_model(family), tiny_model(family).bfloat16()):
        model = _soft_prompt(base)
        gradients += _gradients(model, [PackedModel(model).summed_loss(rows)])
    exact, rounded = gradients
    assert rounded.dtype == torch.float32
    assert float((exact - rounded).norm()) < 0.1 * float(exact.norm())


def test_dropout_of_the_base_is_off_in_packs() -> None:
    model = _soft_prompt(tiny_model("gpt2"))
    packed = PackedModel(model)
    rows = _rows([4, 9])
    calm = packed.summed_loss(rows).item()
    model.train()
    assert packed.summed_loss(rows).item() == calm


def test_what_packs_do_not_fit_is_padded() -> None:
    small: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
    }
    sliding = _soft_prompt(MistralForCausalLM(MistralConfig(num_key_value_heads=2, sliding_window=8, **small)))
    unknown = _soft_prompt(GPTNeoXForCausalLM(GPTNeoXConfig(**small)))
    known = _soft_prompt(tiny_model("llama"))
    assert [can_pack(model) for model in (sliding, unknown, known)] == [False, False, True]
    for model, packing in ((sliding, True), (known, False)):
        loss = choose_batch_loss(model, packing=packing, device=CPU, batch_size=8, tokens_per_pack=None)
        assert isinstance(loss, PaddedLoss)


def _soft_prompt(base: PreTrainedModel) -> Any:
    torch.manual_seed(1)
    return get_peft_model(base, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5))


def _with_prefix(base: PreTrainedModel) -> Any:
    return get_peft_model(base, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5))


# -- cutting and laying out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [1, 20, 40, 1000])
def test_packs_hold_every_row_once_and_keep_the_limit(max_tokens: int) -> None:
    rows = _rows([12, 3, 30, 3, 7, 8, 2])
    packs = cut_packs(rows, max_tokens=max_tokens)
    lengths = [len(row.ids) for pack in packs for row in pack]
    assert lengths == sorted(len(row.ids) for row in rows)
    for pack in packs:
        assert len(pack) == 1 or _num_computed(pack) <= max_tokens
    if max_tokens == 1000:
        assert len(packs) == 1


def test_packs_are_of_like_size() -> None:
    packs = cut_packs(_rows([10] * 9, shared=[]), max_tokens=80)
    assert [len(pack) for pack in packs] == [5, 4]


def test_a_common_beginning_is_laid_out_once() -> None:
    one = PackedRow([1, 2, 3, 4], [-100, -100, -100, 4])
    other = PackedRow([1, 2, 7], [-100, -100, 7])
    pack = make_pack([other, one], num_virtual_tokens=2, first_position=0, device=CPU)
    assert pack.ids.tolist() == [1, 2, 7, 3, 4]
    assert pack.positions.tolist() == [0, 1, 2, 3, 4, 4, 5]
    assert pack.predictors.tolist() == [3, 5]  # the shared 2 predicts 7, the own 3 predicts 4
    assert pack.targets.tolist() == [7, 4]
    assert pack.layout.num_shared == 4
    assert pack.layout.grid.tolist() == [4, 4, 5, 6]
    assert pack.layout.is_real.tolist() == [[True, False], [True, True]]
    assert pack.layout.places.tolist() == [0, 2, 3]


def test_equal_rows_keep_a_token_of_their_own() -> None:
    row = PackedRow([1, 2, 3], [-100, -100, 3])
    pack = make_pack([row, row], num_virtual_tokens=0, first_position=0, device=CPU)
    assert pack.ids.tolist() == [1, 2, 3, 3]
    assert pack.targets.tolist() == [3, 3]


def test_rows_without_a_label_are_left_out() -> None:
    rows = [PackedRow([1, 2], [-100, 2]), PackedRow([3, 4, 5], [-100, -100, -100])]
    assert unpadded_rows(_batch(rows)) == rows[:1]


def _num_computed(pack: Sequence[PackedRow]) -> int:
    return len(make_pack(pack, num_virtual_tokens=0, first_position=0, device=CPU).ids)
