"""The order of runs, and what becomes of failures: a small program in a process of its own stands for a peer."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.base_model import open_base_model
from benchmarks.bench import Bench
from benchmarks.errors import Interrupted
from benchmarks.load import Ask, run_closed_loop
from benchmarks.machine import machine_facts
from benchmarks.measure import Measure
from benchmarks.mixed_load import MixedLoad
from benchmarks.options import Options
from benchmarks.results import Results
from benchmarks.samples import Sample, sample_of_load
from benchmarks.scenarios import Scenario
from benchmarks.serve_bench import bench_serve
from benchmarks.servers import HOTPROMPT, TRANSFORMERS, Server
from benchmarks.session import Session
from benchmarks.workplace import Workplace

OTHER = Server(label="other", kind="transformers")

_PEER = """#!{python}
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        count = body["max_tokens"]
        self.send_response(200 if body["messages"] else 500)
        self.end_headers()
        for number in range(count):
            self.say({{"choices": [{{"delta": {{"content": "word "}}}}]}})
        self.say({{"choices": [], "usage": {{"prompt_tokens": 9, "completion_tokens": count}}}})
    def say(self, event):
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")
if {works}:
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
sys.exit("cannot start")
"""


@dataclass(frozen=True, slots=True)
class EmptyQuestion:
    """A measure with one request that its server refuses."""

    async def __call__(self, session: Session) -> list[Sample]:
        asks = [session.ask("m", "whole"), Ask("m", (), 4)]
        return [sample_of_load("base", 1, await run_closed_loop(session.client, session.target, asks, clients=1))]


@dataclass(frozen=True, slots=True)
class Signalled:
    """A measure in whose middle a signal comes; it notes its server."""

    signal: signal.Signals
    pids: list[int]

    async def __call__(self, session: Session) -> list[Sample]:
        self.pids.append(session.server.pid)
        os.kill(os.getpid(), self.signal)
        await asyncio.sleep(60)
        return []


def _scenario(*servers: Server, measure: Measure | None = None) -> Scenario:
    return Scenario(name="s", summary="", servers=servers, measure=measure or MixedLoad(), figures=())


def _write_peer(directory: Path, *, works: bool = True) -> Path:
    """A directory for --peers."""
    program = directory / "peers" / "transformers" / "bin" / "transformers"
    program.parent.mkdir(parents=True)
    program.write_text(_PEER.format(python=sys.executable, works=works))
    program.chmod(0o755)
    return directory / "peers"


class Benching:
    """A bench whose peer is a small program, with what it said and how often it saved."""

    def __init__(self, base: Path, directory: Path, options: Options, *, works: bool = True) -> None:
        peers = _write_peer(directory, works=works)
        workplace = Workplace(
            base=open_base_model(str(base), home=directory), dtype="float32", peers=peers, directory=directory
        )
        self.said: list[str] = []
        self.saved: list[Results] = []
        self._start = Results(machine=machine_facts(peers=None, installed=frozenset()), options=options, records=())
        self._bench = Bench(
            workplace=workplace,
            options=options,
            kinds=frozenset({"transformers"}),
            logs=directory,
            say=self.said.append,
        )

    async def run(self, scenarios: Sequence[Scenario]) -> Results:
        return await self._bench.run(scenarios, self._start, save=self.saved.append)


async def test_servers_take_turns_and_every_run_is_saved(tiny_base: Path, tmp_path: Path, options: Options) -> None:
    bench = Benching(tiny_base, tmp_path, replace(options, rounds=2))
    results = await bench.run([_scenario(TRANSFORMERS, OTHER)])
    turns = [(record.round, record.server) for record in results.records]
    assert turns == [(1, "transformers"), (1, "other"), (2, "transformers"), (2, "other")]
    assert [len(saved.records) for saved in bench.saved] == [1, 2, 3, 4]
    assert not any(record.is_void for record in results.records)
    assert [sample.values["completion_tokens"] for sample in results.records[0].samples] == [24, 48]


async def test_a_failed_request_makes_its_run_void(tiny_base: Path, tmp_path: Path, options: Options) -> None:
    bench = Benching(tiny_base, tmp_path, options)
    results = await bench.run([_scenario(TRANSFORMERS, measure=EmptyQuestion()), _scenario(OTHER)])
    void, whole = results.records
    assert "HTTP 500" in void.failures[0]
    assert not whole.is_void
    assert any("void" in line for line in bench.said)


async def test_a_server_that_does_not_start_makes_its_run_void_and_the_next_goes_on(
    tiny_base: Path, tmp_path: Path, options: Options
) -> None:
    results = await Benching(tiny_base, tmp_path, options, works=False).run([_scenario(TRANSFORMERS), _scenario(OTHER)])
    assert [record.server for record in results.records] == ["transformers", "other"]
    assert all("cannot start" in record.failures[0] for record in results.records)


async def test_what_is_not_installed_is_left_out_and_told(tiny_base: Path, tmp_path: Path, options: Options) -> None:
    bench = Benching(tiny_base, tmp_path, options)
    results = await bench.run([_scenario(HOTPROMPT)])
    assert results.records == ()
    assert results.left_out == ("s: hotprompt",)
    assert any("left out" in line for line in bench.said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_keeps_what_was_measured(
    tiny_base: Path, tmp_path: Path, options: Options, number: signal.Signals
) -> None:
    pids: list[int] = []
    first = _scenario(TRANSFORMERS)
    second = replace(first, name="t", measure=Signalled(number, pids))
    chosen = replace(options, scenarios=("s", "t"), base=str(tiny_base), peers=_write_peer(tmp_path))
    with pytest.raises(Interrupted):
        bench_serve(chosen, say=lambda _: None, scenarios=(first, second))
    [pid] = pids
    assert not Path(f"/proc/{pid}").exists()
    assert "| transformers | base | 1 |" in (options.out / "results.md").read_text()
