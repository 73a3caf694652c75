"""One training run from data to a published adapter, in marked stages. Parses no command line."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from adapters.base_model import choose_device, choose_dtype, load_weights
from adapters.errors import AdapterError
from adapters.files import read_adapter_directory
from adapters.manifest import AdapterManifest, EvaluationFacts, ManifestDraft, TrainingFacts
from adapters.probes import Probes
from training.attention import prefer_plain_attention
from training.card import model_card
from training.checkpoints import open_checkpoints, remove_checkpoints, steps_done, tokens_seen
from training.config import TrainConfig
from training.config_reading import config_yaml, scalars
from training.errors import NothingTrained, PublishFailed, TrainingError
from training.evaluate import Evaluation, Evaluator
from training.export import adapter_files
from training.measuring import measure_adapter, measure_base
from training.metrics_log import MetricsLog
from training.model import add_adapter, count_parameters, num_virtual_tokens, virtual_tokens_of
from training.prepare import PreparedRun, check_positions, prepare_run
from training.probes import make_probes
from training.progress import evaluation_progress, say, training_progress
from training.publishing import Destination, destination_of
from training.reporting import compared, draw, evaluation_facts, note
from training.run_directory import RunDirectory, open_run
from training.sources import source_name
from training.trainer import LossPoint, build_trainer

_KEYS_OF_THIS_MACHINE = {
    "base",
    "data",
    "eval_data",
    "store",
    "publish",
    "run_dir",
    "checkpoint_dir",
    "name",
    "init_adapter",
}
"""Recorded elsewhere in the manifest without paths, or of no use to others."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The published adapter, its directory in the store, the logged losses, and whether Ctrl-C ended the loop."""

    manifest: AdapterManifest
    path: Path
    losses: Sequence[LossPoint]
    interrupted: bool


@dataclass(frozen=True, slots=True)
class LoopFacts:
    """What the loop did. `tokens` are real ones: neither padding nor virtual tokens."""

    steps: int
    kept_step: int
    """The step whose adapter was kept: the last one, or that with the lowest held-out loss."""
    tokens: int
    tokens_per_second: float
    seconds: float
    losses: Sequence[LossPoint]
    interrupted: bool


def train(config: TrainConfig, *, console: Console | None = None, api_key: str | None = None) -> TrainResult:
    """Train an adapter, measure it, and publish it to the store, and to where `publish` says.

    `console` is told what happens; without one, nobody is.
    `api_key` is for a server there; it must be allowed to change adapters.

    Ctrl-C during the loop publishes what is trained so far; a second one stops at once. Raises TrainingError,
    NothingTrained when stopped before the first optimiser step, and what `prepare_run` raises.
    """
    disable_progress_bar()  # transformers' own, when it loads weights
    console = console or Console(quiet=True)
    with _nothing_to_save():
        # data, base model, tokens
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        destination = destination_of(config.publish, api_key=api_key) if config.publish is not None else None
        if destination is not None:
            destination.check()
        run = prepare_run(config, console)
        directory = open_run(config)
        say(console, f"settings, written to {directory.config}:\n{config_yaml(config).rstrip()}")

        # model
        weights = load_weights(run.base.path, dtype=dtype, device=device)
        check_positions(run, weights, config)
        prefer_plain_attention(
            weights,
            device=device,
            batch_size=config.per_device_train_batch_size,
            longest=run.train.longest + num_virtual_tokens(run.base, config),
        )
        model = add_adapter(weights, run.base, config, run.train.answered)
        _describe(model, run, device, dtype, console)

        # measure the base model
        evaluator = _evaluator(weights, run, config)
        before = _measure(evaluator, model, measure_base, "before training", console)
        note(directory, 0, before)

    # loop
    loop = _run_loop(model, run, config, device, directory, console)

    # measure the adapter
    after = None if loop.interrupted else _measure_unless_interrupted(evaluator, model, console)

    note(directory, loop.kept_step, after)
    comparison = compared(before, after, config, base_name=run.base.name, console=console)
    draw(
        directory,
        comparison,
        title=config.name,
        losses=loop.losses,
        console=console,
    )

    # publish
    result = _publish(model, run, config, dtype, loop, evaluation_facts(before, after, comparison), console)
    if config.checkpoint_dir is not None and not loop.interrupted:
        remove_checkpoints(config.checkpoint_dir)
    if destination is not None:
        _register(destination, result, config, console)
    return result


def _run_loop(
    model: PeftModel,
    run: PreparedRun,
    config: TrainConfig,
    device: torch.device,
    directory: RunDirectory,
    console: Console,
) -> LoopFacts:
    """Run the Trainer to its end or to Ctrl-C. Raises NothingTrained when no optimiser step was made."""
    interrupted = False
    with (
        _checkpoints(run, config) as (output_dir, checkpoint),
        training_progress(console, max_seconds=config.max_seconds) as reporter,
    ):
        with _nothing_to_save():
            trainer = build_trainer(
                model,
                run.train.examples,
                config,
                device=device,
                pad_id=run.base.tokenizer.eos_token_id,
                output_dir=output_dir,
                reporter=reporter,
                held_out=run.held_out,
                report=partial(say, console),
            )
        directory.go_on_from(steps_done(checkpoint))
        trainer.add_callback(MetricsLog(directory, trainer.keeper.measured if trainer.keeper is not None else {}))
        if checkpoint is not None:
            say(console, f"going on from {checkpoint.name} in {output_dir}")
        tokens_before = tokens_seen(checkpoint)
        start = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except KeyboardInterrupt:
            interrupted = True
        seconds = time.perf_counter() - start
    if trainer.keeper is not None:
        seconds -= trainer.keeper.seconds
        trainer.keeper.restore()
    steps = trainer.state.global_step
    if steps == 0:
        raise NothingTrained("interrupted before the first optimiser step: there is nothing to save")
    if interrupted:
        say(
            console, f"interrupted after {steps:,} optimiser steps; saving what is trained (Ctrl-C again: stop at once)"
        )
    tokens = int(trainer.state.num_input_tokens_seen)
    best = trainer.keeper.best if trainer.keeper is not None else None
    kept_step = steps if best is None else best.step
    return LoopFacts(steps, kept_step, tokens, (tokens - tokens_before) / seconds, seconds, trainer.losses, interrupted)


@contextmanager
def _checkpoints(run: PreparedRun, config: TrainConfig) -> Iterator[tuple[Path, Path | None]]:
    """Where Trainer may write, and the checkpoint to go on from."""
    if config.checkpoint_dir is None:
        with TemporaryDirectory(prefix="hotprompt-train-") as directory:
            yield Path(directory), None
        return
    decisive = config.model_dump(mode="json", exclude={"store", "publish", "run_dir", "checkpoint_dir", "save_steps"})
    facts = {"settings": decisive, "data": run.data_digest, "base": run.base.identity.model_dump(mode="json")}
    yield config.checkpoint_dir, open_checkpoints(config.checkpoint_dir, facts)


@contextmanager
def _nothing_to_save() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise NothingTrained("interrupted before the first optimiser step: there is nothing to save") from None


def _describe(model: PeftModel, run: PreparedRun, device: torch.device, dtype: torch.dtype, console: Console) -> None:
    count = count_parameters(model)
    say(console, f"base model: {run.base.name}, {_dtype_name(dtype)} on {device.type}")
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


def _probes_unless_interrupted(model: PeftModel, run: PreparedRun, loop: LoopFacts, console: Console) -> Probes | None:
    """Ctrl-C here gives up the probes, not the trained adapter; a second one stops at once."""
    try:
        say(console, "making probes")
        return make_probes(model, run.base.tokenizer, run.chat_format, run.held_out or run.train.answered)
    except KeyboardInterrupt:
        if loop.interrupted:
            raise
        say(console, "making probes interrupted; saving the adapter without them (Ctrl-C again: stop at once)")
        return None


def _publish(
    model: PeftModel,
    run: PreparedRun,
    config: TrainConfig,
    dtype: torch.dtype,
    loop: LoopFacts,
    evaluation: EvaluationFacts | None,
    console: Console,
) -> TrainResult:
    facts = TrainingFacts(
        method=config.method,
        data=", ".join(map(source_name, config.data))[:256],
        data_digest=run.data_digest,
        rows=len(run.train.examples),
        steps=loop.steps,
        interrupted=loop.interrupted,
        tokens=loop.tokens,
        tokens_per_second=loop.tokens_per_second,
        seconds=loop.seconds,
        trainable_parameters=count_parameters(model).trainable,
        final_loss=loop.losses[-1].loss if loop.losses else None,
        settings=_settings(model, config, dtype),
        evaluation=evaluation,
    )
    identity = run.base.identity
    probes = _probes_unless_interrupted(model, run, loop, console)
    draft = ManifestDraft(
        task=config.task_id, base=identity, chat_format=run.chat_format, training=facts, probes=probes
    )
    card = model_card(config.name, identity, facts, loop.losses)
    adapter = run.store.publish(config.name, adapter_files(model, draft, base_name=identity.name, card=card))
    digest = adapter.manifest.digest
    say(console, f"{loop.steps:,} steps in {loop.seconds:,.0f} s, {facts.tokens_per_second:,.0f} tokens/s")
    say(console, f"published {config.name} ({digest[:12]}) to {config.store}")
    return TrainResult(adapter.manifest, run.store.path_of(digest), loop.losses, loop.interrupted)


def _register(destination: Destination, result: TrainResult, config: TrainConfig, console: Console) -> None:
    """Half-trained adapters stay in the run's own store. Raises PublishFailed; the adapter is safe by then."""
    if result.interrupted:
        say(console, f"not registered at {config.publish}: the run was interrupted")
        return
    try:
        say(console, destination.register(config.name, read_adapter_directory(result.path)))
    except (TrainingError, AdapterError) as error:
        raise PublishFailed(f"{error} (the adapter is in {config.store})") from error


def _settings(model: PeftModel, config: TrainConfig, dtype: torch.dtype) -> dict[str, str | int | float | bool | None]:
    """The settings as they were used: with the length and the dtype that were worked out."""
    settings = scalars(config.model_dump(mode="json", exclude=_KEYS_OF_THIS_MACHINE | config.keys_without_meaning))
    text = config.init_text if config.starts_from_text else None
    return settings | {
        "num_virtual_tokens": virtual_tokens_of(model),
        "prompt_tuning_init_text": text,
        "dtype": _dtype_name(dtype),
    }


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
