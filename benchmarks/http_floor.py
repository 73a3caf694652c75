"""What the floors above the engine can carry: many streams of a scripted engine, over sockets. Measures no model.

The client counts and checks bytes as they come, without parsing JSON before the end: it shares the machine.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adapters.base_model import open_base_model
from benchmarks.errors import RequestFailed
from benchmarks.scripted_engine import scripted_text

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFloor:
    """What came of it: streams that were complete and in order, events with text, seconds from first to last byte.

    CPU seconds are the server's, of all its threads and of the event loop's alone.
    """

    streams: int
    complete: int
    token_events: int
    tokens: int
    seconds: float
    cpu_seconds: float
    loop_cpu_seconds: float
    longest_stall_ms: float
    longest_stall_cpu_ms: float
    """What the event loop's thread computed in the longest such time, which is its own doing."""
    problems: tuple[str, ...]

    @property
    def events_per_second(self) -> float:
        return self.token_events / self.seconds

    @property
    def cpu_seconds_per_1000_events(self) -> float:
        return self.cpu_seconds / self.token_events * 1000

    @property
    def loop_cpu_seconds_per_1000_events(self) -> float:
        return self.loop_cpu_seconds / self.token_events * 1000


def measure_http_floor(
    base_name: str, *, home: Path, streams: int, tokens: int, rate: int, say: Callable[[str], None]
) -> HttpFloor:
    """Open so many streams of so many tokens at once, and read each to its end.

    `rate` is what the engine makes, in tokens a second; tokens that the server cannot carry one by one share an event.
    """
    base = open_base_model(base_name, home=home)
    expected, model = scripted_text(base, tokens), base.identity.name
    with tempfile.TemporaryDirectory() as store, _server(base_name, store, streams, rate) as (port, process):
        say(f"{streams} streams of {tokens} tokens, made at {rate:,} tokens/s")
        asyncio.run(_load(port, model, streams=min(streams, 16), tokens=8))  # not counted: everything warm
        cpu_before = _cpu(process)
        started = time.perf_counter()
        answers = asyncio.run(_load(port, model, streams=streams, tokens=tokens))
        seconds = time.perf_counter() - started
        cpu_after = _cpu(process)
        stall = _stop(process)
    checked = [_check(answer, expected) for answer in answers]
    return HttpFloor(
        streams=streams,
        complete=sum(problem is None for _, problem in checked),
        token_events=sum(events for events, _ in checked),
        tokens=streams * tokens,
        seconds=seconds,
        cpu_seconds=cpu_after["cpu_seconds"] - cpu_before["cpu_seconds"],
        loop_cpu_seconds=cpu_after["loop_cpu_seconds"] - cpu_before["loop_cpu_seconds"],
        longest_stall_ms=stall["longest_stall_ms"],
        longest_stall_cpu_ms=stall["longest_stall_cpu_ms"],
        problems=tuple(sorted({problem for _, problem in checked if problem is not None})),
    )


@contextmanager
def _server(base_name: str, store: str, streams: int, rate: int) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "benchmarks.scripted_server", base_name, store, str(streams), str(streams / rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(_line(process)["port"]), process
        finally:
            process.kill()


def _cpu(process: "subprocess.Popen[str]") -> dict[str, Any]:
    process.send_signal(signal.SIGUSR1)
    return _line(process)


def _stop(process: "subprocess.Popen[str]") -> dict[str, Any]:
    process.terminate()
    return _line(process)


def _line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    output: IO[str] | None = process.stdout
    assert output is not None, "it was asked for"
    line: dict[str, Any] = json.loads(output.readline() or "{}")
    if not line:
        raise RequestFailed("the scripted server ended early; its error is above")
    return line


async def _load(port: int, model: str, *, streams: int, tokens: int) -> list[bytes]:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Say it."}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    return list(await asyncio.gather(*(_one(port, head + body) for _ in range(streams))))


async def _one(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request)
    content = await reader.read(-1)
    writer.close()
    return content


def _check(content: bytes, expected: str) -> tuple[int, str | None]:
    """Events with text in one answer as it came, HTTP head and all, and what is wrong with it."""
    head, _, body = content.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return 0, f"refused: {body[:200]!r}"
    body = _unchunked(body)
    if not body.endswith(_DONE):
        return 0, "the stream broke off before [DONE]"
    events = [json.loads(event[6:]) for event in body.removesuffix(_DONE).split(b"\n\n") if event.startswith(b"data: ")]
    texts = [text for event in events if (text := event["choices"][0]["delta"].get("content"))]
    if "".join(texts) != expected:
        return len(texts), "the text is not the script's"
    return len(texts), None if events[-1]["choices"][0]["finish_reason"] == "length" else "no finish reason"


def _unchunked(body: bytes) -> bytes:
    """The content of a body in HTTP/1.1's chunked coding."""
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(body[:length])
        body = body[length + 2 :]
        if not length:
            break
    return b"".join(pieces)
