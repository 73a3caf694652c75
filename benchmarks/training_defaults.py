"""`python -m benchmarks.training_defaults`: short runs of each method's settings, judged by rows held out of the train
rows. Knows no test rows, and sets nothing: what docs/training.md says of defaults is chosen from its tables.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel

from adapters.base_model import choose_device, choose_dtype, load_weights
from adapters.embedded_base import EMBEDDED_BASE_NAME
from adapters.errors import BaseModelError
from adapters.probing import answering
from benchmarks.tried_settings import read_tries
from client.terminal import FAILED, WRONG_USAGE, end, quiet_transformers
from training.config import TrainConfig
from training.config_reading import load_train_config
from training.errors import ConfigError, TrainingError
from training.examples import IGNORED_LABEL, Example
from training.model import add_adapter, remove_adapter
from training.prepare import PreparedRun, prepare_run
from training.progress import training_progress
from training.trainer import build_trainer

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Judged:
    """Of held-out rows: nats per answer token, and the share whose every answer token is the likeliest one."""

    loss: float
    exact_match: float


@dataclass(frozen=True, slots=True)
class Options:
    """What all runs of a command have in common. `held_out` rows at most are judged, at equal distances."""

    base: str
    data: str
    steps: int
    batch_size: int
    held_out: int
    seed: int
    device: Device


def try_settings(
    method: str, tries: Mapping[str, Sequence[str]], options: Options
) -> Iterator[tuple[Mapping[str, str], Judged, float]]:
    """Every combination of the values, trained alone from the same rows in the same order; with seconds of CPU time.

    Raises TrainingError and BaseModelError.
    """
    console = Console(quiet=True)
    with tempfile.TemporaryDirectory(prefix="hotprompt-defaults-") as name:
        directory = Path(name)
        combinations = [dict(zip(tries, values, strict=True)) for values in product(*tries.values())]
        configs = [_config(method, settings, options, directory) for settings in combinations]
        run = prepare_run(configs[0], console)
        device = choose_device(options.device)
        weights = load_weights(run.base.path, dtype=choose_dtype(configs[0].dtype, device), device=device)
        for settings, config in zip(combinations, configs, strict=True):
            start = time.process_time()
            judged = _trained(run, config, weights, options, directory, console)
            yield settings, judged, time.process_time() - start


def _config(method: str, settings: Mapping[str, str], options: Options, directory: Path) -> TrainConfig:
    return load_train_config(
        None,
        [],
        {
            "base": options.base,
            "data": options.data,
            "eval_fraction": 0.2,
            "name": "tried",
            "store": directory / "store",
            "device": options.device,
            "method": method,
            "max_steps": options.steps,
            "per_device_train_batch_size": options.batch_size,
            "seed": options.seed,
            "keep_best": False,
            **settings,
        },
    )


def _trained(
    run: PreparedRun,
    config: TrainConfig,
    weights: PreTrainedModel,
    options: Options,
    directory: Path,
    console: Console,
) -> Judged:
    assert run.held_out is not None
    model = add_adapter(weights, run.base, config, run.train.answered)
    with training_progress(console) as reporter:
        trainer = build_trainer(model, run, config, device=weights.device, output_dir=directory, reporter=reporter)
        trainer.train()
    judged = judge(model, run.held_out[:: -(-len(run.held_out) // options.held_out)])
    remove_adapter(model)
    return judged


def judge(model: PeftModel, examples: Sequence[Example]) -> Judged:
    """By PEFT's own path, row by row. A greedy answer is the expected one where each of its tokens is the likeliest."""
    total, tokens, exact = 0.0, 0, 0
    with answering(model):
        for example in examples:
            features = example.features()
            ids = torch.tensor([features["input_ids"]], device=model.device)
            labels = torch.tensor(features["labels"][1:], device=model.device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            wanted = labels != IGNORED_LABEL
            logits = logits[-ids.shape[1] : -1][wanted].float()  # [answer tokens, V]: virtual tokens have some too
            total += float(torch.nn.functional.cross_entropy(logits, labels[wanted], reduction="sum"))
            tokens += int(wanted.sum())
            exact += int((logits.argmax(dim=-1) == labels[wanted]).all())
    return Judged(total / tokens, exact / len(examples))


def _row(method: str, settings: Mapping[str, Any], judged: Judged, seconds: float) -> str:
    said = ", ".join(f"{key} {value}" for key, value in settings.items()) or "its defaults"
    return f"| `{method}` | {said} | {judged.loss:.3f} | {judged.exact_match:.1%} | {seconds:.0f} |"


def main(
    data: Annotated[str, typer.Option(help="Rows to train on; a fifth of them is held out, by --seed.")],
    method: Annotated[list[str], typer.Option(help="As in hotprompt train; may be repeated.")],
    try_: Annotated[
        list[str] | None,
        typer.Option("--try", help="key=value,value of a setting; may be repeated. Default: the method's own grid."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Optimiser steps of each run.")] = 12,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Rows of a step.")] = 8,
    held_out: Annotated[int, typer.Option(min=1, max=100_000, help="Held-out rows that are judged, at most.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the held-out rows, and the order of the others.")] = 7,
    base: Annotated[str, typer.Option(help="Base model, as in hotprompt train.")] = EMBEDDED_BASE_NAME,
    device: Annotated[Device, typer.Option(help="auto, cpu or cuda.")] = "cpu",
) -> None:
    """Try settings of each method in short runs, and print a table: held-out loss, exact match and CPU seconds."""
    quiet_transformers()
    options = Options(base, data, steps, batch_size, held_out, seed, device)
    typer.echo("| method | settings | held-out loss | exact match | CPU s |\n| --- | --- | --- | --- | --- |")
    try:
        for each in method:
            for settings, judged, seconds in try_settings(each, read_tries(each, try_ or ()), options):
                typer.echo(_row(each, settings, judged, seconds))
    except ConfigError as error:
        end(WRONG_USAGE, *error.problems)
    except (BaseModelError, TrainingError) as error:
        end(FAILED, str(error))


if __name__ == "__main__":
    typer.run(main)
