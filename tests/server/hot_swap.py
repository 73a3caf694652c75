"""Hot swap under load: adapters come, are used, replaced and deleted while streams run, and every answer is checked.

Also a command, over another process with a tiny base: python -m tests.server.hot_swap --cycles 1000
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.percentiles import percentile
from server.api.answered_by import ADAPTER_HEADER
from tests.conformance.serving import serving
from tests.server.building import chat_body, multipart, soft_prompt_files
from tests.tiny import save_tiny_base

NUM_STREAMS = 16
NUM_STAYING = 3
NUM_CONTENTS = 24
NUM_VIRTUAL_TOKENS = 20
"""Of every content alike, and more than a block of the KV cache: what is kept of one could be taken for another's."""
NUM_WORKERS = 4
"""Cycles that go on at once, each under a name of its own; two of them often have one content."""
SHORT, LONG = 8, 64
"""Tokens of a first use, and of a stream that is running while its adapter is replaced and deleted."""
QUIET_SECONDS = 2.0
BASE = "tiny-llama"


@dataclass(slots=True)
class Report:
    """What came out; gaps are between a stream's chunks, in seconds."""

    cycles: int = 0
    answers: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    quiet_gaps: list[float] = field(default_factory=list)
    busy_gaps: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        quiet, busy = (1000 * percentile(gaps, 99) for gaps in (self.quiet_gaps, self.busy_gaps))
        return (
            f"{self.cycles} cycles at {NUM_STREAMS} streams in {self.seconds:.0f} s: {self.answers} answers, "
            f"{len(self.failed)} failed, {len(self.wrong)} wrong; "
            f"inter-token p99 {quiet:.1f} ms quiet, {busy:.1f} ms busy"
        )


@dataclass(frozen=True, slots=True)
class _Canary:
    """What one content answers alone."""

    digest: str | None
    short: str
    long: str


class HotSwap:
    """One run against a server; the base's name is BASE."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._canaries: list[_Canary] = []  # by content
        self._staying: dict[str, _Canary] = {}  # by model
        self._swapping = self._done = False
        self.report = Report()

    async def run(self, cycles: int) -> Report:
        """Learn what each content answers, then swap while streams run."""
        for content in range(NUM_CONTENTS):
            self._canaries.append(await self._alone(f"alone-{content}", content))
        assert len({canary.short for canary in self._canaries}) == NUM_CONTENTS, "two contents answer alike"
        self._staying[BASE] = _Canary(None, await self._text(BASE, SHORT), await self._text(BASE, LONG))
        for number in range(NUM_STAYING):
            await self._publish(f"staying-{number}", number)
            self._staying[f"staying-{number}"] = self._canaries[number]
        streams = [asyncio.create_task(self._stream_on(number)) for number in range(NUM_STREAMS)]
        await asyncio.sleep(QUIET_SECONDS)
        started, self._swapping = time.monotonic(), True
        pending = iter(range(cycles))
        await asyncio.gather(*(self._work(worker, pending) for worker in range(NUM_WORKERS)))
        self.report.seconds = time.monotonic() - started
        self._done = True
        await asyncio.gather(*streams)
        for name in list(self._staying)[1:]:
            await self._delete(name)
        return self.report

    # -- the streams beside -----------------------------------------------------------------------------------------

    async def _stream_on(self, number: int) -> None:
        """Stream one answer after the other from what stays."""
        model = list(self._staying)[number % len(self._staying)]
        while not self._done:
            await self._checked(f"beside on {model}", self._streamed(model, LONG), self._staying[model], LONG)

    # -- the cycles -------------------------------------------------------------------------------------------------

    async def _work(self, worker: int, pending: Any) -> None:
        for cycle in pending:
            try:
                await self._cycle(f"swap-{worker}", cycle)
            except (httpx.HTTPError, AssertionError) as error:
                self.report.failed.append(f"cycle {cycle}: {error!r}")
                await self._client.delete(f"/v1/adapters/swap-{worker}")
            self.report.cycles += 1

    async def _cycle(self, name: str, cycle: int) -> None:
        """Register, first use, replace and use with a stream on what was replaced, delete, and the stream's end."""
        old, new = (self._canaries[(cycle + step) % NUM_CONTENTS] for step in (0, 7))
        assert await self._publish(name, cycle % NUM_CONTENTS) == old.digest
        await self._checked(f"{name} first", self._streamed(name, SHORT), old, SHORT)
        begun = asyncio.Event()
        stream = asyncio.create_task(self._checked(f"{name} replaced", self._streamed(name, LONG, begun), old, LONG))
        try:
            await asyncio.wait_for(begun.wait(), 60)
            assert await self._publish(name, (cycle + 7) % NUM_CONTENTS) == new.digest
            await self._checked(f"{name} new", self._streamed(name, SHORT), new, SHORT)
            await self._delete(name)
            gone = await self._client.post("/v1/chat/completions", json=chat_body(name))
            assert gone.status_code == 404, "a deleted name answers"
        finally:
            await stream

    # -- requests ---------------------------------------------------------------------------------------------------

    async def _checked(
        self, what: str, pieces: AsyncGenerator[tuple[str | None, str]], canary: _Canary, num_tokens: int
    ) -> None:
        """Read a stream to its end and compare digest and text with what was answered alone."""
        text, digest, last = "", None, None
        try:
            async with aclosing(pieces):
                async for told, piece in pieces:
                    digest, now = told, time.monotonic()
                    if last is not None and what.startswith("beside"):
                        (self.report.busy_gaps if self._swapping else self.report.quiet_gaps).append(now - last)
                    last = now
                    text += piece
        except (httpx.HTTPError, AssertionError, KeyError) as error:
            self.report.failed.append(f"{what}: {error!r}")
            return
        self.report.answers += 1
        expected = canary.short if num_tokens == SHORT else canary.long
        if (digest, text) != (canary.digest, expected):
            self.report.wrong.append(f"{what}: {digest} {text!r}, not {canary.digest} {expected!r}")

    async def _streamed(
        self, model: str, num_tokens: int, begun: asyncio.Event | None = None
    ) -> AsyncGenerator[tuple[str | None, str]]:
        """The pieces of an answer, each with the digest that the header tells."""
        body = chat_body(model, max_tokens=num_tokens, ignore_eos=True, stream=True)
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise AssertionError(f"{response.status_code} {(await response.aread()).decode()}")
            adapter = response.headers.get(ADAPTER_HEADER)
            digest = adapter.partition("@")[2] if adapter else None
            last = ""
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    yield digest, chunk["choices"][0]["delta"].get("content") or ""
                    if begun is not None:
                        begun.set()
                last = line or last
            assert last == "data: [DONE]", "the stream broke off"

    async def _text(self, model: str, num_tokens: int) -> str:
        return "".join([piece async for _, piece in self._streamed(model, num_tokens)])

    async def _alone(self, name: str, content: int) -> _Canary:
        digest = await self._publish(name, content)
        canary = _Canary(digest, await self._text(name, SHORT), await self._text(name, LONG))
        await self._delete(name)
        return canary

    async def _publish(self, name: str, content: int) -> str:
        files = multipart(soft_prompt_files(content, num_virtual_tokens=NUM_VIRTUAL_TOKENS))
        response = await self._client.post("/v1/adapters", data={"name": name}, files=files)
        assert response.status_code == 201, response.text
        digest: str = response.json()["digest"]
        return digest

    async def _delete(self, name: str) -> None:
        response = await self._client.delete(f"/v1/adapters/{name}")
        assert response.status_code == 200, response.text


async def hot_swap(url: str, *, cycles: int) -> Report:
    """Run so many cycles against a tiny server."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        return await HotSwap(client).run(cycles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100)
    cycles: int = parser.parse_args().cycles
    with TemporaryDirectory() as directory:
        base = save_tiny_base("llama", Path(directory) / BASE)
        flags = ["--base", str(base), "--device", "cpu", "--dtype", "float32", "--kv-cache-memory", "16MiB"]
        with serving(Path(directory) / "store", Path(directory) / "log", *flags) as url:
            report = asyncio.run(hot_swap(url, cycles=cycles))
    lines = [str(report), *report.failed[:10], *report.wrong[:10]]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(bool(report.failed or report.wrong))


if __name__ == "__main__":
    main()
