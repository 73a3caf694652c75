"""`hotprompt bench`: flags in, lines out. Imports what a command needs when it runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.terminal import FAILED, WRONG_USAGE, end

bench_app = typer.Typer(help="Measure hotprompt, and compare it with its peers.", no_args_is_help=True)


@bench_app.command("serve")
def bench_serve(
    scenario: Annotated[
        list[str] | None, typer.Option(help="What to measure; may be repeated. Default: everything.")
    ] = None,
    clients: Annotated[
        str | None, typer.Option(help="Numbers of clients, comma-separated. Default: 1,4,8,16,32.")
    ] = None,
    requests: Annotated[
        str | None,
        typer.Option(help="Fewest requests of a run; there are at least four for each client. Default: 16."),
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Output tokens of a request. Default: 64.")] = None,
    rounds: Annotated[
        str | None, typer.Option(help="How often each server takes its turn; medians are reported. Default: 3.")
    ] = None,
    peers: Annotated[
        Path | None,
        typer.Option(help="Directory with the virtual environments vllm and transformers, either or both."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model, as in hotprompt serve.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32. Default: bfloat16.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for results. Default: a new one, named by the time.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the scenarios and end.")] = False,  # noqa: FBT002
) -> None:
    """Measure hotprompt over HTTP, beside vLLM and transformers serve where they are installed.

    Writes results.json (everything), results.md (tables) and results.svg (a plot). See docs/benchmarks.md.
    """
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from adapters.errors import BaseModelError
    from benchmarks.errors import Interrupted, WrongUsage
    from benchmarks.options import Flags, read_options
    from benchmarks.scenarios import SCENARIOS

    if list_:
        width = max(len(each.name) for each in SCENARIOS)
        for each in SCENARIOS:
            typer.echo(f"{each.name:<{width}}  {each.summary}")
        return
    from benchmarks.serve_bench import bench_serve as run

    flags = Flags(
        scenario=scenario or (),
        clients=clients,
        requests=requests,
        tokens=tokens,
        rounds=rounds,
        base=base,
        dtype=dtype,
        peers=peers,
        out=out,
    )
    names = [each.name for each in SCENARIOS]
    try:
        options = read_options(flags, known=names, default_base=EMBEDDED_BASE_NAME, now=datetime.now(UTC))
        results = run(options, say=lambda line: typer.echo(line, err=True))
    except WrongUsage as error:
        end(WRONG_USAGE, *error.problems)
    except Interrupted:
        end(FAILED, f"interrupted; runs that had ended are in {options.out}")
    except (BaseModelError, OSError) as error:
        end(FAILED, str(error))
    typer.echo(f"results are in {options.out}")
    void = sum(record.is_void for record in results.records)
    if void:
        end(FAILED, f"{void} of {len(results.records)} runs are void: results.md says why")


@bench_app.command("quality")
def bench_quality(
    base: Annotated[str | None, typer.Option(help="Base model, as in hotprompt serve.")] = None,
) -> None:
    """Measure what bfloat16 and int8 cost in quality: perplexity of a text that comes with Python."""
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from adapters.errors import BaseModelError
    from adapters.home import home_directory
    from benchmarks.quality import measure_quality
    from server.engine.errors import NativeUnavailable

    try:
        results = measure_quality(base or EMBEDDED_BASE_NAME, home=home_directory(), say=typer.echo)
    except (BaseModelError, NativeUnavailable) as error:
        end(FAILED, str(error))
    exact, *others = results
    for other in others:
        typer.echo(f"{other.label} against {exact.label}: {other.perplexity / exact.perplexity - 1:+.2%}")


@bench_app.command("train")
def bench_train(
    data: Annotated[
        str | None,
        typer.Option(
            help="labels or answers (rows that are made up), or a file as in hotprompt train. Default: labels."
        ),
    ] = None,
    eval_data: Annotated[Path | None, typer.Option(help="Held-out rows, with a --data of your own.")] = None,
    steps: Annotated[str | None, typer.Option(help="Optimiser steps of 8 rows, on both sides. Default: 40.")] = None,
    rounds: Annotated[
        str | None, typer.Option(help="How often each side takes its turn; medians are reported. Default: 1.")
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(help="How many made-up rows are held out; judging takes long where they are. Default: 60."),
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(help="Highest learning rate, on both sides. Default: 0.01 of the reference, hotprompt's own."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model, as in hotprompt serve.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: cpu.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for results. Default: a new one, named by the time.")
    ] = None,
) -> None:
    """Measure hotprompt train against the reference recipe (PEFT and Trainer, float32, 8 batches of one row a step).

    Each side trains in a process of its own, in turn, on the same rows. Prints a table and writes it to results.md.
    """
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from adapters.errors import BaseModelError
    from benchmarks.errors import SideFailed, WrongUsage
    from benchmarks.train_bench import bench_train as run
    from benchmarks.train_bench import results_table
    from benchmarks.training_options import TrainBenchFlags, read_train_bench_options
    from client.terminal import quiet_transformers
    from training.errors import TrainingError

    flags = TrainBenchFlags(
        base=base,
        data=data,
        eval_data=eval_data,
        device=device,
        steps=steps,
        rounds=rounds,
        held_out=held_out,
        learning_rate=learning_rate,
        out=out,
    )
    quiet_transformers()
    try:
        options = read_train_bench_options(flags, default_base=EMBEDDED_BASE_NAME, now=datetime.now(UTC))
        figures = run(options, say=lambda line: typer.echo(line, err=True))
    except WrongUsage as error:
        end(WRONG_USAGE, *error.problems)
    except (BaseModelError, SideFailed, TrainingError, OSError) as error:
        end(FAILED, str(error))
    typer.echo(results_table(figures))


@bench_app.command("sweep")
def bench_sweep(
    base: Annotated[str | None, typer.Option(help="Base model, as in hotprompt serve.")] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="cpu or cuda.")] = "cpu",
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Optimiser steps of each prompt.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Rows of a step.")] = 4,
    data: Annotated[Literal["labels", "answers"], typer.Option(help="Kind of rows that are made up.")] = "labels",
) -> None:
    """Measure a sweep of six prompts trained together against six runs one after another."""
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from adapters.errors import BaseModelError
    from benchmarks.sweep_bench import bench_sweep as run
    from client.terminal import quiet_transformers
    from training.errors import TrainingError

    quiet_transformers()
    say = typer.echo
    name = base or EMBEDDED_BASE_NAME
    try:
        figures = run(name, device=device, steps=steps, rows=data, rows_of_step=batch_size, say=say)
    except (BaseModelError, TrainingError) as error:
        end(FAILED, str(error))
    say(f"{figures.candidates} prompts, {figures.steps} steps of {figures.rows_of_step} rows, {figures.dtype}")
    say(f"together: {figures.together:.1f} s; one after another: {figures.one_by_one:.1f} s; ratio {figures.ratio:.2f}")
    say(f"largest gap between the held-out losses of a prompt: {figures.largest_gap:.4f}")


@bench_app.command("http")
def bench_http(
    streams: Annotated[int, typer.Option(min=1, max=10_000, help="Streams at once.")] = 1000,
    tokens: Annotated[int, typer.Option(min=1, max=900, help="Tokens of each.")] = 100,
    rate: Annotated[int, typer.Option(min=1, max=1_000_000, help="Tokens that the engine makes in a second.")] = 12_000,
    base: Annotated[str | None, typer.Option(help="Base model whose tokenizer is used.")] = None,
) -> None:
    """Measure the server without a model: streams of an engine that says tokens from a script."""
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from adapters.errors import BaseModelError
    from adapters.home import home_directory
    from benchmarks.errors import RequestFailed
    from benchmarks.http_floor import measure_http_floor

    name = base or EMBEDDED_BASE_NAME
    try:
        floor = measure_http_floor(
            name, home=home_directory(), streams=streams, tokens=tokens, rate=rate, say=typer.echo
        )
    except (BaseModelError, RequestFailed) as error:
        end(FAILED, str(error))
    typer.echo(f"complete and in order: {floor.complete} of {floor.streams}")
    typer.echo(f"token events: {floor.token_events:,} for {floor.tokens:,} tokens, in {floor.seconds:.1f} s")
    typer.echo(f"{floor.events_per_second:,.0f} token events/s; {floor.tokens / floor.seconds:,.0f} tokens/s")
    typer.echo(
        f"server's CPU seconds for 1,000 token events: {floor.cpu_seconds_per_1000_events:.3f}, "
        f"{floor.loop_cpu_seconds_per_1000_events:.3f} of them the event loop's"
    )
    typer.echo(
        f"longest stall of the event loop: {floor.longest_stall_ms:.0f} ms; "
        f"longest in CPU time: {floor.longest_stall_cpu_ms:.0f} ms"
    )
    if floor.problems:
        end(FAILED, *floor.problems)


@bench_app.command("scrape")
def bench_scrape(
    base: Annotated[str | None, typer.Option(help="Base model, of which the tokenizer is used.")] = None,
    adapters: Annotated[int, typer.Option(min=1, max=10_000, help="Adapters that are there and used.")] = 1000,
    scrapes: Annotated[int, typer.Option(min=1, max=10_000, help="Scrapes that are measured.")] = 200,
) -> None:
    """Measure what one scrape of /metrics takes, in CPU time, over an engine that computes nothing."""
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from adapters.errors import BaseModelError
    from adapters.home import home_directory
    from benchmarks.scrape import measure_scrape

    try:
        cost = measure_scrape(base or EMBEDDED_BASE_NAME, home=home_directory(), adapters=adapters, scrapes=scrapes)
    except BaseModelError as error:
        end(FAILED, str(error))
    typer.echo(f"{cost.adapters:,} adapters, {cost.num_bytes / 1024:.0f} KiB a page, milliseconds of CPU:")
    for what, took in (("a whole request", cost.request), ("the page, all in use", cost.busy_page)):
        typer.echo(f"{what}: median {took.median:.1f}, p99 {took.p99:.1f}, longest {took.longest:.1f}")


@bench_app.command("decode")
def bench_decode(
    base: Annotated[str | None, typer.Option(help="Base model, as in hotprompt serve.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu. Default: cuda.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32. Default: bfloat16.")] = None,
    sequences: Annotated[
        str | None, typer.Option(help="Numbers of sequences, comma-separated. Default: 1,8,16,32,64.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Tokens of a prompt. Default: 1024.")] = None,
    steps: Annotated[str | None, typer.Option(help="Steps that are measured. Default: 64.")] = None,
    lora: Annotated[
        str | None, typer.Option(help="Also with so many LoRA adapters of rank 8 on every linear module. Default: 0.")
    ] = None,
) -> None:
    """Measure how near decoding comes to the speed of the device's memory, in this process, without HTTP.

    Prints a table: the time of a step, and the share of it that reading all weights and cached keys would take.
    """
    import torch

    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from adapters.errors import BaseModelError
    from adapters.home import home_directory
    from benchmarks.decode import decode_table, lora_table, measure_decode
    from benchmarks.decode_options import DecodeFlags, read_decode_options
    from benchmarks.errors import WrongUsage
    from client.terminal import quiet_transformers
    from server.engine.errors import CacheTooSmall, ModelUnsupported

    flags = DecodeFlags(
        base=base, device=device, dtype=dtype, sequences=sequences, context=context, steps=steps, lora=lora
    )
    try:
        options = read_decode_options(flags, default_base=EMBEDDED_BASE_NAME)
        if options.device.type == "cuda" and not torch.cuda.is_available():
            end(
                FAILED,
                "there is no CUDA device here, so nothing was measured; --device cpu measures this machine's CPU",
            )
        quiet_transformers()
        speeds = measure_decode(options, home=home_directory(), say=lambda line: typer.echo(line, err=True))
    except WrongUsage as error:
        end(WRONG_USAGE, *error.problems)
    except (BaseModelError, ModelUnsupported, CacheTooSmall) as error:
        end(FAILED, str(error))
    typer.echo(decode_table([speed for speed in speeds if not speed.adapters]))
    if options.lora:
        typer.echo("\n" + lora_table(speeds))
