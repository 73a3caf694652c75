"""An engine whose model says back what it is told; HTTP, text, store, scheduling and streams are the real ones."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

from adapters.base_model import open_base_model
from adapters.injections import Injection
from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from server.engine.async_engine import AsyncEngine
from server.engine.batch import Batch, ScheduledSequence, StepResult
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.constraint import TokenConstraint
from server.engine.engine import Engine
from server.engine.outputs import TokenLogprobs
from server.engine.scheduler import Scheduler
from server.services import Services
from tests.tiny import EOS_ID, tiny_tokenizer

MAX_MODEL_LEN = 8192
_BLOCK_SIZE = 16
_MAX_NUM_SEQS = 8
_STEP_SECONDS = 0.001
_COUNTING_SECONDS = 0.02
"""Of a step in which somebody counts: slow enough to be stopped."""
QUESTION = "The customer cannot find the invoice of order 1041. What do I answer?"
ANSWER = """Here is what to check, in this order:

1. **Billing → Invoices** has every invoice as PDF.
2. An order that is *not yet sent* has none.

| order | state | invoice |
| --- | --- | --- |
| 1041 | sent | ready |
| 1042 | packed | when it is sent |

```python
invoice = orders.get(1041).invoice()
```"""
ADAPTER_ANSWER = """Your invoice is ready: you find it under **Billing → Invoices**.

> Order 1041 was sent this morning.

I have also mailed it to you as PDF."""
_COUNT = re.compile(r"count to (\d+)")


def reply_to(message: str, *, num_virtual_tokens: int = 0) -> str:
    """What is said to a message: the message, numbers if it asks to count, or a sample; an adapter's rows first."""
    if message == QUESTION:
        return ADAPTER_ANSWER if num_virtual_tokens else ANSWER
    count = _COUNT.fullmatch(message)
    reply = " ".join(str(i) for i in range(1, int(count[1]) + 1)) if count else message
    return f"({num_virtual_tokens} rows) {reply}" if num_virtual_tokens else reply


def prompt_ids_of(message: str) -> list[int]:
    """The prompt of a chat of one message, in the tiny bases' chat format."""
    ids: list[int] = tiny_tokenizer()(f"user> {message}\nassistant> ", add_special_tokens=False)["input_ids"]
    return ids


class EchoRunner:
    """Answers the last user's message of each prompt with `reply_to`, a byte a step."""

    def __init__(self) -> None:
        self._tokenizer = tiny_tokenizer()
        self._replies: dict[int, list[int]] = {}  # by request; one whose client left stays, as the servers live shortly
        self._counting: set[int] = set()

    def require_fit(self, injection: Injection) -> None:
        """Any fits: nothing is computed."""

    def run(
        self,
        batch: Batch,
        injections: Mapping[int, Injection],
        constraints: Mapping[int, TokenConstraint],
    ) -> StepResult:
        """The next token of each sequence that samples."""
        del injections, constraints
        is_counting = any(item.sequence.request_id in self._counting for item in batch.items)
        time.sleep(_COUNTING_SECONDS if is_counting else _STEP_SECONDS)
        tokens = {item.sequence.request_id: self._next_token(item) for item in batch.items if item.samples}
        logprobs = {request_id: TokenLogprobs(token, -0.5, ()) for request_id, token in tokens.items()}
        wanted = {item.sequence.request_id for item in batch.items if _wants_logprobs(item)}
        return StepResult(tokens, {}, {i: logprobs[i] for i in logprobs.keys() & wanted})

    def _next_token(self, item: ScheduledSequence) -> int:
        sequence = item.sequence
        if sequence.request_id not in self._replies:
            prompt = self._tokenizer.decode(
                sequence.token_ids[sequence.num_virtual_tokens : sequence.num_prompt_tokens]
            )
            message = str(prompt).rpartition("\nassistant> ")[0].rpartition("user> ")[2]
            reply = reply_to(message, num_virtual_tokens=sequence.num_virtual_tokens)
            if _COUNT.fullmatch(message):
                self._counting.add(sequence.request_id)
            self._replies[sequence.request_id] = self._tokenizer(reply, add_special_tokens=False)["input_ids"]
        reply_ids = self._replies[sequence.request_id]
        position = sequence.num_output_tokens
        return reply_ids[position] if position < len(reply_ids) else EOS_ID


def _wants_logprobs(item: ScheduledSequence) -> bool:
    return item.sequence.params is not None and item.sequence.params.num_logprobs is not None


def echo_services(base_path: Path, store: Path) -> Services:
    """Services on a tiny base's tokenizer and shape; its weights are never read."""
    base = open_base_model(str(base_path), home=base_path)
    config = EngineConfig(max_model_len=MAX_MODEL_LEN, max_num_seqs=_MAX_NUM_SEQS)
    blocks = BlockManager(_MAX_NUM_SEQS * MAX_MODEL_LEN // _BLOCK_SIZE, _BLOCK_SIZE)
    engine = Engine(
        EchoRunner(),
        Scheduler(config, blocks),
        blocks,
        config,
        fingerprint=base.identity.fingerprint,
        vocab_size=len(base.tokenizer),
    )
    registry = AdapterRegistry(AdapterStore(store), base.identity, budget_bytes=1 << 26)
    return Services(AsyncEngine(engine), registry, base, frozenset({EOS_ID}), "float32")
