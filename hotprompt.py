"""The front door: `hotprompt serve | train | adapters | chat | bench`. Reads flags; imports the rest when needed.

Exit codes: 0 done, 2 wrong usage, 1 failed. A user's mistake is one line on stderr for each problem.
"""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands import bench_app
from client.bare_flag import SweepCommand
from client.commands import adapters_app, chat
from client.terminal import FAILED, WRONG_USAGE, end, log_to_stderr, quiet_transformers, stderr, stdout

StoreOption = Annotated[
    str | None,
    typer.Option(help="Directory of the adapter store. Default: HOTPROMPT_STORE, or store in HOTPROMPT_HOME."),
]

app = typer.Typer(
    help="Serve one base model with many small adapters, and train them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(adapters_app, name="adapters")
app.add_typer(bench_app, name="bench")
app.command()(chat)


def main() -> None:
    """Run the command line."""
    # OpenMP's threads spin at every barrier by default. Beside any other busy thread (event loop, clients) that makes a
    # step many times slower, so they spin for a short while only. It counts if it is set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    app()


@app.command()
def serve(
    base: Annotated[
        str | None,
        typer.Option(
            help="Base model: smollm2-135m-instruct (embedded, the default), a model "
            "directory, or a hub id (owner/name)."
        ),
    ] = None,
    store: StoreOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[str | None, typer.Option(help="TCP port; 0 takes a free one. Default: 8000.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. Default: auto, CUDA where there is one.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="auto, bfloat16, float16 or float32. Default: auto, bfloat16 where the device computes in it."
        ),
    ] = None,
    max_model_len: Annotated[
        str | None,
        typer.Option(
            help="Most tokens of one request: virtual tokens, prompt and answer. "
            "Default: the model's context, at most 4096."
        ),
    ] = None,
    kv_cache_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory of the KV cache, as 512MiB or 2GiB. Default: 1GiB on the CPU (a "
            "quarter of the free memory if less), half of the free memory on CUDA."
        ),
    ] = None,
    adapter_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory of adapters' embeddings, as 512MiB or 2GiB; beyond it, those used last are kept. "
            "Default: 1GiB."
        ),
    ] = None,
    max_adapter_size: Annotated[
        str | None,
        typer.Option(
            help="Largest adapter_model.safetensors that is taken, as 512MiB or 2GiB; in memory, weights in 16 bits "
            "take twice that. Default: 512MiB."
        ),
    ] = None,
    max_num_seqs: Annotated[str | None, typer.Option(help="Most requests computed in one batch. Default: 64.")] = None,
    max_num_waiting: Annotated[
        str | None,
        typer.Option(
            help="Most requests that wait for a place in the batch; beyond them, a request is answered with 503. "
            "Default: 1024."
        ),
    ] = None,
    max_num_batched_tokens: Annotated[
        str | None,
        typer.Option(help="Most tokens computed in one step; longer prompts are cut into chunks. Default: 512."),
    ] = None,
    on_probe_mismatch: Annotated[
        str | None,
        typer.Option(
            help="refuse, or keep: what becomes of an adapter that does not answer its probes as it did where it was "
            "made. Kept, it is served and marked. Default: refuse."
        ),
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            help="none, or int8: faster, and nearly as good; for llama, mistral, qwen2 and qwen3 on a CPU with "
            "AVX-512 (BF16, VNNI). Default: none."
        ),
    ] = None,
    shutdown_grace_seconds: Annotated[
        str | None,
        typer.Option(help="Seconds that running requests get to finish after SIGTERM or Ctrl-C. Default: 30."),
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option(help="YAML file of keys for chat, each with a name, its models and its limits (docs/api.md)."),
    ] = None,
    requests_per_minute: Annotated[
        str | None,
        typer.Option(
            help="Most requests a minute of each key for chat, unless the key file says otherwise. Default: no limit."
        ),
    ] = None,
    tokens_per_minute: Annotated[
        str | None,
        typer.Option(
            help="Most tokens a minute of each key for chat, prompts and answers together, unless the key file says "
            "otherwise. Default: no limit."
        ),
    ] = None,
    cors_origins: Annotated[
        str | None,
        typer.Option(
            help="Origins whose web pages may call this server, comma-separated, as https://chat.example. "
            "Default: none."
        ),
    ] = None,
    adapter_roots: Annotated[
        str | None,
        typer.Option(
            help="Directories below which POST /v1/adapters and /v1/load_lora_adapter may read adapters, "
            "comma-separated. Default: none."
        ),
    ] = None,
    adapter_sources: Annotated[
        str | None,
        typer.Option(
            help="Prefixes below which POST /v1/adapters may fetch adapters, comma-separated: hf:// or hf://org, "
            "s3://bucket/path, gs://bucket/path, az://container/path. Default: none."
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text, or json: each line of the log an object. Default: text.")
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(help="debug, info, warning or error; from info on, a line for each request. Default: info."),
    ] = None,
    log_prompts: Annotated[
        bool | None,
        typer.Option("--log-prompts", help="Log what the model sees of each request. Default: no."),
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            help="OpenTelemetry collector that traces are sent to over HTTP, as http://127.0.0.1:4318. Default: none; "
            "it needs pip install 'hotprompt[otel]'."
        ),
    ] = None,
) -> None:
    """Serve the base model and its adapters. Each flag is also an environment variable, as HOTPROMPT_PORT.

    Keys come by the environment or the key file: HOTPROMPT_API_KEYS for chat, HOTPROMPT_ADMIN_KEYS for changing
    adapters.
    """
    flags = dict(locals())
    from server.config import SettingsError, load_settings

    try:
        settings = load_settings(**flags)
    except SettingsError as error:
        end(WRONG_USAGE, *str(error).splitlines())
    from server.telemetry.logs import start_logging

    start_logging(settings)
    quiet_transformers()
    from server.serve import StartError
    from server.serve import serve as run_server
    from server.start_print import print_start

    print_start(settings, {name for name, value in flags.items() if value is not None}, stderr())
    try:
        run_server(settings)
    except SettingsError as error:
        end(WRONG_USAGE, *str(error).splitlines())
    except StartError as error:
        end(FAILED, str(error))


@app.command(cls=SweepCommand)
def train(
    config: Annotated[Path | None, typer.Option(help="YAML file with settings, as in examples/.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: any setting of docs/training.md; may be repeated.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model, as in serve.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows to train on: JSON, JSONL, CSV, Parquet, a save_to_disk directory or a hub id; may be repeated."
        ),
    ] = None,
    eval_data: Annotated[
        list[str] | None, typer.Option(help="Held-out rows, measured before and after; may be repeated.")
    ] = None,
    eval_fraction: Annotated[
        str | None, typer.Option(help="Share of the rows to hold out, where there is no --eval-data.")
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Print so many rows as the model will see them, and train nothing."),
    ] = None,
    data_cache: Annotated[
        bool | None, typer.Option("--data-cache/--no-data-cache", help="Keep rows in tokens for the next run.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name to publish the adapter under.")] = None,
    store: StoreOption = None,
    publish: Annotated[
        str | None,
        typer.Option(help="Also register it there: another store's directory, or the URL of a running server."),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="HOTPROMPT_API_KEY", help="Key for that server.", show_envvar=True)
    ] = None,
    method: Annotated[str | None, typer.Option(help="Kind of adapter. Default: prompt_tuning.")] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KEY=VALUE,...]",
            help="Try learning rates and starts in short runs first, together, and train the best: alone for the usual "
            "grid, or as learning_rate=0.003,0.01; may be repeated.",
        ),
    ] = None,
    max_steps: Annotated[str | None, typer.Option(help="Optimiser steps. Default: as many as the epochs have.")] = None,
    max_minutes: Annotated[
        str | None, typer.Option(help="Longest time of training; the learning rate goes through its course in it.")
    ] = None,
    learning_rate: Annotated[str | None, typer.Option(help="Highest learning rate.")] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Compute layers again in the backward pass instead of keeping results: less memory, slower.",
        ),
    ] = None,
    seed: Annotated[str | None, typer.Option(help="Decides the order of the rows and random virtual tokens.")] = None,
    report_to: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]",
            help="Trackers to tell of losses and measures: tensorboard, mlflow, wandb, ... or none.",
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, bfloat16 or float32, of the base model.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
) -> None:
    """Train an adapter and publish it to the store. Flags go before --set, and that before --config."""
    flags = {key: value for key, value in locals().items() if key not in ("config", "set_", "preview", "api_key")}
    if preview is not None and name is None:
        flags["name"] = "preview"  # nothing is published
    from training.config_reading import load_train_config
    from training.errors import ConfigError, DataError, TrainingError

    try:
        settings = load_train_config(config, set_ or [], flags)
    except ConfigError as error:
        end(WRONG_USAGE, *error.problems)
    log_to_stderr(logging.WARNING)
    quiet_transformers()
    from adapters.errors import AdapterError, BaseModelError

    try:
        if preview is not None:
            from training.preview import print_preview

            print_preview(settings, stdout(), count=preview)
            return
        from training.run import train as run_training

        result = run_training(settings, console=stdout(), api_key=api_key)
    except ConfigError as error:
        end(WRONG_USAGE, *error.problems)
    except DataError as error:
        end(FAILED, *str(error).splitlines())
    except (TrainingError, AdapterError, BaseModelError) as error:
        end(FAILED, str(error))
    if result.interrupted:
        raise typer.Exit(FAILED)


@app.command()
def evaluate(
    adapter: Annotated[
        str,
        typer.Argument(metavar="ADAPTER", help="A directory, a name in the store, or one of the server."),
    ],
    data: Annotated[list[str], typer.Option(help="Held-out rows, in any form that train reads; may be repeated.")],
    base: Annotated[str | None, typer.Option(help="Base model, as in serve.")] = None,
    store: StoreOption = None,
    url: Annotated[str | None, typer.Option(help="A running server that answers, in place of this machine.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="HOTPROMPT_API_KEY", help="Key for the server.", show_envvar=True)
    ] = None,
    data_format: Annotated[str | None, typer.Option(help="Form of the rows. Default: auto.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="auto, classification or text. Default: auto, told by how few and short the answers are."),
    ] = None,
    with_base: Annotated[  # noqa: FBT002
        bool, typer.Option("--with-base/--without-base", help="Measure the base model beside it.")
    ] = True,
    limit: Annotated[str | None, typer.Option(help="Measure the first so many rows.")] = None,
    max_new_tokens: Annotated[
        str | None, typer.Option(help="Longest answer. Default: a little more than the longest expected one.")
    ] = None,
    batch_size: Annotated[str | None, typer.Option(help="Rows computed together. Default: 16.")] = None,
    seed: Annotated[str | None, typer.Option(help="Decides the resampled rows of the intervals. Default: 42.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, bfloat16 or float32, of the base model.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    report: Annotated[str | None, typer.Option(help="JSON file to write, with every figure and answer.")] = None,
    confusion: Annotated[
        str | None, typer.Option(help="Picture of the confusion matrices to write, PNG or SVG.")
    ] = None,
) -> None:
    """Measure an adapter on held-out rows, beside its base model."""
    flags = {key: value for key, value in locals().items() if value is not None}
    log_to_stderr(logging.WARNING)
    quiet_transformers()
    from adapters.errors import AdapterError, BaseModelError
    from training.config_reading import checked
    from training.errors import ConfigError, DataError, TrainingError
    from training.evaluate_adapter import EvaluateConfig, evaluate_adapter

    try:
        evaluate_adapter(checked(EvaluateConfig, flags), stdout())
    except ConfigError as error:
        end(WRONG_USAGE, *error.problems)
    except DataError as error:
        end(FAILED, *str(error).splitlines())
    except (TrainingError, AdapterError, BaseModelError) as error:
        end(FAILED, str(error))


if __name__ == "__main__":
    main()
