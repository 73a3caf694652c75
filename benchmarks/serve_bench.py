"""`hotprompt bench serve` from options to files: what is prepared, run and written. Reads no flags."""

import asyncio
import signal
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from adapters.base_model import open_base_model
from adapters.home import home_directory
from benchmarks.bench import Bench
from benchmarks.errors import Interrupted
from benchmarks.machine import machine_facts
from benchmarks.mixed_load import MixedLoad
from benchmarks.options import Options, installed_peers
from benchmarks.plot import curves, draw
from benchmarks.report import write_report
from benchmarks.results import Results, write_json
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.workplace import Workplace

REPORT_FILE, PLOT_FILE, LOGS = "results.md", "results.svg", "logs"


def bench_serve(options: Options, *, say: Callable[[str], None], scenarios: Sequence[Scenario] = SCENARIOS) -> Results:
    """Measure what the options name, and write results.json, results.md, results.svg and the servers' logs.

    Files are written after every run, so what was measured before an interruption is kept. Raises BaseModelError,
    and Interrupted after Ctrl-C or SIGTERM, with the server that ran ended.
    """
    set_verbosity_error()
    disable_progress_bar()
    base = open_base_model(options.base, home=home_directory())
    peers = installed_peers(options.peers)
    chosen = [scenario for scenario in scenarios if scenario.name in options.scenarios]
    (options.out / LOGS).mkdir(parents=True, exist_ok=True)
    start = Results(machine=machine_facts(peers=options.peers, installed=peers), options=options, records=())
    with tempfile.TemporaryDirectory(prefix="hotprompt-bench-") as directory:
        workplace = Workplace(base=base, dtype=options.dtype, peers=options.peers, directory=Path(directory))
        bench = Bench(
            workplace=workplace, options=options, kinds=peers | {"hotprompt"}, logs=options.out / LOGS, say=say
        )
        results = _run(bench.run(chosen, start, save=lambda results: _write(results, chosen)))
    _plot(results, chosen, say)
    return results


def _run(measuring: Coroutine[object, object, Results]) -> Results:
    """Run to the end, or until a signal: SIGTERM cancels as Ctrl-C does, so that no server is left behind."""

    async def cancelled_by_sigterm() -> Results:
        task = asyncio.ensure_future(measuring)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(cancelled_by_sigterm())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted("interrupted") from None


def _write(results: Results, scenarios: Sequence[Scenario]) -> None:
    write_json(results, results.options.out)
    (results.options.out / REPORT_FILE).write_text(write_report(results, scenarios), encoding="utf-8")


def _plot(results: Results, scenarios: Sequence[Scenario], say: Callable[[str], None]) -> None:
    swept = [each.name for each in scenarios if isinstance(each.measure, MixedLoad) and each.measure.clients is None]
    lines = curves(results, swept)
    if not lines:
        return
    try:
        draw(lines, results.options.out / PLOT_FILE)
    except ImportError:
        say(f"{PLOT_FILE} is not drawn: matplotlib is not installed (pip install 'hotprompt[bench]')")
