"""`python -m benchmarks.training_side JOB.json`: one side of `hotprompt bench train`, in a process of its own.

Trains on a job's data, and writes the prompt of every few steps with the time that it took. Judges nothing.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from safetensors.torch import save_file
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from adapters.base_model import choose_device, choose_dtype, load_weights
from benchmarks.training_memory import PeakMemory
from client.terminal import quiet_transformers
from training.config import TrainConfig
from training.config_reading import load_train_config
from training.memory import keep_few_kernels
from training.model import add_adapter
from training.prepare import PreparedRun, prepare_run
from training.trainer import OneDeviceArguments, build_trainer

SideName = Literal["reference", "hotprompt"]
PROMPT = "prompt"
REFERENCE_LEARNING_RATE = 1e-2
"""Of the reference, where none is given: recipes say from 5e-5 on, which would learn far more slowly."""


class Job(BaseModel):
    """What one side is to do. `directory` is its own; snapshots go there, and the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: SideName
    base: str
    data: Path
    eval_data: Path
    device: Literal["cpu", "cuda"]
    steps: int
    snapshot_steps: int
    learning_rate: float | None
    """None is each side's own."""
    directory: Path

    @property
    def result_file(self) -> Path:
        return self.directory / "result.json"

    def snapshot_file(self, step: int) -> Path:
        return self.directory / f"step-{step}.safetensors"

    def train_config(self) -> TrainConfig:
        """hotprompt's own settings: its defaults, but for what both sides are told."""
        flags: dict[str, object] = {
            "base": self.base,
            "data": self.data,
            "eval_data": self.eval_data,
            "name": "bench",
            "store": self.directory / "store",
            "device": self.device,
            "max_steps": self.steps,
            "learning_rate": self.learning_rate,
            "keep_best": False,  # the judge measures held-out rows, off the clock
        }
        return load_train_config(None, [], flags)


class Snapshot(BaseModel):
    """The prompt after a step is in a file; `seconds` of training until then."""

    step: int
    seconds: float


class SideResult(BaseModel):
    """What a side did. `tokens` are real ones, neither padding nor virtual.

    `peak_bytes` is memory above the loaded model, `whole_bytes` that of the whole process.
    """

    side: SideName
    dtype: str
    seconds: float
    tokens: int
    peak_bytes: int
    whole_bytes: int
    snapshots: list[Snapshot]


class SnapshotTaker(TrainerCallback):
    """Keeps the prompt of every few steps and the last, with the time since the first step began."""

    def __init__(self, job: Job, prompt: Callable[[], torch.Tensor]) -> None:
        self._job = job
        self._prompt = prompt
        self._start = 0.0
        self._saving = 0.0
        self.snapshots: list[Snapshot] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, state, control, kwargs
        self._start = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, control, kwargs
        if state.global_step % self._job.snapshot_steps and state.global_step < state.max_steps:
            return
        now = time.perf_counter()
        self.snapshots.append(Snapshot(step=state.global_step, seconds=now - self._start - self._saving))
        save_file({PROMPT: self._prompt().contiguous()}, self._job.snapshot_file(state.global_step))
        self._saving += time.perf_counter() - now


def run_side(job: Job) -> SideResult:
    """Train as the job's side does, and write its snapshots and its result."""
    config = job.train_config()
    run = prepare_run(config, Console(file=sys.stderr))
    device = choose_device(config.device)
    dtype = torch.float32 if job.side == "reference" else choose_dtype(config.dtype, device)
    weights = load_weights(run.base.path, dtype=dtype, device=device)
    memory = PeakMemory(list(weights.parameters()), device)
    build = _reference if job.side == "reference" else _hotprompt
    with tempfile.TemporaryDirectory() as output_dir:
        trainer, taker = build(job, run, config, weights, device, Path(output_dir))
        trainer.train()
    result = SideResult(
        side=job.side,
        dtype=str(dtype).removeprefix("torch."),
        seconds=taker.snapshots[-1].seconds,
        tokens=int(trainer.state.num_input_tokens_seen),
        peak_bytes=memory.above(),
        whole_bytes=memory.whole(),
        snapshots=taker.snapshots,
    )
    job.result_file.write_text(result.model_dump_json(indent=2) + "\n")
    return result


def _hotprompt(
    job: Job, run: PreparedRun, config: TrainConfig, weights: Any, device: torch.device, output_dir: Path
) -> tuple[Trainer, SnapshotTaker]:
    keep_few_kernels()  # as `train` does
    model = add_adapter(weights, run.base, config, run.train.answered)
    taker = SnapshotTaker(job, lambda: _prompt_of(model))
    trainer = build_trainer(
        model,
        run,
        config,
        device=device,
        output_dir=output_dir,
        reporter=taker,
    )
    return trainer, taker


def _reference(
    job: Job, run: PreparedRun, config: TrainConfig, weights: Any, device: torch.device, output_dir: Path
) -> tuple[Trainer, SnapshotTaker]:
    """The recipe as notebooks publish it: PEFT and Trainer, float32, one row at a time, eight of them a step."""
    tokenizer = run.base.tokenizer
    peft_config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        prompt_tuning_init=PromptTuningInit.TEXT,
        prompt_tuning_init_text=config.init_text,
        num_virtual_tokens=len(tokenizer(config.init_text)["input_ids"]),
        tokenizer_name_or_path=str(run.base.path),
    )
    model = get_peft_model(weights, peft_config)
    taker = SnapshotTaker(job, lambda: _prompt_of(model))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(
        model=model,
        args=OneDeviceArguments(
            output_dir=str(output_dir),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=8,
            learning_rate=REFERENCE_LEARNING_RATE if job.learning_rate is None else job.learning_rate,
            max_steps=job.steps,
            seed=config.seed,
            logging_steps=10,
            include_num_input_tokens_seen="non_padding",
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=[example.features() for example in run.train.examples],
        data_collator=DataCollatorForSeq2Seq(tokenizer=tokenizer, padding=True),
        callbacks=[taker],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, taker


def _prompt_of(model: PeftModel) -> torch.Tensor:
    """`[num_virtual_tokens, hidden_size]`."""
    prompt: torch.Tensor = model.get_prompt(batch_size=1)[0].detach().cpu()
    return prompt


if __name__ == "__main__":
    quiet_transformers()
    run_side(Job.model_validate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
