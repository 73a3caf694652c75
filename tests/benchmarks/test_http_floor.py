"""Many streams of the scripted engine over sockets: every one complete and in order."""

from pathlib import Path

import pytest

from benchmarks.http_floor import measure_http_floor


@pytest.mark.parametrize(("streams", "tokens"), [(20, 30), pytest.param(1000, 100, marks=pytest.mark.slow)])
def test_every_stream_is_whole_and_in_order(tiny_base: Path, streams: int, tokens: int) -> None:
    lines: list[str] = []
    home = str(tiny_base)
    floor = measure_http_floor(home, home=tiny_base, streams=streams, tokens=tokens, rate=20_000, say=lines.append)
    assert floor.problems == ()
    assert floor.complete == streams
    assert 0 < floor.token_events <= streams * tokens
    assert 0 < floor.loop_cpu_seconds <= floor.cpu_seconds
    assert floor.longest_stall_cpu_ms > 0
    assert lines == [f"{streams} streams of {tokens} tokens, made at 20,000 tokens/s"]
