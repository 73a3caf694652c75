"""Conversation: a row of training data in one shape, whatever form it was stored in. Reads no file, knows no tokens."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages as a chat template takes them; the last one is the assistant's, and is learnt.

    A message is `role` and `content`, and `tool_calls`, `tool_call_id`, `name` or `reasoning_content` where it has
    them. `silent` are the indices of assistant messages that are read but not learnt. `place` says where the row was
    read, and is no part of its content.
    """

    messages: tuple[Message, ...]
    tools: tuple[Message, ...] = ()
    silent: frozenset[int] = frozenset()
    place: str = field(default="", compare=False)

    @property
    def turns(self) -> tuple[int, ...]:
        """Indices of the messages that are learnt, in order."""
        indices = range(len(self.messages))
        return tuple(i for i in indices if self.messages[i]["role"] == "assistant" and i not in self.silent)

    @property
    def canonical(self) -> str:
        """One line of JSON, equal for equal content."""
        content = [list(map(dict, self.messages)), list(map(dict, self.tools)), sorted(self.silent)]
        return json.dumps(content, ensure_ascii=False, sort_keys=True)

    @property
    def question(self) -> str:
        """What decides on which side of a split the row goes: all but the last answer, blanks aside."""
        content = json.dumps([list(map(dict, self.messages[:-1])), list(map(dict, self.tools))], ensure_ascii=False)
        return " ".join(content.replace("\\n", " ").split())


def alpaca(instruction: str, input_: str, output: str, *, place: str = "") -> Conversation:
    """An instruction with its answer; `input_` is what the instruction is about, and may be empty."""
    question = f"{instruction}\n{input_}" if input_ else instruction
    return Conversation(
        ({"role": "user", "content": question}, {"role": "assistant", "content": output}),
        place=place,
    )


def rows_digest(rows: Iterable[Conversation]) -> str:
    """sha256 over the rows, each as one line of JSON: equal for equal rows in whatever form they were stored."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.canonical.encode() + b"\n")
    return digest.hexdigest()
