"""Several requests' streams as one request's. Knows no engine."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from server.text.deltas import TextDelta, Usage
from server.text.merging import merged


async def together(streams: Sequence[AsyncGenerator[TextDelta]], num_choices: int) -> AsyncGenerator[TextDelta]:
    """All deltas, of `num_choices` choices a stream, which are counted through; the very last has the usage of all.

    Closing this closes the streams, and so does the first exception of one of them.
    """
    shifted = [_shifted(stream, number * num_choices) for number, stream in enumerate(streams)]
    num_open, total = len(streams), Usage(0, 0, 0)
    async with aclosing(merged(shifted)) as deltas:
        async for delta in deltas:
            if delta.usage is None:
                yield delta
                continue
            num_open -= 1
            total = Usage(
                total.prompt_tokens + delta.usage.prompt_tokens,
                total.completion_tokens + delta.usage.completion_tokens,
                total.cached_tokens + delta.usage.cached_tokens,
            )
            yield replace(delta, usage=None if num_open else total)


async def _shifted(deltas: AsyncGenerator[TextDelta], first: int) -> AsyncGenerator[TextDelta]:
    async with aclosing(deltas):
        async for delta in deltas:
            yield replace(delta, index=first + delta.index)
