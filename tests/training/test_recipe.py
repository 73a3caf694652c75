"""The training test: our loss curve is that of the same recipe written plainly with PEFT and Trainer."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from rich.console import Console
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from tests.tiny import Family
from tests.training.rows import CHINESE, ENGLISH, tiny_config
from training.run import train

INIT_TEXT = "下面是一段人与机器人的对话。"
MAX_LENGTH = 60  # cuts some of the rows
ROWS = [*ENGLISH, *CHINESE]


def _tokenised(row: dict[str, str], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    prompt = tokenizer("\n".join(["Human: " + row["instruction"], row["input"]]).strip() + "\n\nAssistant: ")
    answer = tokenizer(row["output"] + tokenizer.eos_token)
    ids = prompt["input_ids"] + answer["input_ids"]
    labels = [-100] * len(prompt["input_ids"]) + answer["input_ids"]
    return {
        "input_ids": ids[:MAX_LENGTH],
        "attention_mask": [1] * len(ids[:MAX_LENGTH]),
        "labels": labels[:MAX_LENGTH],
    }


def _reference_losses(base: Path, output_dir: Path, *, max_steps: int, **settings: Any) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        prompt_tuning_init=PromptTuningInit.TEXT,
        prompt_tuning_init_text=INIT_TEXT,
        num_virtual_tokens=len(tokenizer(INIT_TEXT)["input_ids"]),
        tokenizer_name_or_path=str(base),
    )
    trainer = Trainer(
        model=get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config),
        args=TrainingArguments(
            output_dir=str(output_dir),
            max_steps=max_steps,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=[_tokenised(row, tokenizer) for row in ROWS],
        data_collator=DataCollatorForSeq2Seq(tokenizer=tokenizer, padding=True),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("family", "batch_size", "accumulation", "learning_rate", "max_steps"),
    [
        ("llama", 1, 8, 1e-2, 50),
        ("llama", 4, 2, 1e-2, 50),
        ("llama", 10, 1, 1e-2, 20),
        ("bloom", 1, 8, 5e-5, 12),
        ("bloom", 4, 1, 1e-2, 12),
    ],
)
def test_our_losses_are_the_reference_recipes(
    tmp_path: Path,
    bases: dict[Family, Path],
    family: Family,
    batch_size: int,
    accumulation: int,
    learning_rate: float,
    max_steps: int,
) -> None:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": learning_rate,
        "seed": 7,
    }
    reference = _reference_losses(bases[family], tmp_path / "reference", max_steps=max_steps, **settings)
    config = tiny_config(
        bases[family],
        tmp_path,
        ROWS,
        max_steps=max_steps,
        max_length=MAX_LENGTH,
        chat_format="human_assistant",
        prompt_tuning_init_text=INIT_TEXT,
        train_sampling_strategy="random",
        **settings,
    )
    losses = [point.loss for point in train(config, console=Console(file=io.StringIO())).losses]
    assert len(losses) == len(reference) == max_steps
    assert losses == pytest.approx(reference, rel=1e-3)
    assert len({round(loss, 3) for loss in losses}) > max_steps // 2  # rows differ, so a wrong order would show
