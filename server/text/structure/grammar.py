"""Structures into the grammars that llguidance compiles, within limits. Knows no tokenizer."""

import json
import re

from server.text.structure.errors import StructureInvalid
from server.text.structure.forms import FormWriter
from server.text.structure.json_schema import spaced
from server.text.structure.limits import StructureLimits
from server.text.structure.structures import Form, JsonSchema, Structure, ToolCalls
from server.text.tools.definitions import FunctionTool
from server.text.tools.hermes import CALL_CLOSE, CALL_OPEN, CALL_TAIL, call_head

_ANY_TEXT = "/(?s:.*)/"
_FORM = "form"
"""The name of the grammar of a form, for the one that it is a part of."""


class GrammarWriter:
    """Writes the grammar of a structure, as the JSON text that llguidance reads.

    Raises StructureInvalid for what is over a limit or cannot be enforced. llguidance itself refuses the rest.
    """

    def __init__(self, limits: StructureLimits) -> None:
        self._limits = limits
        self._forms = FormWriter(limits)

    def write(self, structure: Structure) -> str:
        if not isinstance(structure, ToolCalls):
            return _source(self._forms.write(structure))
        calls: dict[str, object] = {"lark_grammar": "\n".join(self._tool_calls(structure))}
        form = structure.text_form
        return _source(calls) if form is None else _source(calls, self._named(form))

    def _named(self, form: Form) -> dict[str, object]:
        return {"name": _FORM} | self._forms.write(form, unlike=[CALL_OPEN])

    def _tool_calls(self, structure: ToolCalls) -> list[str]:
        """Rules in Lark. An opening tag ends the text before it, and from there on only a call can follow."""
        calls = [self._call(tool, structure.field_of(index)) for index, tool in enumerate(structure.functions)]
        total = sum(map(len, calls))
        if total > self._limits.tools_bytes:
            limit = self._limits.tools_bytes
            raise StructureInvalid(structure.field, f"have {total} bytes of JSON schemas; at most {limit} are allowed")
        return [
            *_start(structure),
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


def _start(structure: ToolCalls) -> list[str]:
    """The rules of what stands before the first call, or instead of it."""
    more = f" more{{0,{structure.max_calls - 1}}}" if structure.max_calls > 1 else ""
    calls = f"{json.dumps(CALL_OPEN)} call{more}"
    if structure.is_required:
        return [f"start: {calls}"]
    if structure.text_form is not None:
        return [f"start: @{_FORM} | {calls}"]
    return [
        f"start: text | opening call{more}",
        f"text: {_ANY_TEXT}",
        f"opening[lazy]: /(?s:.*){re.escape(CALL_OPEN)}/",
    ]


def _source(*grammars: dict[str, object]) -> str:
    return json.dumps({"grammars": grammars})
