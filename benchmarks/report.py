"""results.md: figures against their targets, and what every server gave, as tables. Measures nothing."""

from collections.abc import Mapping, Sequence

from benchmarks.figures import Outcome, outcome_of
from benchmarks.machine import Machine
from benchmarks.percentiles import median
from benchmarks.results import Results
from benchmarks.samples import Sample
from benchmarks.scenarios import Scenario

COLUMNS = {
    "tokens_per_second": ("tokens/s", 1),
    "ttft_p50_ms": ("TTFT p50 ms", 0),
    "ttft_p95_ms": ("p95", 0),
    "ttft_p99_ms": ("p99", 0),
    "inter_token_p50_ms": ("inter-token p50 ms", 1),
    "inter_token_p95_ms": ("p95", 1),
    "inter_token_p99_ms": ("p99", 1),
    "post_to_first_token_p50_ms": ("POST to first token p50 ms", 0),
    "post_to_first_token_p95_ms": ("p95", 0),
    "ready_seconds": ("s to /ready", 1),
    "resident_mib": ("MiB at start", 0),
    "resident_after_use_mib": ("MiB after use", 0),
    "requests": ("requests", 0),
    "cached_tokens": ("cached tokens", 0),
}
"""Heading and decimals of each metric that a table shows, in their order."""

Row = tuple[str, str, int]


def write_report(results: Results, scenarios: Sequence[Scenario]) -> str:
    """The whole page as Markdown."""
    measured = [scenario for scenario in scenarios if any(each.scenario == scenario.name for each in results.records)]
    outcomes = [
        outcome_of(figure, [record for record in results.records if record.scenario == scenario.name])
        for scenario in measured
        for figure in scenario.figures
    ]
    parts = [_head(results), _figures(outcomes), *(_scenario(scenario, results) for scenario in measured)]
    return "\n\n".join(parts) + "\n"


def _head(results: Results) -> str:
    machine, options = results.machine, results.options
    lines = [
        f"Measured {machine.date} at commit {machine.commit}: {options.base.rstrip('/').rpartition('/')[2]}, "
        f"{options.dtype}, rounds: {options.rounds}, output tokens: {options.tokens}, "
        f"fewest requests of a run: {options.requests}. {_machine(machine)}",
        *(
            f"Void: {record.scenario}, {record.server}, round {record.round}: {record.failures[0]}"
            for record in results.records
            if record.is_void
        ),
    ]
    if results.left_out:
        lines.append(f"Left out: {'; '.join(results.left_out)}.")
    return "\n\n".join(lines)


def _machine(machine: Machine) -> str:
    parts = [
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB",
        f"accelerator: {machine.accelerator}",
        f"{machine.system}, Python {machine.python}",
        _named(machine.versions),
    ]
    if machine.peer_versions:
        parts.append(f"peers: {_named(machine.peer_versions)}")
    if machine.thread_settings:
        parts.append(_named(machine.thread_settings, sign="="))
    return "; ".join(parts) + "."


def _named(values: Mapping[str, str], *, sign: str = " ") -> str:
    return ", ".join(f"{name}{sign}{value}" for name, value in values.items())


def _figures(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [outcome.figure.name, _measured(outcome), _sides(outcome), _target(outcome), _verdict(outcome)]
        for outcome in outcomes
        if outcome.figure.target is not None or outcome.verdict != "not measured"
    ]
    title = "### Figures\n\nMedian of the rounds' values; in brackets the lowest and the highest of them."
    return f"{title}\n\n{_table(['figure', 'measured', 'medians', 'target', 'met'], rows)}"


def _measured(outcome: Outcome) -> str:
    if outcome.value is None:
        return outcome.verdict
    low, high = min(outcome.per_round), max(outcome.per_round)
    return f"**{outcome.value:.2f}{outcome.figure.unit}** ({low:.2f} to {high:.2f})"


def _sides(outcome: Outcome) -> str:
    if outcome.median_of is None or outcome.median_against is None:
        return ""
    return f"{outcome.median_of:.1f} and {outcome.median_against:.1f}"


def _target(outcome: Outcome) -> str:
    target = outcome.figure.target
    return f"{target.side} {target.limit:.4g}{outcome.figure.unit}" if target is not None else ""


def _verdict(outcome: Outcome) -> str:
    return {"met": "yes", "missed": "**no**", "no target": ""}.get(outcome.verdict, outcome.verdict)


def _scenario(scenario: Scenario, results: Results) -> str:
    by_row: dict[Row, list[Sample]] = {}
    for record in results.records:
        if record.scenario == scenario.name and not record.is_void:
            for sample in record.samples:
                by_row.setdefault((record.server, sample.arm, sample.clients), []).append(sample)
    title = f"### {scenario.name}: {scenario.summary}"
    if not by_row:
        return f"{title}\n\nEvery run is void."
    metrics = [name for name in COLUMNS if any(name in sample.values for each in by_row.values() for sample in each)]
    rows = [[*map(str, row), *(_median(samples, name) for name in metrics)] for row, samples in sorted(by_row.items())]
    return f"{title}\n\n{_table(['server', 'load', 'clients', *(COLUMNS[name][0] for name in metrics)], rows)}"


def _median(samples: Sequence[Sample], metric: str) -> str:
    values = [sample.values[metric] for sample in samples if metric in sample.values]
    return f"{median(values):.{COLUMNS[metric][1]}f}" if values else ""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
