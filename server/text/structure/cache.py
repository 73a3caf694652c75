"""GrammarCache: compiled grammars, least recently used first out, bounded in bytes. Knows no structure."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from llguidance import LLMatcher


@dataclass(frozen=True, slots=True)
class CompiledGrammar:
    """A grammar at its start. It is copied for each answer, and never advanced itself."""

    matcher: LLMatcher
    size: int
    """Bytes, as estimated."""


class GrammarCache:
    """Used by several threads at once."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._grammars: OrderedDict[str, CompiledGrammar] = OrderedDict()
        self._lock = threading.Lock()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._grammars)

    def get(self, source: str) -> CompiledGrammar | None:
        with self._lock:
            if source in self._grammars:
                self._grammars.move_to_end(source)
            return self._grammars.get(source)

    def put(self, source: str, grammar: CompiledGrammar) -> None:
        """Keep a grammar, and let go of those that there is no room for any more. One that is too large is not kept."""
        if grammar.size > self._max_bytes:
            return
        with self._lock:
            replaced = self._grammars.pop(source, None)
            self._grammars[source] = grammar
            self._num_bytes += grammar.size - (replaced.size if replaced else 0)
            while self._num_bytes > self._max_bytes:
                _, oldest = self._grammars.popitem(last=False)
                self._num_bytes -= oldest.size
