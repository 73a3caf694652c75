"""One request's tokens on their way from the engine's thread to their reader. Knows no engine."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.engine.engine import SequenceOutput
from server.engine.errors import EngineError, ReaderStalled
from server.engine.outputs import Admission, FinishReason, PromptLogprobs, TokenDelta, TokenLogprobs

MAX_UNREAD_TOKENS = 2048
MAX_UNREAD_LOGPROBS = 512
"""Tokens with their probabilities: some kilobytes each."""


@dataclass(slots=True, eq=False)
class Stream:
    """Touched on the reader's event loop only; it has one reader.

    Tokens that nobody has read yet pile up here in one list, up to a bound; beyond it the request is aborted, and its
    reader, should it come back, gets what is here and then ReaderStalled.
    """

    loop: asyncio.AbstractEventLoop
    abort: Callable[[], object]
    pending: list[int] = field(default_factory=list)
    pending_logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: PromptLogprobs | None = None
    admission: Admission | None = None
    mean_hidden: NDArray[np.float32] | None = None
    finish_reason: FinishReason | None = None
    error: EngineError | None = None
    is_finished: bool = False
    has_news: bool = False
    waiter: asyncio.Future[None] | None = None

    def push(self, output: SequenceOutput) -> None:
        if self.is_finished:  # made before the abort was heard
            return
        if output.token_id is not None:
            self.pending.append(output.token_id)
        if output.logprobs is not None:
            self.pending_logprobs.append(output.logprobs)
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        self.admission = output.admission
        self.mean_hidden = output.mean_hidden
        self.finish_reason = output.finish_reason
        self.error = output.error
        self.is_finished = output.is_finished
        self._tell()
        if self._is_full() and not self.is_finished:
            self.fail(ReaderStalled(f"{len(self.pending)} tokens of this request wait to be read"))
            self.abort()

    def _is_full(self) -> bool:
        return len(self.pending) >= MAX_UNREAD_TOKENS or len(self.pending_logprobs) >= MAX_UNREAD_LOGPROBS

    def fail(self, error: EngineError) -> None:
        self.error = error
        self.is_finished = True
        self._tell()

    async def next_delta(self) -> TokenDelta:
        """Everything since the last delta, when there is something. Raises the request's error after its tokens.

        The event loop has a turn before each, also where it is there already.
        """
        if self.has_news:
            await asyncio.sleep(0)
        else:
            self.waiter = self.loop.create_future()
            await self.waiter
        self.has_news = False
        if self.error is not None and not self.pending:
            raise self.error
        if self.error is not None:
            self.has_news = True  # to be raised at the next call
        token_ids, self.pending = tuple(self.pending), []
        logprobs, self.pending_logprobs = tuple(self.pending_logprobs), []
        of_prompt, self.prompt_logprobs = self.prompt_logprobs, None
        return TokenDelta(token_ids, self.finish_reason, self.admission, logprobs, of_prompt)

    def _tell(self) -> None:
        self.has_news = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
