"""The main job from end to end, as `make demo` runs it: train, register with a live server, chat, and measure.

1. Fetch real film reviews, and start a server with two other adapters.
2. Train `movie-sentiment` on the reviews with `hotprompt train`.
3. While three other streams run, on the base and on the other adapters, upload the new adapter.
4. Ask 300 held-out reviews of the base and of the adapter, streamed, through the stock `openai` client.
5. Hold the figures against what is promised, and exit with 1 when one is missed.

Everything goes through the command line and HTTP, as a user's would.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk
from rich.console import Console
from rich.table import Table

from adapters.embedded_base import EMBEDDED_BASE_NAME
from adapters.home import home_directory
from examples.movie_reviews import Review, fetch_reviews, split, write_rows

NAME = "movie-sentiment"
HELD_OUT = 300
NEIGHBOUR_TOKENS = 800
CONCURRENCY = 16
CONFIG = Path(__file__).with_name("movie_sentiment.yaml")

BASE_AT_MOST, ADAPTER_AT_LEAST, SECONDS_AT_MOST = 0.15, 0.84, 600


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Somebody else who chats while an adapter is registered."""

    model: str
    question: str


NEIGHBOURS = (
    Neighbour(EMBEDDED_BASE_NAME, "Tell me about the history of the city of Rome."),
    Neighbour("pirate", "What should I cook for dinner tonight?"),
    Neighbour("teacher", "Why is the sky blue?"),
)

OTHER_ADAPTERS = {
    "pirate": "You are a pirate captain. Answer every question as a pirate would, with many arrs.",
    "teacher": "You are a patient teacher. Explain everything in small steps, with an example.",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One promise and what was measured."""

    promise: str
    measured: str
    is_kept: bool


def main() -> None:
    """Run the demo. Exits with 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dtype", default="auto", help="of the served model; with float32, streams are compared exactly"
    )
    parser.add_argument("--work", type=Path, default=home_directory() / "demo", help="directory for data and store")
    arguments = parser.parse_args()
    console = Console()
    started = time.monotonic()
    figures = _demo(arguments.work, arguments.dtype, console)
    seconds = time.monotonic() - started
    figures.append(Figure(f"in under {SECONDS_AT_MOST} s", f"{seconds:.0f} s", seconds < SECONDS_AT_MOST))
    console.print(_table(figures))
    if not all(figure.is_kept for figure in figures):
        sys.exit(1)


def _demo(work: Path, dtype: str, console: Console) -> list[Figure]:
    console.rule("1. film reviews, and a server with two other adapters")
    train_reviews, test_reviews = split(fetch_reviews(work / "data"), held_out=HELD_OUT)
    console.print(f"{len(train_reviews)} reviews to train on, {len(test_reviews)} held out")
    train_file = write_rows(train_reviews, work / "data" / "train.jsonl")
    for name, text in OTHER_ADAPTERS.items():
        _run(
            "train",
            "--name",
            name,
            "--data",
            train_file,
            *_settings(prompt_tuning_init_text=text, max_steps=1),
            work=work,
        )
    with _server(work, dtype) as url:
        console.rule(f"2. training {NAME}")
        _run("train", "--config", CONFIG, "--name", NAME, "--data", train_file, work=work, store="trained")
        adapter = _published(work / "trained")
        return asyncio.run(_chat(url, adapter, test_reviews, work, dtype, console))


async def _chat(
    url: str, adapter: Path, reviews: list[Review], work: Path, dtype: str, console: Console
) -> list[Figure]:
    """Parts 3 and 4: everything that goes through the `openai` client."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        console.rule("3. registering it while three other streams run")
        figures = await _register_live(client, url, adapter, work, dtype, console)
        console.rule(f"4. {len(reviews)} held-out reviews, streamed")
        return figures + await _ask_reviews(client, reviews, console)


# -- 3: live registration ----------------------------------------------------------------------------------------------


async def _register_live(
    client: AsyncOpenAI, url: str, adapter: Path, work: Path, dtype: str, console: Console
) -> list[Figure]:
    """Stream to three neighbours, upload in the middle of it, and compare with what each says when it is alone."""
    alone = [await _neighbour_tokens(client, neighbour) for neighbour in NEIGHBOURS]
    started = [asyncio.Event() for _ in NEIGHBOURS]
    streams = [
        asyncio.create_task(_neighbour_tokens(client, neighbour, started=event))
        for neighbour, event in zip(NEIGHBOURS, started, strict=True)
    ]
    for event in started:
        await event.wait()
    before = time.monotonic()
    await asyncio.to_thread(_run, "adapters", "add", NAME, adapter, "--url", url, work=work)
    seconds = time.monotonic() - before
    still_running = sum(not stream.done() for stream in streams)
    together = await asyncio.gather(*streams)
    console.print(f"uploaded in {seconds:.2f} s, command line included; {still_running} of 3 streams ran on through it")
    complete = sum(answer.tokens == NEIGHBOUR_TOKENS for answer in together)
    figures = [
        Figure("the 3 other streams run on through it", f"{still_running} of 3", still_running == 3),
        Figure("the 3 other streams lose no token", f"{complete} of 3 complete", complete == 3),
    ]
    if dtype == "float32":
        same = sum(one.text == other.text for one, other in zip(alone, together, strict=True))
        figures.append(Figure("and change none (float32)", f"{same} of 3 the same", same == 3))
    return figures


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: int


async def _neighbour_tokens(
    client: AsyncOpenAI, neighbour: Neighbour, *, started: asyncio.Event | None = None
) -> Answer:
    stream = await client.chat.completions.create(
        model=neighbour.model,
        messages=[{"role": "user", "content": neighbour.question}],
        temperature=0,
        max_tokens=NEIGHBOUR_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    text, tokens = "", 0
    async for chunk in stream:
        text += _content(chunk)
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        if text and started is not None:
            started.set()
    return Answer(text, tokens)


# -- 4: held-out reviews -----------------------------------------------------------------------------------------------


async def _ask_reviews(client: AsyncOpenAI, reviews: list[Review], console: Console) -> list[Figure]:
    base = await _exact_match(client, EMBEDDED_BASE_NAME, reviews, console)
    adapter = await _exact_match(client, NAME, reviews, console)
    return [
        Figure(f"base exact match under {BASE_AT_MOST:.0%}", f"{base:.1%}", base < BASE_AT_MOST),
        Figure(f"adapter exact match at least {ADAPTER_AT_LEAST:.0%}", f"{adapter:.1%}", adapter >= ADAPTER_AT_LEAST),
    ]


async def _exact_match(client: AsyncOpenAI, model: str, reviews: list[Review], console: Console) -> float:
    """The share of reviews whose whole answer is the label."""
    gate = asyncio.Semaphore(CONCURRENCY)
    before = time.monotonic()
    answers = await asyncio.gather(*(_ask(client, model, review, gate) for review in reviews))
    hits = sum(answer.strip() == review.label for answer, review in zip(answers, reviews, strict=True))
    seconds = time.monotonic() - before
    console.print(f"{model}: {hits} of {len(reviews)} exact in {seconds:.0f} s; for instance {answers[0]!r}")
    return hits / len(reviews)


async def _ask(client: AsyncOpenAI, model: str, review: Review, gate: asyncio.Semaphore) -> str:
    async with gate:
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": review.question}],
            temperature=0,
            max_tokens=8,
            stream=True,
        )
        return "".join([_content(chunk) async for chunk in stream])


def _content(chunk: ChatCompletionChunk) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


# -- commands ----------------------------------------------------------------------------------------------------------


@contextmanager
def _server(work: Path, dtype: str) -> Iterator[str]:
    """A running server on a free port, as a process of its own; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [*_hotprompt(), "serve", "--store", str(work / "store"), "--port", str(port), "--dtype", dtype]
    process = subprocess.Popen(command, env=_environment())
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    sys.exit("the server did not start")


def _run(*arguments: object, work: Path, store: str = "store") -> None:
    """Run a hotprompt command; its output goes to the terminal."""
    words = [str(argument) for argument in arguments]
    place = [] if "--url" in words else ["--store", str(work / store)]
    subprocess.run([*_hotprompt(), *words, *place], check=True, env=_environment())


def _settings(**settings: object) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def _published(store: Path) -> Path:
    """The directory of the version that NAME stands for."""
    from adapters.store import AdapterStore

    opened = AdapterStore(store)
    return opened.path_of(opened.resolve(NAME)[1])


def _hotprompt() -> list[str]:
    return [sys.executable, "-m", "hotprompt"]


def _environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1"}


def _table(figures: list[Figure]) -> Table:
    table = Table("promise", "measured", "", title="hotprompt demo")
    for figure in figures:
        table.add_row(figure.promise, figure.measured, "kept" if figure.is_kept else "MISSED")
    return table


if __name__ == "__main__":
    main()
