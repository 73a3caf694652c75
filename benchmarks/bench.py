"""Runs scenarios: each server in turn, each in a process of its own, one at a time. Knows no table and no plot."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.chat_format import default_chat_format
from benchmarks.errors import RequestFailed, ServerFailed
from benchmarks.launching import launch_of
from benchmarks.load import new_client
from benchmarks.options import Options
from benchmarks.process import free_port, running
from benchmarks.prompts import PromptWriter
from benchmarks.records import Record, in_turn
from benchmarks.results import Results
from benchmarks.samples import Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import Server
from benchmarks.session import Session
from benchmarks.workplace import Workplace

Say = Callable[[str], None]
Save = Callable[[Results], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs have in common. `kinds` are the servers that are installed; logs go to `logs`."""

    workplace: Workplace
    options: Options
    kinds: frozenset[str]
    logs: Path
    say: Say

    async def run(self, scenarios: Sequence[Scenario], results: Results, *, save: Save) -> Results:
        """Run scenarios and add their records to the results, which are saved after every run."""
        for scenario in scenarios:
            servers = [server for server in scenario.servers if server.kind in self.kinds]
            for missing in (server for server in scenario.servers if server.kind not in self.kinds):
                results = replace(results, left_out=(*results.left_out, f"{scenario.name}: {missing.label}"))
                self.say(f"{scenario.name}: {missing.label} is left out (no --peers directory holds it)")
            for number, server in in_turn(servers, self.options.rounds):
                self.say(f"{scenario.name}: round {number} of {self.options.rounds}: {server.label}")
                record = await self._record(scenario, server, number)
                results = replace(results, records=(*results.records, record))
                save(results)
        return results

    async def _record(self, scenario: Scenario, server: Server, number: int) -> Record:
        samples: list[Sample] = []
        ready_seconds: float | None = None
        failures: list[str] = []
        launch = launch_of(server, self.workplace, free_port(), tokens=self.options.tokens)
        log = self.logs / f"{scenario.name}-{_file_name(server.label)}-{number}.log"
        try:
            async with running(launch, log) as process, new_client() as client:
                ready_seconds = process.ready_seconds
                session = Session(
                    server=process,
                    adapters=self.workplace.adapter_names(server),
                    maker=self.workplace.maker(server.virtual_tokens),
                    client=client,
                    prompts=self._prompts(),
                    options=self.options,
                    round=number,
                )
                samples = await scenario.measure(session)
        except (ServerFailed, RequestFailed) as error:
            failures.append(str(error))
        failures += [
            f"{sample.arm}, {sample.clients} clients: {line}" for sample in samples for line in sample.failures
        ]
        for failure in failures[:3]:
            self.say(f"{scenario.name}: {server.label}: void: {failure}")
        return Record(
            scenario=scenario.name,
            server=server.label,
            round=number,
            ready_seconds=ready_seconds,
            samples=tuple(samples),
            failures=tuple(failures),
        )

    def _prompts(self) -> PromptWriter:
        tokenizer = self.workplace.base.tokenizer
        chat_format = default_chat_format(tokenizer)
        return PromptWriter(lambda text: len(chat_format.encode([{"role": "user", "content": text}], tokenizer)))


def _file_name(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
