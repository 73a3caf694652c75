"""An engine that computes nothing: its tokens are those of a script, all else is real. For measuring the floors above.

Knows no HTTP.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters.base_model import BaseModel
from adapters.injections import Injection
from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from server.engine.async_engine import AsyncEngine
from server.engine.batch import Batch, StepResult
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.constraint import TokenConstraint
from server.engine.engine import Engine
from server.engine.scheduler import Scheduler
from server.services import Services

_BLOCK_SIZE = 16
SCRIPT = "The quick brown fox, who jumps over 13 lazy dogs, is not tired: he goes on, and on, and on.\n"


class ScriptedRunner:
    """Says the script's tokens to every sequence, from the beginning and round again, in steps of a given time."""

    def __init__(self, script: Sequence[int], step_seconds: float) -> None:
        self._script = script
        self._step_seconds = step_seconds
        self._next_step = 0.0

    def require_fit(self, injection: Injection) -> None:
        """Any fits: nothing is computed."""

    def run(
        self,
        batch: Batch,
        injections: Mapping[int, Injection],
        constraints: Mapping[int, TokenConstraint],
    ) -> StepResult:
        """The next token of each sequence that samples; nothing is computed."""
        del injections, constraints
        time.sleep(max(0.0, self._next_step - time.perf_counter()))
        self._next_step = time.perf_counter() + self._step_seconds
        script = self._script
        return StepResult(
            tokens={
                item.sequence.request_id: script[item.sequence.num_output_tokens % len(script)]
                for item in batch.items
                if item.samples
            },
            failures={},
        )


def scripted_services(base: BaseModel, store: Path, *, max_num_seqs: int, step_seconds: float) -> Services:
    """Services on a base model's tokenizer alone, for so many sequences at once of up to 1,024 tokens each.

    A step takes `step_seconds`, in which nothing is computed.
    """
    config = EngineConfig(max_model_len=1024, max_num_seqs=max_num_seqs, max_num_batched_tokens=max(8192, max_num_seqs))
    blocks = BlockManager(max_num_seqs * 1024 // _BLOCK_SIZE, _BLOCK_SIZE)
    script = base.tokenizer.backend_tokenizer.encode(SCRIPT, add_special_tokens=False).ids
    engine = Engine(
        ScriptedRunner(script, step_seconds),
        Scheduler(config, blocks),
        blocks,
        config,
        fingerprint=base.identity.fingerprint,
        vocab_size=len(base.tokenizer),
    )
    registry = AdapterRegistry(AdapterStore(store), base.identity, budget_bytes=1 << 20)
    return Services(AsyncEngine(engine), registry, base, frozenset(), "float32")


def scripted_text(base: BaseModel, num_tokens: int) -> str:
    """What an answer of so many tokens says."""
    script = base.tokenizer.backend_tokenizer.encode(SCRIPT, add_special_tokens=False).ids
    text: str = base.tokenizer.backend_tokenizer.decode([script[i % len(script)] for i in range(num_tokens)])
    return text
