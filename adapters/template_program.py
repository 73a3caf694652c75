"""The program that renders foreign chat templates, in a process of its own that can be ended.

A message is 4 bytes of length (little-endian) and JSON. In come renderings, out come texts or problems; the first
message out says that it has started. It ends with its input, or is killed when it computes for too long.
"""

import json
import resource
import signal
import sys
from typing import Any

from adapters.errors import ChatFormatError
from adapters.framing import message, read_message
from adapters.rendering import Rendering, render_here

MORE_MEMORY_BYTES = 512 << 20
"""What a template may use beside what the program has when it has started."""
COMPUTING_SECONDS = 0.5


def main() -> None:
    _limit()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    answer: dict[str, Any] = {"ready": True}
    while True:
        sink.write(message(json.dumps(answer)))
        sink.flush()
        task = read_message(source)
        if task is None:
            return
        answer = _answer(Rendering(**json.loads(task)))


def _answer(rendering: Rendering) -> dict[str, Any]:
    signal.setitimer(signal.ITIMER_PROF, COMPUTING_SECONDS)  # its signal ends the process
    try:
        return {"text": render_here(rendering)}
    except ChatFormatError as error:
        return {"overrun": True} if isinstance(error.__cause__, MemoryError) else {"problem": str(error)[:2000]}
    except MemoryError:
        return {"overrun": True}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":  # elsewhere it cannot be set to any purpose
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY_BYTES, used + MORE_MEMORY_BYTES))


if __name__ == "__main__":
    main()
