"""`python -m benchmarks.scripted_server BASE STORE STREAMS STEP_SECONDS`: serves a scripted engine, watching its loop.

Prints a line of JSON when it serves (its port), one at each SIGUSR1 (CPU seconds so far), and one at its end: the
longest time that the event loop was away.
"""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import uvicorn

from adapters.base_model import open_base_model
from adapters.home import home_directory
from benchmarks.scripted_engine import scripted_services
from server.app import create_app
from server.collector import spare_the_collector
from server.config import Settings
from server.engine.async_engine import AsyncEngine
from server.serve import DrainingServer, begin_to_listen, open_listener, uvicorn_config

_TICK_SECONDS = 0.002


class StallWatch:
    """Measures, from inside an event loop, how late it wakes, and how much its thread computed in one such time.

    The second is the first as it would be if no other thread and no other program took the core, or up to a tick more.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.longest_cpu = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            before, cpu_before = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_TICK_SECONDS)
            self.longest = max(self.longest, time.perf_counter() - before - _TICK_SECONDS)
            self.longest_cpu = max(self.longest_cpu, time.thread_time() - cpu_before)


class WatchedServer(DrainingServer):
    """A server that watches its own event loop while it serves."""

    def __init__(self, config: uvicorn.Config, engine: AsyncEngine, watch: StallWatch) -> None:
        super().__init__(config, engine, grace_seconds=1)
        self._watch = watch

    async def main_loop(self) -> None:
        watching = asyncio.create_task(self._watch.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_cpu)
        try:
            await super().main_loop()
        finally:
            watching.cancel()


def main(base_name: str, store: str, num_streams: int, step_seconds: float) -> None:
    """Serve until SIGTERM."""
    base = open_base_model(base_name, home=home_directory())
    services = scripted_services(base, Path(store), max_num_seqs=num_streams, step_seconds=step_seconds)
    settings = Settings(base=base_name, store=Path(store), max_num_seqs=num_streams, max_num_batched_tokens=8192)
    app = create_app(services, settings)
    watch = StallWatch()
    with open_listener("127.0.0.1", 0) as listener:
        server = WatchedServer(uvicorn_config(app), services.engine, watch)
        begin_to_listen(listener)
        _tell(port=listener.getsockname()[1])
        spare_the_collector()
        server.run(sockets=[listener])
    _tell(longest_stall_ms=watch.longest * 1000, longest_stall_cpu_ms=watch.longest_cpu * 1000)


def _tell_cpu() -> None:
    """CPU seconds of the process, and of the event loop's thread, in which signals are handled."""
    _tell(cpu_seconds=time.process_time(), loop_cpu_seconds=time.thread_time())


def _tell(**values: float) -> None:
    print(json.dumps(values), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
