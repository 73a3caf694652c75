"""GrammarCompiler: structures into constraints on tokens, off the event loop. Knows no HTTP and no engine thread."""

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedTokenizerFast

from server.engine.constraint import TokenConstraint
from server.text.reasoning import Thoughts
from server.text.structure.cache import CompiledGrammar, GrammarCache
from server.text.structure.constraint import GrammarConstraint, TokenSets
from server.text.structure.errors import StructureBusy, StructureInvalid, StructureUnsupported
from server.text.structure.grammar import GrammarWriter, tags_before
from server.text.structure.limits import StructureLimits
from server.text.structure.structures import Form, Grammar, Structure, ToolCalls
from server.text.structure.token_table import token_table
from server.text.structure.trial_program import parser_limits, problem_of
from server.text.structure.trials import GrammarTrials

logger = logging.getLogger(__name__)

_MAX_ERROR_CHARS = 300
_BASE_BYTES = 96 * 1024
_BYTES_PER_CHARACTER = 64
"""With these a cached grammar's estimated size is 1.05 to 2.2 times what it takes, for small schemas and large."""


class GrammarCompiler:
    """Compiles for one model. Its vocabulary may be larger than the tokenizer's: the ids beyond are never allowed.

    The tokenizer's table takes about a second to build; that is done by `prepare`, or else at the first call.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        vocab_size: int,
        *,
        stop_token_ids: Iterable[int],
        limits: StructureLimits | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._tokens = TokenSets.of(
            vocab_size, known_token_ids=tokenizer.get_vocab().values(), stop_token_ids=stop_token_ids
        )
        self._limits = limits or StructureLimits()
        self._writer = GrammarWriter(self._limits)
        self._cache = GrammarCache(max_bytes=self._limits.cache_bytes)
        self._trials = GrammarTrials()
        self._pool = ThreadPoolExecutor(self._limits.workers, thread_name_prefix="grammar")
        self._slots = asyncio.Semaphore(self._limits.workers)
        self._table: LLTokenizer | None = None
        self._table_lock = threading.Lock()

    async def compile(self, structure: Structure, thoughts: Thoughts = Thoughts.NONE) -> TokenConstraint:
        """A constraint for one answer, thoughts before it included; each choice of a request needs one of its own.

        Raises StructureInvalid, StructureBusy, StructureUnsupported.
        """
        await self.prepare()
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise StructureBusy("too many structures are being compiled; try again later") from None
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._compile, structure, thoughts)
        future.add_done_callback(self._release)
        return await asyncio.shield(future)

    @property
    def is_prepared(self) -> bool:
        """Whether the tokenizer's table is there."""
        return self._table is not None

    async def prepare(self) -> None:
        """Build the tokenizer's table, if that is still to be done. Raises StructureUnsupported."""
        if self._table is None:
            await asyncio.to_thread(self._built_table)

    def close(self) -> None:
        """Take no more structures, and end the processes in which they are tried out."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._trials.close()

    def _release(self, future: asyncio.Future[TokenConstraint]) -> None:
        """A worker is free again, be its caller still there or not."""
        self._slots.release()
        if not future.cancelled():
            future.exception()  # taken note of, so that asyncio does not complain when the caller has left

    def _built_table(self) -> LLTokenizer:
        with self._table_lock:
            if self._table is None:
                self._table = self._new_table()
            return self._table

    def _new_table(self) -> LLTokenizer:
        if not self._tokens.stop_token_ids:
            raise StructureUnsupported("this model has no token that ends an answer, so no structure can be kept to")
        try:
            return token_table(
                self._tokenizer.backend_tokenizer,
                num_tokens=max(self._vocab_size, len(self._tokenizer)),
                end_id=min(self._tokens.stop_token_ids),
            )
        except ValueError as error:
            logger.warning("structured output is not to be had with this tokenizer: %s", error)
            raise StructureUnsupported("structured output is not to be had with this model's tokenizer") from error

    def _compile(self, structure: Structure, thoughts: Thoughts) -> TokenConstraint:
        """Runs in a worker thread."""
        form = structure.form if isinstance(structure, ToolCalls) else structure
        if form is not None and (form is not structure or thoughts is not Thoughts.NONE):
            self._check_form(form, tags_before(structure, thoughts))
        grammar = self._grammar(self._writer.write(structure, thoughts), structure)
        return GrammarConstraint(grammar.matcher.deep_copy(), self._tokens)

    def _check_form(self, form: Form, tags: Sequence[str]) -> None:
        """Compile by itself what may be a part of a grammar, so that errors name its own field.

        A grammar whose texts may begin with one of the tags is refused: they cannot be left out of it.
        """
        matcher = self._grammar(self._writer.write_form(form, tags), form).matcher
        for tag in tags if isinstance(form, Grammar) else ():
            tag_ids = self._built_table().tokenize_str(tag)
            if matcher.deep_copy().validate_tokens(tag_ids) == len(tag_ids):
                raise StructureInvalid(form.field, f"may begin with {tag}, which has another meaning in this request")

    def _grammar(self, source: str, structure: Structure) -> CompiledGrammar:
        grammar = self._cache.get(source)
        if grammar is None:
            grammar = self._new_grammar(source, structure)
            self._cache.put(source, grammar)
        return grammar

    def _new_grammar(self, source: str, structure: Structure) -> CompiledGrammar:
        """Compile what has been tried out: from here on nothing can hang, or end this process."""
        is_calls = isinstance(structure, ToolCalls)
        seconds = self._limits.compile_tools_seconds if is_calls else self._limits.compile_seconds
        if problem := self._trials.problem_of(source, seconds):
            raise StructureInvalid(structure.field, _worded(problem))
        matcher = LLMatcher(self._built_table(), source, log_level=0, limits=parser_limits())
        if problem := problem_of(matcher):  # with this model's tokens
            raise StructureInvalid(structure.field, _worded(problem))
        return CompiledGrammar(matcher, _BASE_BYTES + _BYTES_PER_CHARACTER * len(source))


def _worded(error: str) -> str:
    """llguidance's message for a client: what a parser of patterns says last, or else the first line."""
    first, _, _ = error.strip().partition("\n")
    _, _, reason = error.rpartition("\nerror: ")
    line = "".join(c for c in reason.strip().partition("\n")[0] or first if c.isprintable())
    return line if len(line) <= _MAX_ERROR_CHARS else f"{line[:_MAX_ERROR_CHARS]}…"
