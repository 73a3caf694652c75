"""Text deltas to the chunks of OpenAI's chat streams, as JSON. Knows no event stream and no engine."""

from dataclasses import dataclass, field

import orjson

from server.api.random_ids import random_id
from server.api.wire import choice_logprobs, finish_name, usage_info
from server.protocol.chat import ChatCompletionChunk, ChunkChoice, Delta
from server.protocol.tools import FunctionCallDelta, ToolCallDelta
from server.protocol.usage import UsageInfo
from server.text.deltas import CallDelta, TextDelta, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkHead:
    """What all chunks of one answer have in common."""

    id: str
    created: int
    model: str
    include_usage: bool
    include_logprobs: bool


class ChunkWriter:
    """Writes one answer's chunks."""

    def __init__(self, head: ChunkHead, fingerprint: str) -> None:
        self._head = head
        self._fingerprint = fingerprint
        self._choices: dict[int, _ChoiceState] = {}

    def chunks(self, delta: TextDelta) -> list[bytes]:
        """The chunks of one delta: the role before a choice's first, its finish reason in one of its own."""
        written = []
        state = self._choices.get(delta.index)
        if state is None:
            state = self._choices[delta.index] = _ChoiceState(_ContentChunks(self, delta.index))
            written.append(self._chunk(delta.index, Delta(role="assistant", content="")))
        if delta.reasoning:
            written.append(self._chunk(delta.index, Delta(reasoning_content=delta.reasoning)))
        if delta.text and not delta.tokens:
            written.append(state.content.chunk(delta.text))
        elif delta.text or delta.tokens:
            written.append(self._chunk(delta.index, Delta(content=delta.text), delta))
        for call in delta.calls:
            # One in a chunk, as OpenAI sends them: there are clients that read no more of it.
            written.append(self._chunk(delta.index, Delta(tool_calls=[_call(call)])))
            state.has_calls = True
        if delta.finish_reason is not None:
            reason = finish_name(delta.finish_reason, has_calls=state.has_calls)
            choice = ChunkChoice(index=delta.index, delta=Delta(), finish_reason=reason)
            written.append(self.json([choice]))
        return written

    def usage(self, usage: Usage) -> bytes | None:
        """The last chunk, without choices, if it was asked for."""
        return self.json([], usage_info(usage)) if self._head.include_usage else None

    def json(self, choices: list[ChunkChoice], usage: UsageInfo | None = None) -> bytes:
        """One chunk. If asked for, `usage` is in each, if only as null."""
        chunk = ChatCompletionChunk(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=choices,
            system_fingerprint=self._fingerprint,
            usage=usage,
        )
        fields = chunk.model_dump(exclude=set() if self._head.include_usage else {"usage"})
        for choice in fields["choices"]:
            choice["delta"] = _without_nulls(choice["delta"])
        return orjson.dumps(fields)

    def _chunk(self, index: int, delta: Delta, made: TextDelta | None = None) -> bytes:
        logprobs = choice_logprobs(made.tokens) if made is not None and self._head.include_logprobs else None
        return self.json([ChunkChoice(index=index, delta=delta, logprobs=logprobs)])


class _ContentChunks:
    """Content chunks from a prefix and a suffix that are made once: twenty times faster than a model for each."""

    _MARK = "\ue000"

    def __init__(self, writer: ChunkWriter, index: int) -> None:
        # The text is the only thing that differs: what stands before and after it is cut out of one chunk.
        chunk = writer.json([ChunkChoice(index=index, delta=Delta(content=self._MARK))])
        self._prefix, _, self._suffix = chunk.rpartition(orjson.dumps(self._MARK))

    def chunk(self, text: str) -> bytes:
        return self._prefix + orjson.dumps(text) + self._suffix


@dataclass(slots=True)
class _ChoiceState:
    content: _ContentChunks
    has_calls: bool = field(default=False)


def _call(call: CallDelta) -> ToolCallDelta:
    function = FunctionCallDelta(name=call.name, arguments=call.arguments)
    if call.name is None:
        return ToolCallDelta(index=call.index, function=function)
    return ToolCallDelta(index=call.index, id=f"call_{random_id()}", type="function", function=function)


def _without_nulls(fields: dict[str, object]) -> dict[str, object]:
    """The same, without what is None, also inside."""
    return {name: _cleaned(value) for name, value in fields.items() if value is not None}


def _cleaned(value: object) -> object:
    if isinstance(value, dict):
        return _without_nulls(value)
    return [_cleaned(item) for item in value] if isinstance(value, list) else value
