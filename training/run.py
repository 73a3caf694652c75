"""One training run from data to a published adapter, in marked stages. Parses no command line."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from adapters.base_model import choose_device, choose_dtype, load_weights
from training.attention import prefer_plain_attention
from training.checkpoints import (
    recall_run_directory,
    recall_sweep,
    remember_run_directory,
    remember_sweep,
    remove_checkpoints,
)
from training.config import TrainConfig
from training.config_reading import config_yaml
from training.errors import ConfigError
from training.evaluate import Evaluation, Evaluator
from training.loop import Checkpoints, nothing_to_save, opened_checkpoints, run_loop
from training.measuring import measure_adapter, measure_base
from training.memory import keep_few_kernels
from training.model import add_adapter, count_parameters, num_virtual_tokens, virtual_tokens_of
from training.prepare import PreparedRun, check_positions, prepare_run
from training.progress import evaluation_progress, say
from training.publishing import Destination, destination_of
from training.recording import TrainResult, dtype_name, publish, register
from training.reporting import compared, draw, evaluation_facts, note, note_scores
from training.run_directory import RunDirectory, open_run
from training.sweep import best_of, run_sweep
from training.tracking import Trackers, check_trackers, opened_trackers

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where and how the base model computes."""

    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Ready:
    """A model that is ready for the loop, the settings that it was made with, and the base model's measurement."""

    model: PeftModel
    config: TrainConfig
    evaluator: Evaluator | None
    before: Evaluation | None


@dataclass(frozen=True, slots=True)
class _Around:
    """Where a run writes, and whom it tells."""

    checkpoints: Checkpoints
    directory: RunDirectory
    trackers: Trackers
    console: Console


def train(config: TrainConfig, *, console: Console | None = None, api_key: str | None = None) -> TrainResult:
    """Train an adapter, measure it, and publish it to the store, and to where `publish` says.

    `console` is told what happens; without one, nobody is.
    `api_key` is for a server there; it must be allowed to change adapters.

    Ctrl-C during the loop publishes what is trained so far; a second one stops at once. Raises TrainingError,
    NothingTrained when stopped before the first optimiser step, and what `prepare_run` raises.
    """
    keep_few_kernels()
    disable_progress_bar()  # transformers' own, when it loads weights
    console = console or Console(quiet=True)
    with nothing_to_save():
        _refuse_many_processes()
        check_trackers(config.report_to)
        device = choose_device(config.device)
        place = _Place(device, choose_dtype(config.dtype, device))
        destination = _destination(config, api_key)
        run = prepare_run(config, console)
    with opened_checkpoints(run, config) as checkpoints:
        with nothing_to_save():
            directory = _opened_directory(config)
            say(console, f"settings, written to {directory.config}:\n{config_yaml(config).rstrip()}")
        with opened_trackers(
            config.report_to,
            tensorboard=directory.tensorboard,
            first_step=checkpoints.first_step,
            report=partial(say, console),
        ) as trackers:
            result = _carry_out(run, config, place, _Around(checkpoints, directory, trackers, console))
    if config.checkpoint_dir is not None and not result.interrupted:
        remove_checkpoints(config.checkpoint_dir)
    if destination is not None:
        register(destination, result, config, console)
    return result


def _refuse_many_processes() -> None:
    """Under torchrun each process would train alone, and all would publish under one name."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(["several processes (torchrun, accelerate) are not supported: start one, without a launcher"])


def _opened_directory(config: TrainConfig) -> RunDirectory:
    """A run that goes on goes on in its directory. Raises TrainingError."""
    if config.checkpoint_dir is None:
        return open_run(config)
    directory = open_run(config, known=recall_run_directory(config.checkpoint_dir))
    remember_run_directory(config.checkpoint_dir, directory.path)
    return directory


def _carry_out(run: PreparedRun, config: TrainConfig, place: _Place, around: _Around) -> TrainResult:
    directory, trackers, console = around.directory, around.trackers, around.console
    with nothing_to_save():
        ready = _get_ready(run, config, place, around)
    loop = run_loop(
        ready.model,
        run,
        ready.config,
        checkpoints=around.checkpoints,
        device=place.device,
        directory=directory,
        trackers=trackers,
        console=console,
    )
    after = None if loop.interrupted else _measure_unless_interrupted(ready.evaluator, ready.model, console)
    note(directory, trackers, loop.kept_step, after)
    comparison = compared(ready.before, after, config, base_name=run.base.name, console=console)
    draw(directory, comparison, title=config.name, losses=loop.losses, console=console)
    evaluation = evaluation_facts(ready.before, after, comparison)
    note_scores(trackers, loop.kept_step, evaluation)
    return publish(ready.model, run, ready.config, dtype=place.dtype, loop=loop, evaluation=evaluation, console=console)


def _destination(config: TrainConfig, api_key: str | None) -> Destination | None:
    """Where else the adapter goes, asked whether it can. Raises TrainingError."""
    if config.publish is None:
        return None
    destination = destination_of(config.publish, api_key=api_key)
    destination.check()
    return destination


def _get_ready(run: PreparedRun, config: TrainConfig, place: _Place, around: _Around) -> _Ready:
    console = around.console
    weights = load_weights(run.base.path, dtype=place.dtype, device=place.device)
    check_positions(run, weights, config)
    prefer_plain_attention(
        weights,
        device=place.device,
        batch_size=config.per_device_train_batch_size,
        longest=run.train.longest + num_virtual_tokens(run.base, config),
    )
    if config.sweep is not None:
        config = _swept(run, config, weights, place.device, around.directory, console)
    model = add_adapter(weights, run.base, config, run.train.answered)
    _describe(model, run, place, console)
    evaluator = _evaluator(weights, run, config)
    before = _measure(evaluator, model, measure_base, "before training", console)
    note(around.directory, around.trackers, 0, before)
    return _Ready(model, config, evaluator, before)


def _swept(
    run: PreparedRun,
    config: TrainConfig,
    weights: PreTrainedModel,
    device: torch.device,
    directory: RunDirectory,
    console: Console,
) -> TrainConfig:
    """The settings of the candidate that was best; a run that goes on does not sweep again."""
    facts = None if config.checkpoint_dir is None else recall_sweep(config.checkpoint_dir)
    if facts is None:
        facts = run_sweep(run, config, weights, device=device, console=console).to_json()
        if config.checkpoint_dir is not None:
            remember_sweep(config.checkpoint_dir, facts)
    directory.write_sweep(facts)
    chosen = best_of(config, run, facts)
    say(console, f"sweep: going on with {chosen.label}")
    return chosen.config


def _describe(model: PeftModel, run: PreparedRun, place: _Place, console: Console) -> None:
    count = count_parameters(model)
    say(console, f"base model: {run.base.name}, {dtype_name(place.dtype)} on {place.device.type}")
    say(
        console,
        f"trainable parameters: {count.trainable:,} of {count.total:,} ({count.share:.4%}), "
        f"{virtual_tokens_of(model)} virtual tokens",
    )


def _evaluator(weights: PreTrainedModel, run: PreparedRun, config: TrainConfig) -> Evaluator | None:
    if run.held_out is None:
        return None
    return Evaluator(
        weights, run.base.tokenizer, run.held_out, config.per_device_eval_batch_size, config.max_new_tokens
    )


def _measure(
    evaluator: Evaluator | None, model: PeftModel, how: Callable[..., Evaluation], when: str, console: Console
) -> Evaluation | None:
    if evaluator is None:
        return None
    with evaluation_progress(console, f"measuring {when}", len(evaluator.examples)) as advance:
        measured = how(evaluator, model, advance=advance)
    say(console, f"{when}: loss {measured.loss:.4f}, exact match {measured.exact_match:.1%}")
    return measured


def _measure_unless_interrupted(evaluator: Evaluator | None, model: PeftModel, console: Console) -> Evaluation | None:
    """Ctrl-C here gives up the measurement, not the trained adapter."""
    try:
        return _measure(evaluator, model, measure_adapter, "after training", console)
    except KeyboardInterrupt:
        say(console, "measuring interrupted; saving the adapter without it (Ctrl-C again: stop at once)")
        return None
