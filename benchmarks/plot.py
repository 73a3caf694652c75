"""results.svg: tokens per second against clients, a line for each server and load. Needs matplotlib (extra `bench`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.percentiles import median
from benchmarks.results import Results

Points = Mapping[int, float]

_METRIC = "tokens_per_second"


def curves(results: Results, scenarios: Sequence[str]) -> dict[str, Points]:
    """Median tokens per second by clients, for each server and load; of a load in several scenarios, the first's."""
    measured: dict[tuple[str, str], dict[str, dict[int, list[float]]]] = {}
    for record in results.records:
        if record.scenario not in scenarios or record.is_void:
            continue
        for sample in record.samples:
            by_scenario = measured.setdefault((record.server, sample.arm), {})
            by_scenario.setdefault(record.scenario, {}).setdefault(sample.clients, []).append(sample.values[_METRIC])
    return {
        f"{server}, {arm}": {clients: median(values) for clients, values in next(iter(by_scenario.values())).items()}
        for (server, arm), by_scenario in measured.items()
    }


def draw(lines: Mapping[str, Points], path: Path) -> None:
    """Draw curves into an SVG file. Raises ImportError where matplotlib is not installed."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for label, points in lines.items():
        clients = sorted(points)
        axes.plot(clients, [points[number] for number in clients], marker="o", label=label)
    axes.set_xlabel("clients")
    axes.set_ylabel("tokens/s")
    axes.set_xscale("log", base=2)
    ticks = sorted({number for points in lines.values() for number in points})
    axes.set_xticks(ticks, [str(number) for number in ticks])
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
