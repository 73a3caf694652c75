"""Batched greedy answers equal PEFT's own of each row alone, and the measures on them."""

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from adapters.chat_format import default_chat_format
from tests.tiny import EOS_ID, Family, load_peft, save_tiny_adapter, tiny_model, tiny_tokenizer
from tests.training.rows import ENGLISH
from training.conversation import alpaca
from training.evaluate import Evaluator, generate_greedily
from training.examples import Example, encode_rows
from training.model_format import LocalFormat

PROMPTS = [list(range(40, 40 + length)) for length in (1, 33, 7, 20, 2)]
NEW_TOKENS = 12


def _peft_answer(model: PeftModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    output: torch.Tensor = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS
    )
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer[: answer.index(EOS_ID)] if EOS_ID in answer else answer


@pytest.mark.parametrize("family", get_args(Family))
def test_every_row_is_what_peft_generates_for_it_alone(family: Family, tmp_path: Path) -> None:
    path = save_tiny_adapter(tiny_model(family), tmp_path / "adapter", num_virtual_tokens=5, seed=3)
    model = load_peft(tiny_model(family), path)
    expected = [_peft_answer(model, prompt) for prompt in PROMPTS]
    soft_prompt = model.get_prompt(batch_size=1)[0].detach()
    answers = generate_greedily(tiny_model(family), soft_prompt, PROMPTS, max_new_tokens=NEW_TOKENS, stop_ids=[EOS_ID])
    assert answers == expected
    assert len({tuple(answer) for answer in answers}) > 1


@pytest.mark.parametrize("family", get_args(Family))
def test_without_a_soft_prompt_it_is_the_bare_models_answer(family: Family) -> None:
    model = tiny_model(family)
    answers = generate_greedily(model, None, PROMPTS, max_new_tokens=NEW_TOKENS, stop_ids=[EOS_ID])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        alone = generate_greedily(model, None, [prompt], max_new_tokens=NEW_TOKENS, stop_ids=[EOS_ID])
        assert answer == alone[0]


def _examples() -> list[Example]:
    tokenizer = tiny_tokenizer()
    rows = [alpaca(row["instruction"], row["input"], row["output"]) for row in ENGLISH[:7]]
    return encode_rows(rows, LocalFormat(tokenizer, default_chat_format(tokenizer)), max_length=256).examples


def _plain_loss(model: PreTrainedModel, soft_prompt: torch.Tensor | None, examples: list[Example]) -> float:
    """Row by row, over all logits: what the evaluator works out in padded batches."""
    total, count = 0.0, 0
    for example in examples:
        embeds = model.get_input_embeddings()(torch.tensor([example.features()["input_ids"]]))
        if soft_prompt is not None:
            embeds = torch.cat([soft_prompt[None], embeds], dim=1)
        logits = model(inputs_embeds=embeds).logits[0, -len(example.answer_ids) - 1 : -1]
        total += float(cross_entropy(logits, torch.tensor(example.answer_ids), reduction="sum"))
        count += len(example.answer_ids)
    return total / count


@pytest.mark.parametrize("family", get_args(Family))
@pytest.mark.parametrize("num_virtual_tokens", [0, 5])
def test_the_loss_is_that_of_each_row_alone(family: Family, num_virtual_tokens: int) -> None:
    model, examples = tiny_model(family), _examples()
    torch.manual_seed(0)
    soft_prompt = torch.randn(num_virtual_tokens, model.config.hidden_size) if num_virtual_tokens else None
    done: list[int] = []
    evaluator = Evaluator(model, tiny_tokenizer(), examples, batch_size=3, max_new_tokens=2)
    with torch.no_grad():
        measured = evaluator.evaluate(soft_prompt, advance=done.append)
        assert measured.loss == pytest.approx(_plain_loss(model, soft_prompt, examples), rel=1e-5)
    assert measured.exact_match == 0
    assert done == [3, 3, 1]


def test_exact_match_counts_answers_equal_but_for_outer_blanks() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    prompts = [example.prompt_ids for example in _examples()[:4]]
    answers = generate_greedily(model, None, prompts, max_new_tokens=6, stop_ids=[EOS_ID])
    texts = [str(tokenizer.decode(answer)) for answer in answers]
    texts = [f" {texts[0]}\n", texts[1], texts[2] + "x", texts[3]]
    examples = [
        Example(prompt, [*answer, EOS_ID], text) for prompt, answer, text in zip(prompts, answers, texts, strict=True)
    ]
    evaluator = Evaluator(model, tokenizer, examples, batch_size=4, max_new_tokens=6)
    measured = evaluator.evaluate(None, advance=lambda _: None)
    assert measured.exact_match == 0.75
    assert math.isfinite(measured.loss)
