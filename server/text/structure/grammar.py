"""Structures into the grammars that llguidance compiles, within limits. Knows no tokenizer."""

import json
import re
from collections.abc import Iterable

from adapters.hermes import CALL_CLOSE, CALL_OPEN, CALL_TAIL, call_head
from adapters.tool_turns import FunctionTool
from server.text.reasoning import THINK_OPEN, Thoughts
from server.text.structure.errors import StructureInvalid
from server.text.structure.forms import FormWriter
from server.text.structure.json_schema import spaced
from server.text.structure.limits import StructureLimits
from server.text.structure.structures import Form, JsonSchema, Structure, ToolCalls, is_bound
from server.text.structure.thought_rules import ANY_TEXT, OPENED_LATE, before_bound, before_free

_FORM = "form"
"""The name of the grammar of a form, for the one that it is a part of."""


class GrammarWriter:
    """Writes the grammar of a structure, as the JSON text that llguidance reads.

    Raises StructureInvalid for what is over a limit or cannot be enforced. llguidance itself refuses the rest.
    """

    def __init__(self, limits: StructureLimits) -> None:
        self._limits = limits
        self._forms = FormWriter(limits)

    def write(self, structure: Structure, thoughts: Thoughts = Thoughts.NONE) -> str:
        """The grammar of a whole answer, thoughts before it included."""
        if thoughts is Thoughts.NONE and not isinstance(structure, ToolCalls):
            return self.write_form(structure)
        start = before_bound(thoughts) if is_bound(structure) else before_free(thoughts)
        form = structure.text_form if isinstance(structure, ToolCalls) else structure
        rules = self._tool_calls(structure, thoughts) if isinstance(structure, ToolCalls) else [f"answer: @{_FORM}"]
        whole: dict[str, object] = {"lark_grammar": "\n".join([*start, *rules])}
        if form is None:
            return _source(whole)
        return _source(whole, {"name": _FORM} | self._forms.write(form, unlike=tags_before(structure, thoughts)))

    def write_form(self, form: Form, tags: Iterable[str] = ()) -> str:
        """The grammar of a form by itself, where it can be without the texts that begin with one of the tags."""
        return _source(self._forms.write(form, unlike=tags))

    def _tool_calls(self, structure: ToolCalls, thoughts: Thoughts) -> list[str]:
        """Rules in Lark. An opening tag ends the text before it, and from there on only a call can follow."""
        calls = [self._call(tool, structure.field_of(index)) for index, tool in enumerate(structure.functions)]
        total = sum(map(len, calls))
        if total > self._limits.tools_bytes:
            limit = self._limits.tools_bytes
            raise StructureInvalid(structure.field, f"have {total} bytes of JSON schemas; at most {limit} are allowed")
        return [
            *_answer(structure, thoughts),
            f"more: {json.dumps(chr(10) + CALL_OPEN)} call",
            f'call: "\\n" function {json.dumps(f"{CALL_TAIL}{chr(10)}{CALL_CLOSE}")}',
            f"function: {' | '.join(f'f{index}' for index in range(len(calls)))}",
            *(f"f{index}: {call}" for index, call in enumerate(calls)),
        ]

    def _call(self, tool: FunctionTool, field: str) -> str:
        schema = JsonSchema(tool.parameters or {"type": "object"}, tool.is_strict, field)
        if schema.schema.get("type", "object") != "object":
            raise StructureInvalid(field, "should be the schema of an object (type: object)")
        arguments = spaced({"type": "object"} | self._forms.schema(schema))
        return f"{json.dumps(call_head(tool.name))} %json {json.dumps(arguments)}"


def tags_before(structure: Structure, thoughts: Thoughts) -> list[str]:
    """Tags with which something else than a form may begin where the form does: no text of the form may."""
    tags = [THINK_OPEN] if thoughts is Thoughts.POSSIBLE else []
    if not isinstance(structure, ToolCalls):
        return tags
    return [*tags, CALL_OPEN] if structure.text_form is not None else []


def _answer(structure: ToolCalls, thoughts: Thoughts) -> list[str]:
    """The rules of what stands before the first call, or instead of it."""
    more = f" more{{0,{structure.max_calls - 1}}}" if structure.max_calls > 1 else ""
    calls = f"{json.dumps(CALL_OPEN)} call{more}"
    if structure.is_required:
        return [f"answer: {calls}"]
    if structure.text_form is not None:
        return [f"answer: @{_FORM} | {calls}"]
    unlike = f" & ~/{OPENED_LATE}/" if thoughts is Thoughts.POSSIBLE else ""
    return [
        f"answer: TEXT | opening call{more}",
        f"TEXT: /{ANY_TEXT}/{unlike}",
        "opening[lazy]: OPENING",
        f"OPENING: /{ANY_TEXT}{re.escape(CALL_OPEN)}/{unlike}",
    ]


def _source(*grammars: dict[str, object]) -> str:
    return json.dumps({"grammars": grammars})
